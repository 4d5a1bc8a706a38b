"""Version 2 of a runner: many commands over one channel, each a task of its own.

    serve_many                 reads frames, and does each at once: nothing in here waits for a command
    └─ RunnerCommand.run       one for each
       ├─ OutputStream.run     one for each stream that is framed
       ├─ Input.feed
       ├─ _tell_exit           the leader's end, behind all that it wrote
       └─ _tell_empty          the end of everything, and how that is known

When the channel ends, so does everything that was started over it.
"""

from __future__ import annotations

import errno
import logging
import os

import trio
from msgspec import Struct

from execsrv._nursery import open_helpers, owned
from execsrv._processes.command import spawn_error
from execsrv._processes.supervisor import Supervisor
from execsrv._runner.channel import Channel
from execsrv._runner.command import RunnerCommand, refusal
from execsrv._runner.incoming import Incoming
from execsrv._runner.outgoing import Outgoing
from execsrv._runner.version_2_messages import (
    STDIN_WINDOW_BYTES,
    CloseStdin,
    Credit,
    Data,
    Error,
    Forget,
    Hello,
    HelloBack,
    Look,
    Ping,
    Pong,
    Resize,
    Signal,
    SpawnRequest,
    Terminate,
)
from execsrv._threads import SharedThreads
from execsrv.errors import ProtocolError

logger = logging.getLogger(__name__)

MOST_COMMANDS = 1024
_MOST_QUESTIONS = 1024


async def serve_many(supervisor: Supervisor, channel: Channel, incoming: Incoming, outgoing: Outgoing) -> None:
    """Start what the server asks for, until it hangs up. Then nothing of it is left.

    Raises `ProtocolError` for a server that breaks the protocol.
    """
    outgoing.tell(HelloBack([1, 2], bool(channel.descriptors), os.getpid()))
    channel.close()  # the one that came with its `hello` has told what it had to
    async with open_helpers() as nursery:
        commands = _Commands(supervisor, channel, outgoing, nursery)
        while (message := await incoming.next()) is not None:
            commands.do(message)
            await outgoing.wait_room()


class _Commands:
    """The commands of one channel by their ids."""

    def __init__(self, supervisor: Supervisor, channel: Channel, outgoing: Outgoing, nursery: trio.Nursery) -> None:
        self._supervisor = supervisor
        self._threads = SharedThreads(supervisor.threads)
        self._channel = channel
        self._outgoing = outgoing
        self._nursery = nursery
        self._by_id: dict[int, RunnerCommand] = {}
        self._last_id = -1
        self._questions = 0

    def do(self, message: Struct) -> None:
        """Do what a message says. Raises `ProtocolError`."""
        match message:
            case SpawnRequest():
                self._start(message)
            case Ping():
                self._outgoing.tell(Pong())
            case Hello():
                raise ProtocolError("a second hello")
            case Data() | CloseStdin() | Resize() | Signal() | Terminate() | Look() | Credit() | Forget():
                if message.id > self._last_id:
                    raise ProtocolError(f"nothing was started under the id {message.id}")
                if (command := self._by_id.get(message.id)) is not None:  # else it is over, and did not know
                    self._do_for(command, message)

    def _start(self, request: SpawnRequest) -> None:
        if request.id <= self._last_id:
            raise ProtocolError(f"the id {request.id} is not above {self._last_id}, the last one")
        self._last_id = request.id
        passed = [name for name in ("stdin", "stdout", "stderr") if _is_passed(request, name)]
        lent = self._channel.take(len(passed))
        if lent is None:
            self._outgoing.tell(refusal(request.id, spawn_error("resources", errno.EMFILE, "start")))
            return
        if len(self._by_id) >= MOST_COMMANDS:
            self._outgoing.tell(Error(request.id, "busy", f"{MOST_COMMANDS} commands run already"))
            return
        command = RunnerCommand(request, dict(zip(passed, lent, strict=True)), self._outgoing)
        self._by_id[request.id] = command
        self._nursery.start_soon(owned, self._run, request.id, command)

    async def _run(self, id: int, command: RunnerCommand) -> None:
        try:
            await command.run(self._supervisor, self._threads)
        except Exception as error:  # a fault of ours: it was killed, and the others go on
            logger.exception("a command has failed")
            self._outgoing.tell(Error(id, "failed", type(error).__name__))
        finally:
            del self._by_id[id]

    def _do_for(self, command: RunnerCommand, message: Struct) -> None:
        if isinstance(message, Terminate):
            command.terminate(message.grace_ms)
        elif isinstance(message, Forget):
            command.forget()
        elif not command.is_ready:
            raise ProtocolError("a message for a command that is still being started")
        else:
            self._do_for_running(command, message)

    def _do_for_running(self, command: RunnerCommand, message: Struct) -> None:
        match message:
            case Data():
                if message.stream != "stdin":
                    raise ProtocolError(f"input on {message.stream}")
                if command.queued_bytes + len(message.data) > STDIN_WINDOW_BYTES:
                    raise ProtocolError(f"more input than its credit, of {STDIN_WINDOW_BYTES} bytes")
                command.write(message.data)
            case CloseStdin():
                command.close_stdin()
            case Resize():
                command.resize(message)
            case Credit():
                command.give(message)
            case Signal():
                if (rest := command.signal(message)) is not None:
                    self._nursery.start_soon(owned, lambda: rest)
            case Look():
                if self._questions >= _MOST_QUESTIONS:
                    raise ProtocolError(f"more than {_MOST_QUESTIONS} questions wait for an answer")
                self._questions += 1
                self._nursery.start_soon(owned, self._look, command, message)

    async def _look(self, command: RunnerCommand, message: Look) -> None:
        try:
            self._outgoing.tell(await command.look(message.request))
        finally:
            self._questions -= 1


def _is_passed(request: SpawnRequest, name: str) -> bool:
    return request.stdin_passed if name == "stdin" else getattr(request, name) == "passed"
