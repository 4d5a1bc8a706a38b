"""`process/wait`, and `process/waitFor`: waiting, beside all readers, until something happens to a process.

    _Wait.run
    ├─ _follow        looks at entry after entry of the log: output, silence, the exit, the close
    ├─ _try_port, _watch_echo, _watch_input, _await_empty   where they are wanted
    └─ the scope of all: the deadline, and `replace`

The first that sees what was asked for ends the others. Each look is bounded: byte strings are searched for, in pieces,
and no regular expressions, since one that is badly made can take for ever and would hold up every connection. Whoever
wants those applies them where the output is read. The looks of all waits share one turn (`looks.py`).
"""

from __future__ import annotations

import math
from functools import partial

import trio
from msgspec import UNSET, UnsetType

from execsrv._log.entries import Closed, Exited, Gap
from execsrv._log.search import Search
from execsrv._nursery import owned
from execsrv._server.looks import Looks
from execsrv._server.methods.process import heard_by, own_name, required_session, while_heard
from execsrv._server.methods.process_passing import check_has_streams
from execsrv._server.methods.table import Caller, Later, handles_later
from execsrv._server.ports import accepts, addresses_of
from execsrv._server.session import Session
from execsrv.errors import InvalidParamsError
from execsrv.protocol import (
    Chunk,
    Happening,
    InputWait,
    ProcessHappened,
    ProcessWait,
    ProcessWaited,
    ProcessWaitFor,
    ReadGap,
)
from execsrv.protocol.roles import Role

_PORT_SECONDS = 0.05
"""The pause between two attempts to connect."""

_INPUT_SECONDS = 0.05
"""The pause between two looks at who waits for input. Two of them must agree: what was typed may be on its way."""

_ECHO_SECONDS = 0.02
"""The pause between two looks at the modes of a terminal, which tells nobody when they change."""


@handles_later("process/wait", of="process_id")
def process_wait(caller: Caller, params: ProcessWait) -> Later[ProcessWaited]:
    heard = heard_by(caller, params.process_id)
    return while_heard(heard, partial(_process_wait, required_session(caller, params.process_id), params))


async def _process_wait(session: Session, params: ProcessWait) -> ProcessWaited:
    """Wait for the end of the leader; then, or when the time is over, say how it stands."""
    log = session.log
    with trio.move_on_after(math.inf if params.timeout_ms is None else params.timeout_ms / 1000):
        while log.exited is None:
            await session.feed.wait_appended()
    if log.exited is None:
        return ProcessWaited(running=True)
    return ProcessWaited(False, log.exited.exit_code, log.exited.signal, log.exited.reason)


@handles_later("process/waitFor", of="process_id")
def process_wait_for(caller: Caller, params: ProcessWaitFor) -> Later[ProcessHappened]:
    session = required_session(caller, params.process_id)
    if params.output or params.idle_ms is not None or params.input:
        check_has_streams(session, "watched")
    if params.port is not None:
        caller.principal.check(Role.OWNER, "`port` reaches the network, which")
    if params.no_echo and not session.is_terminal:
        raise InvalidParamsError(f"process {session.id} has no terminal, and so no echo", field="noEcho")
    if params.after_offset is not None and not params.after_seq:
        raise InvalidParamsError("afterOffset is a place in the entry afterSeq, which is missing", field="afterOffset")
    name = own_name(caller, params.process_id, params.wait_id or "")
    wait = _Wait(session, params, name, addresses_of(params.port), caller.shared.looks)
    if params.wait_id is not None:
        if (earlier := session.waits.get(wait.name)) is not None:
            earlier()
        session.waits[wait.name] = wait.replace
    return while_heard(heard_by(caller, params.process_id), wait.run)


class _Wait:
    """One wait, with a place of its own in the log."""

    def __init__(
        self, session: Session, params: ProcessWaitFor, name: str, addresses: tuple[str, ...], looks: Looks
    ) -> None:
        self.name = name
        self._looks = looks
        self._session = session
        self._log = session.log
        self._params = params
        self._addresses = addresses
        self._search = Search(params.output)
        self._skip = params.after_offset or 0
        if params.after_seq is None:
            self._next = self._log.oldest
        else:
            self._next = params.after_seq + (params.after_offset is None)
        self._gap: ReadGap | None = None
        self._idle = (params.idle_ms or math.inf) / 1000
        self._silent_at = math.inf
        self._scope = trio.CancelScope()
        self._is_replaced = False
        self._answer: ProcessHappened | None = None

    def replace(self) -> None:
        """End it: there is another one of its name."""
        self._is_replaced = True
        self._scope.cancel()

    async def run(self) -> ProcessHappened:
        """Wait, and return what happened first."""
        try:
            with self._scope:
                await self._look(self._log.next_seq)  # what is there counts, however short the time is
                if self._params.input and self._params.timeout_ms == 0 and (found := await self._input_wait()):
                    self._happened("input", input=found)
                patience = math.inf if self._params.timeout_ms is None else self._params.timeout_ms / 1000
                self._scope.deadline = trio.current_time() + patience
                async with trio.open_nursery() as watchers:
                    watchers.start_soon(owned, self._follow)
                    if self._params.port is not None:
                        watchers.start_soon(owned, self._try_port, self._params.port.port)
                    if self._params.tree_empty:
                        watchers.start_soon(owned, self._await_empty)
                    if self._params.no_echo:
                        watchers.start_soon(owned, self._watch_echo)
                    if self._params.input:
                        watchers.start_soon(owned, self._watch_input)
        finally:
            if self._params.wait_id is not None and self._session.waits.get(self.name) == self.replace:
                del self._session.waits[self.name]
        self._happened("replaced" if self._is_replaced else "timeout")
        assert self._answer is not None
        return self._answer

    def _happened(
        self,
        what: Happening,
        offset: int | None = None,
        chunk: Chunk | None = None,
        index: int = 0,
        input: InputWait | UnsetType = UNSET,
    ) -> None:
        """Decide the answer, unless it is decided, and end the wait."""
        if self._answer is None:
            exited = self._log.exited
            self._answer = ProcessHappened(
                what,
                chunk.seq if chunk else max(0, self._next - 1),
                offset,
                chunk.stream if chunk else None,
                index if chunk else None,
                self._gap,
                exited.exit_code if exited else None,
                input,
            )
            self._scope.cancel()

    # -- the log --

    async def _follow(self) -> None:
        """Look at each entry as it comes, until the close."""
        self._silent_at = trio.current_time() + self._idle
        while await self._look(math.inf):
            with trio.move_on_at(self._silent_at) as silence:
                await self._session.feed.wait_appended()
            if silence.cancelled_caught and self._next >= self._log.next_seq:
                if self._log.has_room:
                    self._happened("idle")
                await self._wait_room()  # it waits for its reader, who is the silent one
                self._silent_at = trio.current_time() + self._idle
        if self._params.tree_empty:
            return
        if self._params.port is not None:
            await self._session.wait_empty()  # who lives on may still come to listen
        self._happened("closed")

    async def _wait_room(self) -> None:
        """Wait until the log has room for more, or has more all the same: ends are written there without."""

        async def until_room() -> None:
            while not self._log.has_room:
                await self._session.feed.wait_taken()
            either.cancel_scope.cancel()

        async with trio.open_nursery() as either:
            either.start_soon(owned, until_room)
            await self._session.feed.wait_appended()
            either.cancel_scope.cancel()

    async def _look(self, until: float) -> bool:
        """Look at what the log has, up to entry `until`. Return False behind the close."""
        while self._next < min(self._log.next_seq, until):
            await self._looks.take_turn()
            if not self._looks.timed(self._look_at_one):
                return False
            if self._answer is not None:
                await trio.lowlevel.checkpoint()
        return self._log.closed is None or self._next <= self._log.closed.seq

    def _look_at_one(self) -> bool:
        """Look at the next entry. Return False behind the close."""
        if (gap := self._log.gap_behind(self._next - 1)) is not None:
            self._pass_over(gap)
            return True
        entry = self._log.entry(self._next)
        match entry:
            case Gap():
                self._pass_over(self._log.gap_of(entry))
                return True
            case Chunk():
                if (found := self._search.look(entry, self._skip)) is not None:
                    self._happened("output", found.end, entry, found.number)
                self._silent_at = trio.current_time() + self._idle
            case Exited() if self._params.exited:
                self._next += 1
                self._happened("exited")
            case Closed():
                self._next = entry.seq + 1
                return False
        self._next, self._skip = self._next + 1, 0
        return True

    def _pass_over(self, gap: ReadGap) -> None:
        first = self._gap.from_seq if self._gap is not None else gap.from_seq
        self._gap = ReadGap(first, gap.seq, gap.printed_before)
        self._next, self._skip = gap.seq + 1, 0
        self._search.forget()

    # -- the rest --

    async def _await_empty(self) -> None:
        await self._session.wait_empty()
        while self._log.exited is None:
            await self._session.feed.wait_appended()
        while self._next <= self._log.exited.seq:
            await trio.lowlevel.checkpoint()  # what it printed is looked at first
        self._happened("treeEmpty")

    async def _watch_echo(self) -> None:
        while await self._session.echoes():  # there is nothing that tells
            await self._looks.pause(_ECHO_SECONDS)
        self._happened("noEcho")

    async def _watch_input(self) -> None:
        before: InputWait | None = None
        while (found := await self._input_wait()) is None or found != before:  # nothing tells
            before = found
            await self._looks.pause(_INPUT_SECONDS)
        self._happened("input", input=found)

    async def _input_wait(self) -> InputWait | None:
        found = await self._session.input_wait()
        return None if found is None else InputWait(*found)

    async def _try_port(self, port: int) -> None:
        while True:
            async with self._looks.tries:
                for address in self._addresses:
                    if await accepts(address, port):
                        self._happened("port")
                        return
                await trio.sleep(_PORT_SECONDS)
