"""A channel to a place that another program leads to: the program is started, execsrv is found there or brought along.

open_reached
├─ the program (ssh, docker...), ended with the block
└─ Said.listen      its stderr: kept until it is there, since it says why it may not get there; ours from then on
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from execsrv._nursery import happened, open_helpers, owned
from execsrv._wire.lines import LineChannel
from execsrv._wire.writing import write_all
from execsrv.client.bringing import archive
from execsrv.client.far_commands import FarShell
from execsrv.client.far_side import Answer, own_facts, parse_answer, script, why_no_way, why_not_brought
from execsrv.client.launching import launched
from execsrv.client.stdio import open_stdio
from execsrv.errors import ConnectionFailedError
from execsrv.errors.command import shown
from execsrv.limits import KIB, ClientConfig

_MOST_SAID_BYTES = 64 * KIB
_QUOTED_CHARACTERS = 300
_EXIT_SECONDS = 1.0
"""The wait for the exit status and the last words of a program that has ended its output."""

_BRING_SECONDS = 60.0

_READ_BYTES = 4 * KIB


class _Said:
    """The stderr of a program."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._held = bytearray()
        self._passes = False
        self._thread = trio.CapacityLimiter(2)  # what it has said so far, and what it says meanwhile
        self.over = trio.Event()

    @property
    def text(self) -> str:
        return self._held.decode(errors="replace").strip()

    async def listen(self) -> None:
        """Keep the end of what it says and, from `pass_on` on, say it on our stderr."""
        try:
            async for data in self._stream:
                self._held += data
                del self._held[:-_MOST_SAID_BYTES]
                if self._passes:
                    await self._say(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.over.set()

    async def pass_on(self) -> None:
        """Say on our stderr what it has said so far, and what it will."""
        self._passes = True
        if self._held:
            await self._say(bytes(self._held))

    async def _say(self, data: bytes) -> None:
        if sys.stderr is None:  # a program that has none has given its number away
            return
        try:
            await trio.to_thread.run_sync(write_all, 2, data, limiter=self._thread, abandon_on_cancel=True)
        except OSError:
            pass  # nobody listens


class _Behind(trio.abc.ReceiveStream):
    """A stream behind bytes that were read of it already. Takes ownership of it."""

    def __init__(self, first: bytes, stream: trio.abc.ReceiveStream) -> None:
        self._first = first
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._first:
            await trio.lowlevel.checkpoint()
            first, self._first = self._first, b""
            return first
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def open_reached(
    place: FarShell, serve: Sequence[str], config: ClientConfig, *, bring: bool, name: str = ""
) -> AsyncIterator[LineChannel]:
    """Open a channel to the server that `execsrv` with the words `serve` is at a place.

    Where execsrv is not there, and a Python like ours is, it is brought along if it may be. A server with a `name`
    outlives the channel, unless that is closed in order. Raises `ConnectionFailedError`, which tells why there is no
    way.
    """
    argv = place.command(script(serve, place.directory, bring=bring, name=name))
    async with open_helpers() as nursery, launched(argv, stderr=subprocess.PIPE) as program:
        stdin, stdout, stderr = program.stdin, program.stdout, program.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        said = _Said(stderr)
        nursery.start_soon(owned, said.listen)

        async def explain() -> str:
            with trio.move_on_after(_EXIT_SECONDS):
                await program.wait()
                await happened(said.over)
            why = why_no_way(place.program, program.returncode, said.text)
            text = said.text
            if len(text) > _QUOTED_CHARACTERS:
                text = text.rstrip().rpartition("\n")[2]  # the reason comes last
            return why + (f'; it said "{shown(text, _QUOTED_CHARACTERS)}"' if text else "")

        try:
            with trio.fail_after(config.handshake_timeout):
                answer, rest = await _hear_answer(stdout)
        except trio.TooSlowError:
            answer, rest = None, b""
        if answer is None:
            raise ConnectionFailedError(f"cannot reach `{place.url}`: {await explain()}")
        if not answer.is_there:
            await _bring(place, answer, stdin, bring=bring, explain=explain)
        await said.pass_on()
        async with open_stdio(stdin, _Behind(rest, stdout), config, explain, leaves=bool(name)) as channel:
            yield channel


async def _hear_answer(stdout: trio.abc.ReceiveStream) -> tuple[Answer | None, bytes]:
    """Return the answer of the far side, None where it ends or greets without one, and what came behind it."""
    heard = bytearray()
    begin = 0
    while len(heard) <= _MOST_SAID_BYTES:
        data = await stdout.receive_some(_READ_BYTES)
        if not data:
            return None, b""
        heard += data
        while (end := heard.find(b"\n", begin)) >= 0:
            if (answer := parse_answer(bytes(heard[begin:end]))) is not None:
                return answer, bytes(heard[end + 1 :])
            begin = end + 1
    return None, b""


async def _bring(
    place: FarShell, answer: Answer, stdin: trio.abc.SendStream, *, bring: bool, explain: Callable[[], Awaitable[str]]
) -> None:
    """Send execsrv to a Python that has none. Raises `ConnectionFailedError`."""
    problem = f"cannot reach `{place.url}`: there is no execsrv in its PATH"
    if answer.python is None:
        raise ConnectionFailedError(f"{problem}, and no Python" if bring else problem)
    if (why := why_not_brought(answer.python, own_facts())) is not None:
        raise ConnectionFailedError(f"{problem}, and it cannot be brought along: {why}; install execsrv there")
    data = await trio.to_thread.run_sync(archive, limiter=trio.CapacityLimiter(1))
    try:
        with trio.fail_after(_BRING_SECONDS):
            await stdin.send_all(len(data).to_bytes(4, "big") + data)
    except trio.TooSlowError as error:
        text = f"cannot bring execsrv to `{place.url}`: it has not taken {len(data)} bytes within {_BRING_SECONDS:g} s"
        raise ConnectionFailedError(text) from error
    except trio.BrokenResourceError as error:
        raise ConnectionFailedError(f"cannot bring execsrv to `{place.url}`: {await explain()}") from error
