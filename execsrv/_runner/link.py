"""The channel to one runner, as its server has it: frames out, frames in, and questions with their answers.

    run
    ├─ _write    the only task that sends
    ├─ _watch    asks for a sign of life
    └─ _read     hands each message to the command that it names

Everything from a runner is input: its form, its bounds, its ids, its order. A breach ends this runner, with all of its
commands, and nobody else.
"""

from __future__ import annotations

import logging
import os
import socket
from array import array
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, Protocol, TypeVar

import trio
from msgspec import Struct

from execsrv._lent import Lent
from execsrv._nursery import owned
from execsrv._runner import frames
from execsrv._runner.version_2_messages import (
    Data,
    Error,
    Hello,
    HelloBack,
    Looked,
    Ping,
    Pong,
    Signaled,
)
from execsrv._wire.quoting import quoted
from execsrv.errors import BusyError, CutOffError, ProtocolError
from execsrv.limits import KIB, MIB

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 30.0
"""A runner that says nothing for so long, though it was asked, is lost."""

_ASKED_SECONDS = 10.0

_MOST_QUESTIONS = 256
_MOST_WAITING_BYTES = 16 * MIB
"""More than any request of ours has. A runner that leaves more than this unread is lost."""

_FULL_BYTES = 256 * KIB
"""Input waits for its command here while so much is to be written."""

_READ_BYTES = 256 * KIB

A = TypeVar("A", bound=Struct)


class Remote(Protocol):
    """A command of the runner, which hears of it."""

    def heard(self, message: Struct) -> None:
        """Take a message about it. Raises `ProtocolError`."""

    def lost(self) -> None:
        """Hear that the runner is gone, and with it all that was known of the command."""


class Link:
    """One runner. It is lost once, for good, and `why` says how."""

    def __init__(self, stream: trio.socket.SocketType, name: str) -> None:
        """Take ownership of the socket. `name` is for people."""
        self.name = name
        self.why: str | None = None
        self.passes = False
        """True where descriptors arrive at the runner."""
        self.ready = trio.Event()
        """Set when the runner has answered, or is lost."""
        self.gone = trio.Event()
        self._stream = stream
        self._reader = frames.FrameReader({2: frames.AS_SERVER[2]})
        self._to_write: deque[tuple[bytes, Sequence[Lent]]] = deque()
        self._waiting_bytes = 0
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._commands: dict[int, Remote] = {}
        self._last_id = 0
        self._questions: dict[int, _Question[Any]] = {}
        self._last_question = 0
        self._has_spoken = False

    def __repr__(self) -> str:
        return f"<Link {self.name} {self.why or 'open'} commands={len(self._commands)}>"

    # -- its life --

    async def run(self) -> None:
        """Speak with the runner until it is lost. Cancelling hangs up, which ends all that it has started."""
        self.send(Hello(), (Lent(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)),))
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(owned, self._write)
                tasks.start_soon(owned, self._watch)
                await owned(self._read)
                tasks.cancel_scope.cancel()
        finally:
            self._stream.close()
            self._lose("its channel was closed")

    def lose(self, why: str) -> None:
        """Give the runner up."""
        if self.why is None:
            self._lose(why)
            self._stream.shutdown(socket.SHUT_RDWR)

    def _lose(self, why: str) -> None:
        if self.why is None:
            self.why = why
        self.ready.set()
        self.gone.set()
        self._to_write.clear()
        questions, self._questions = self._questions, {}
        for question in questions.values():
            question.settle(None)
        commands, self._commands = self._commands, {}
        for command in commands.values():
            command.lost()
        self._room.unpark_all()
        self._news.unpark_all()

    async def _read(self) -> None:
        try:
            while data := await self._stream.recv(_READ_BYTES):
                self._has_spoken = True
                self._reader.feed(data)
                while (message := self._reader.next()) is not None:
                    self._take(message)
            self._reader.check_end()
        except CutOffError:
            self._lose("it ended in the middle of a frame")
        except ProtocolError as error:
            why = error.told if isinstance(error, frames.NoFrameError) else error
            logger.warning("runner %s broke the protocol: %s", self.name, why)
            self._lose(f"it broke the protocol: {why}")
        except ConnectionResetError:  # with something of ours unread
            self._lose("it has ended")
        except OSError as error:
            self._lose(f"its channel broke: {error}")
        else:
            self._lose("it has ended")

    def _take(self, message: Struct) -> None:
        if isinstance(message, Data):  # the most of all
            self._command(message.id, message)
        elif isinstance(message, HelloBack):
            if self.ready.is_set():
                raise ProtocolError("a second hello")
            if 2 not in message.versions:
                raise ProtocolError("it does not speak version 2")
            self.passes = message.descriptors
            self.ready.set()
        elif not self.ready.is_set() and not isinstance(message, Error):
            raise ProtocolError("its hello did not come first")
        elif isinstance(message, Signaled | Looked):
            question = self._questions.pop(message.request, None)
            if question is not None and isinstance(message, question.kind):
                question.settle(message)
            elif question is not None or not 0 < message.request <= self._last_question:
                raise ProtocolError("an answer to no question")
        elif isinstance(message, Error) and message.id is None:
            raise ProtocolError(f"it says {quoted(message.code)}: {quoted(message.message)}")
        elif not isinstance(message, Pong):
            self._command(message.id, message)  # type: ignore[attr-defined]  # as all that are left

    def _command(self, id: int, message: Struct) -> None:
        command = self._commands.get(id)
        if command is not None:
            command.heard(message)
        elif not 0 < id <= self._last_id:
            raise ProtocolError("a message about a command that it was not given")

    async def _write(self) -> None:
        try:
            while True:
                while not self._to_write:
                    await self._news.park()
                data, lent = self._to_write.popleft()
                pieces, size = [data], len(data)
                while not lent and self._to_write and not self._to_write[0][1] and size < _FULL_BYTES:
                    pieces.append(self._to_write.popleft()[0])
                    size += len(pieces[-1])
                await self._send(b"".join(pieces), lent)
                del lent  # a descriptor of ours would keep what it belongs to open
                self._waiting_bytes -= size
                self._room.unpark_all()
        except OSError:
            pass  # `_read` hears of it too

    async def _send(self, data: bytes, lent: Sequence[Lent]) -> None:
        sent = 0
        if lent:
            descriptors = array("i", [each.descriptor for each in lent])
            sent = await self._stream.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        with memoryview(data) as view:
            while sent < len(data):
                sent += await self._stream.send(view[sent:])

    async def _watch(self) -> None:
        """Give it up when it has left several questions in a row without an answer."""
        unanswered = 0
        await self.ready.wait()  # nothing else is said before
        while unanswered * _ASKED_SECONDS < SILENCE_SECONDS:
            self._has_spoken = False
            self.send(Ping())
            await trio.sleep(_ASKED_SECONDS)
            unanswered = 0 if self._has_spoken else unanswered + 1
        self.lose(f"it has said nothing for {SILENCE_SECONDS:g} seconds")

    # -- for its commands --

    def enter(self, command: Remote) -> int:
        """Have a command hear what is said about it, and return its id."""
        self._last_id += 1
        self._commands[self._last_id] = command
        return self._last_id

    def leave(self, id: int) -> None:
        """Say nothing more to a command."""
        self._commands.pop(id, None)

    def send(self, message: Struct, lent: Sequence[Lent] = ()) -> None:
        """Send a message, with descriptors that go along. One that is lost hears nothing."""
        if self.why is not None:
            return
        data = frames.encode(message)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            self.lose("it does not read what is sent to it")
            return
        self._to_write.append((data, lent))
        self._news.unpark()

    @property
    def has_room(self) -> bool:
        """True while input may be sent: more of it would only wait here."""
        return self._waiting_bytes < _FULL_BYTES

    async def wait_room(self) -> None:
        """Wait until something was written, or the runner is lost."""
        if self.why is None:
            await self._room.park()
        else:
            await trio.lowlevel.checkpoint()

    def ask(self, id: int, kind: type[A], ask: Callable[[int], Struct]) -> Coroutine[Any, Any, A | None]:
        """Send a question about a command at once, and return the wait for its answer.

        That is None when the runner is lost, and when nothing of the command lives: then no answer need come.

        Raises `BusyError` where too many have none yet. Cancelling stops waiting.
        """
        if len(self._questions) >= _MOST_QUESTIONS:
            raise BusyError(f"the runner {self.name} has not answered {_MOST_QUESTIONS} questions yet")
        self._last_question += 1
        question: _Question[A] = _Question(id, kind)
        if self.why is None:
            self._questions[self._last_question] = question
            self.send(ask(self._last_question))
        else:
            question.settle(None)
        return question.wait()

    def end_questions(self, id: int) -> None:
        """Wait for no answer about a command any more. Those that come are passed over."""
        for number, question in list(self._questions.items()):
            if question.id == id:
                del self._questions[number]
                question.settle(None)


class _Question(Generic[A]):
    """A question on its way. The answer to one that nobody waits for any more is taken all the same."""

    def __init__(self, id: int, kind: type[A]) -> None:
        self.id = id
        self.kind = kind
        self._answer: A | None = None
        self._settled = trio.Event()

    def settle(self, answer: A | None) -> None:
        self._answer = answer
        self._settled.set()

    async def wait(self) -> A | None:
        await self._settled.wait()
        return self._answer
