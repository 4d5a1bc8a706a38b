"""One command of version 2, from its start until nothing of it is left and all that it printed was sent."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any

import trio

from execsrv._lent import Lent
from execsrv._nursery import owned
from execsrv._processes.attempt import Attempt, Spawned
from execsrv._processes.own_streams import OwnStreams
from execsrv._processes.supervisor import Supervisor
from execsrv._processes.usage import usage_of, used_by
from execsrv._runner.frames import data_header
from execsrv._runner.input import Input
from execsrv._runner.outgoing import Outgoing
from execsrv._runner.output import OutputStream
from execsrv._runner.settling import settled
from execsrv._runner.version_2_messages import (
    DATA_BYTES,
    Credit,
    Eof,
    Error,
    Exit,
    InputWait,
    Looked,
    Resize,
    Signal,
    Signaled,
    SpawnReady,
    SpawnRequest,
    StdinDone,
    Stream,
    TreeEmpty,
)
from execsrv._threads import SharedThreads
from execsrv.errors import RequestError
from execsrv.protocol import Size
from execsrv.protocol.bounds import MOST_NAME_BYTES

_GIVE_UP_SECONDS = 1.0
"""So long a start may still take when the command is to end already."""

_ASK_AGAIN_SECONDS = 0.1

_MOST_WORDS, _MOST_GAPS, _MOST_MEMBERS = 4096, 1024, 65536
"""The bounds of `version_2_messages.py` hold for what this side says too: words of errors repeat what was asked for."""


class RunnerCommand:
    """A command by the id of its request. `run` is its task."""

    def __init__(self, request: SpawnRequest, given: dict[str, Lent], outgoing: Outgoing) -> None:
        """`given` are the descriptors that came along, by the names of their streams."""
        self._request = request
        self._id = request.id
        self._given = given
        self._outgoing = outgoing
        self._life = trio.CancelScope()
        self._starting = trio.CancelScope()
        self._outlived = trio.CancelScope()  # the wait for its end as long as nobody kills it
        self._noted = trio.Event()  # how its leader ended, which may be reaped
        self._grace_ms: int | None = None  # the shortest of terminations that came before it ran
        self._is_asking = False
        self._spawned: Spawned | None = None
        self._nursery: trio.Nursery | None = None
        self._streams: dict[Stream, OutputStream] = {}
        self._input: Input | None = None
        self._its: OwnStreams | None = None

    def __repr__(self) -> str:
        return f"<RunnerCommand {self._id} {'starting' if self._spawned is None else self._spawned.tree}>"

    @property
    def is_ready(self) -> bool:
        """True once it runs, and the server was told."""
        return self._spawned is not None

    # -- its life --

    async def run(self, supervisor: Supervisor, threads: SharedThreads) -> None:
        """Start it, and see to it until it is over. Cancelling kills what is left of it."""
        attempt = supervisor.new_attempt()
        try:
            with self._life:
                spawned = await self._start(attempt, threads)
                if spawned is not None:
                    await self._live(spawned)
        finally:
            self._close()
            await owned(attempt.end)

    async def _start(self, attempt: Attempt, threads: SharedThreads) -> Spawned | None:
        request = self._request
        spawned: Spawned | None = None
        error = Error(self._id, "spawn_failed", "cannot start: given up, as nobody waits for it", stage="resources")
        try:
            settle = settled(request, self._given)
            with self._starting:
                size = request.size if request.tty else None
                start = partial(attempt.start, size=size, pipe_stdin=request.stdin_open, modes=request.modes)
                spawned = await owned(start, settle, threads)
        except RequestError as found:
            error = refusal(self._id, found)
        if not self._starting.cancelled_caught:
            self._given.clear()  # nor may a traceback keep them open
        if spawned is None:
            self._outgoing.tell(error)
        else:
            self._take(spawned, attempt)
        return spawned

    def _take(self, spawned: Spawned, attempt: Attempt) -> None:
        """Take ownership of a running command, and tell the server."""
        self._its = spawned.streams()
        is_terminal = "pty" in spawned.outputs
        if self._its.input is not None:
            self._input = Input(self._its.input, self._tell_taken, is_terminal=is_terminal)
        attempt.pass_streams()  # at once: two who close a descriptor may hit another start's
        layers: list[str] = []
        gaps: list[str] = []
        if spawned.confinement is not None:
            from execsrv._policies.resolver import told

            confined = told(spawned.confinement)
            layers, gaps = confined.layers, [gap[:_MOST_WORDS] for gap in confined.gaps[:_MOST_GAPS]]
        self._outgoing.tell(SpawnReady(self._id, spawned.tree.pid, layers, gaps))
        for name, descriptor in spawned.outputs.items():
            self._streams[name] = OutputStream(
                descriptor,
                self._outgoing,
                partial(self._frame, name),
                is_terminal=is_terminal,
                most=DATA_BYTES,
                credit=self._request.window,
            )
        self._spawned = spawned

    async def _live(self, spawned: Spawned) -> None:
        async with trio.open_nursery() as helpers:
            self._nursery = helpers
            if self._input is not None:
                helpers.start_soon(owned, self._input.feed)
            if self._grace_ms is not None:
                self.terminate(self._grace_ms)
            try:
                async with trio.open_nursery() as parts:
                    for name, stream in self._streams.items():
                        parts.start_soon(owned, self._send, name, stream)
                    parts.start_soon(owned, self._tell_exit, spawned)
                    parts.start_soon(owned, self._tell_empty, spawned)
            finally:
                self._nursery = None  # a closed one takes no task, and words may come until the very end
            helpers.cancel_scope.cancel()

    def _frame(self, name: Stream, chunk: bytes) -> bytes:
        return data_header(self._id, name, len(chunk)) + chunk

    async def _send(self, name: Stream, stream: OutputStream) -> None:
        await stream.run()
        self._outgoing.tell(Eof(self._id, name))

    async def _tell_exit(self, spawned: Spawned) -> None:
        assert self._its is not None
        status = await spawned.tree.leader.wait_exited()
        limit = None
        if spawned.limits is not None:
            limit = spawned.limits.reached(status, was_killed=self._outlived.cancel_called)
        self._noted.set()
        self._its.let_go_of_terminal()
        for stream in self._streams.values():
            await stream.wait_drained()
        self._outgoing.tell(Exit(self._id, status.code, status.signal, limit))

    async def _tell_empty(self, spawned: Spawned) -> None:
        with self._outlived:
            await self._noted.wait()
            await spawned.tree.wait_alone()
        layer = await spawned.tree.kill()
        usage = None if spawned.limits is None else spawned.limits.usage()
        self._outgoing.tell(TreeEmpty(self._id, layer, used_by(spawned.tree.leader.usage).cpu_ms, usage))

    def _tell_taken(self, count: int) -> None:
        self._outgoing.tell(StdinDone(self._id, count, closed=count == 0))

    def _close(self) -> None:
        if self._input is not None:
            self._input.close()
        if self._its is not None:
            self._its.close()

    # -- what the server asks of it --

    def terminate(self, grace_ms: int) -> None:
        """Kill all of it, or with a grace ask it to end."""
        if self._spawned is None:
            self._grace_ms = grace_ms if self._grace_ms is None else min(self._grace_ms, grace_ms)
            self._starting.deadline = min(self._starting.deadline, trio.current_time() + _GIVE_UP_SECONDS)
        elif grace_ms == 0:
            self._outlived.cancel()
        elif self._nursery is not None and not self._is_asking:
            self._is_asking = True
            self._nursery.start_soon(owned, self._ask_to_end, self._spawned)

    async def _ask_to_end(self, spawned: Spawned) -> None:
        while not self._outlived.cancel_called:
            try:
                if not isinstance(rest := spawned.tree.ask_to_end(), int):
                    await rest
                self._is_asking = False
                return
            except OSError:  # no descriptor left to look with
                await trio.sleep(_ASK_AGAIN_SECONDS)

    def forget(self) -> None:
        """Kill what is left of it, and throw away what it has printed."""
        self._life.cancel()

    @property
    def queued_bytes(self) -> int:
        """Bytes of input that it was given and has not taken."""
        return 0 if self._input is None else self._input.given_bytes

    def write(self, data: bytes) -> None:
        """Give it input. Nobody reads it where it has no input, or none any more."""
        if self._input is not None:
            self._input.put(data)

    def close_stdin(self) -> None:
        """End its input."""
        if self._input is not None:
            self._input.end()

    def resize(self, message: Resize) -> None:
        """Change the size of its terminal, where it has one."""
        if self._its is not None:
            self._its.resize(Size(message.rows, message.cols, message.xpixel, message.ypixel))

    def give(self, message: Credit) -> None:
        """Let more of a stream be sent."""
        if (stream := self._streams.get(message.stream)) is not None:
            stream.give(message.bytes)

    def signal(self, message: Signal) -> Coroutine[Any, Any, None] | None:
        """Send it a signal, and tell how many received it. Return what does so where they are too many for one turn."""
        assert self._spawned is not None
        assert self._its is not None
        try:
            if message.target == "foreground":
                received = self._its.signal_foreground(message.signal)
            else:
                received = self._spawned.tree.signal(message.signal, message.target)
        except OSError as error:  # no descriptor left to look with
            self._outgoing.tell(Signaled(message.request, 0, error.errno))
            return None
        if not isinstance(received, int):
            return self._signal_rest(message.request, received)
        self._outgoing.tell(Signaled(message.request, received))
        return None

    async def _signal_rest(self, request: int, receiving: Coroutine[Any, Any, int]) -> None:
        try:
            self._outgoing.tell(Signaled(request, await receiving))
        except OSError as error:
            self._outgoing.tell(Signaled(request, 0, error.errno))

    async def look(self, request: int) -> Looked:
        """Look who lives of it, and what that does."""
        assert self._spawned is not None
        assert self._its is not None
        tree = self._spawned.tree
        members = await tree.remaining()
        usage = usage_of(member.pid for member in members) if members else used_by(tree.leader.usage)
        shown, waits = members[:_MOST_MEMBERS], None
        try:
            if self._input is not None and not self._input.is_closed and not self._input.waiting_bytes:
                waits = await self._its.input_wait()
            echoes = await self._its.echoes()
        except OSError as error:
            return Looked(request, shown, usage.cpu_ms, usage.memory_bytes, errno=error.errno)
        found = None if waits is None else InputWait(*waits)
        return Looked(request, shown, usage.cpu_ms, usage.memory_bytes, echoes, found)


def refusal(id: int, error: RequestError) -> Error:
    """Return what the server hears of a start that was refused."""
    told = {name: error.facts[name] for name in ("stage", "step", "errno", "field", "need") if error.facts.get(name)}
    for name in told.keys() - {"errno"}:
        told[name] = str(told[name])[: _MOST_WORDS if name == "need" else MOST_NAME_BYTES]
    return Error(id, "spawn_failed", str(error)[:_MOST_WORDS], error.kind, **told)
