"""Version 1 of a runner: one command, by the founding protocol. Then the runner ends, with the command's exit code.

The end of the channel ends the command, with everything that descends from it; so does the command's own end.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import trio
from msgspec import Struct
from msgspec.structs import replace

from execsrv._nursery import open_helpers, owned
from execsrv._processes.attempt import Spawned
from execsrv._processes.command import Command, settle
from execsrv._processes.leader import ExitStatus
from execsrv._processes.own_streams import OwnStreams
from execsrv._processes.supervisor import Supervisor
from execsrv._runner.frames import encode
from execsrv._runner.incoming import Incoming
from execsrv._runner.input import Input
from execsrv._runner.outgoing import Outgoing
from execsrv._runner.output import OutputStream
from execsrv._runner.preset import sandbox_of
from execsrv._runner.version_1_messages import (
    FAILED,
    OUTPUT_BYTES,
    TERMINATED,
    TIMED_OUT,
    Error,
    Exit,
    Output,
    SpawnReady,
    SpawnRequest,
    Stdin,
    Terminate,
)
from execsrv._threads import SharedThreads
from execsrv.errors import ExecsrvError, InvalidParamsError
from execsrv.protocol import Size

READY_SECONDS = 15
"""So long a start may take."""


async def serve_one(supervisor: Supervisor, request: SpawnRequest, incoming: Incoming, outgoing: Outgoing) -> int:
    """Run the command of a request to its end; return the exit status of the runner.

    Raises `ProtocolError` for a server that breaks the protocol.
    """
    command = _OneCommand(request, outgoing)
    async with open_helpers() as nursery:
        with trio.CancelScope() as reading:
            nursery.start_soon(owned, command.run, supervisor, reading)
            while (message := await incoming.next()) is not None:
                await command.do(message)
    return command.status


class _OneCommand:
    def __init__(self, request: SpawnRequest, outgoing: Outgoing) -> None:
        self.status = FAILED
        self._request = request
        self._outgoing = outgoing
        self._input: Input | None = None
        self._begun = trio.Event()  # it runs, or never will
        self._unended = trio.CancelScope()  # its life, as long as nobody ends it
        self._timed_out = False
        self._fault: str | None = None

    async def run(self, supervisor: Supervisor, reading: trio.CancelScope) -> None:
        """Start it, and tell of it to its end. Then `reading` is over."""
        attempt = supervisor.new_attempt()
        spawned: Spawned | None = None
        try:
            try:
                size = Size() if self._request.tty else None
                start = partial(attempt.start, size=size, pipe_stdin=self._request.stdin_open)
                with trio.move_on_after(READY_SECONDS):
                    spawned = await owned(start, settled(self._request), SharedThreads(supervisor.threads))
            except ExecsrvError as error:
                self._outgoing.tell(Error(str(error), "spawn_failed"))
            else:
                if spawned is None:
                    self._outgoing.tell(Error(f"cannot start within {READY_SECONDS} s", "spawn_failed"))
                else:
                    attempt.pass_streams()
                    self._outgoing.tell(SpawnReady(spawned.tree.pid))
                    its = spawned.streams()
                    try:
                        await self._live(spawned, its)
                    finally:
                        self._close(its)
            await self._outgoing.wait_sent()
            reading.cancel()
        finally:
            await owned(attempt.end)

    async def _live(self, spawned: Spawned, its: OwnStreams) -> None:
        is_terminal = "pty" in its.outputs
        outputs = {
            OutputStream(
                descriptor,
                self._outgoing,
                partial(_frame, "stderr" if name == "stderr" else "stdout"),
                is_terminal=is_terminal,
                most=OUTPUT_BYTES,
                credit=math.inf,
            )
            for name, descriptor in its.outputs.items()
        }
        async with trio.open_nursery() as helpers:
            if its.input is not None:
                self._input = Input(its.input, _pass, is_terminal=is_terminal)
                helpers.start_soon(owned, self._input.feed)
            self._begun.set()
            if self._request.timeout_ms is not None:
                helpers.start_soon(owned, self._end_at, trio.current_time() + self._request.timeout_ms / 1000)
            for output in outputs:
                helpers.start_soon(owned, output.run)
            with self._unended:
                await spawned.tree.leader.wait_exited()
            await spawned.tree.kill()  # what it has left behind, too
            status = spawned.tree.leader.exit_status() or ExitStatus(255)
            its.let_go_of_terminal()
            for output in outputs:
                await output.wait_drained()
            helpers.cancel_scope.cancel()
        if self._unended.cancelled_caught and self._fault is not None:
            self._outgoing.tell(Error(self._fault, "failed"))
            return
        self.status = status.code
        if self._unended.cancelled_caught:
            self.status = TIMED_OUT if self._timed_out else TERMINATED
        self._outgoing.tell(Exit(self.status, self._unended.cancelled_caught and self._timed_out))

    async def _end_at(self, deadline: float) -> None:
        await trio.sleep_until(deadline)
        if not self._unended.cancel_called:
            self._timed_out = True
            self._unended.cancel()

    async def do(self, message: Struct) -> None:
        """Do what a message says. Those that say nothing to a runner are passed over."""
        if isinstance(message, Terminate):
            self._unended.cancel()
        elif isinstance(message, Stdin) and self._request.stdin_open:
            data = _decoded(message.data_b64)
            await self._begun.wait()
            if self._input is not None and self._fault is None:
                try:
                    self._input.put(data)
                except OSError as error:
                    self._fault = f"cannot keep input that the command does not read: {error.strerror or error}"
                    self._unended.cancel()
                await self._input.wait_room()

    def _close(self, its: OwnStreams) -> None:
        if self._input is not None:
            self._input.close()
        its.close()


def settled(request: SpawnRequest) -> Callable[[], Command]:
    """Return what decides, in a thread, what is to run. Raises what a policy that cannot be kept does."""
    for name, path in (("cwd", request.cwd), ("sandbox_policy_cwd", request.sandbox_policy_cwd)):
        if not path.startswith("/"):
            raise InvalidParamsError(f"{name} is no absolute path", field=name)
    sandbox = sandbox_of(request.policy_json_or_preset, request.sandbox_policy_cwd)

    def settle_it() -> Command:
        from execsrv._policies.resolver import Resolver

        confinement = Resolver(sandbox, request.cwd).resolve(request.env.get("TMPDIR"))
        return replace(settle(request.command, request.cwd, request.env), confinement=confinement)

    return settle_it


def _decoded(text: str) -> bytes:
    """Return the bytes of a text in base64, none for one that is not."""
    try:
        return b"" if len(text) % 4 else binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return b""


def _frame(name: Literal["stdout", "stderr"], chunk: bytes) -> bytes:
    return encode(Output(chunk, name))


def _pass(count: int) -> None:
    """Version 1 tells nobody what a command has read."""
