"""The runners of one connection: each is launched by the first start that names it, and ends with the connection.

    _keep, one for each     owns the launched program, by an attempt as any command's
    ├─ Link.run             speaks with it
    └─ _listen              keeps the last of what it says to people

A runner without a command is let go after a while. While its connection ends, it lasts as long as its commands do. The
channel is a socket that the program has as its stdin and stdout, and that no other program can open.
"""

from __future__ import annotations

import logging
import math
import shlex
import socket
from collections.abc import Sequence

import trio
from msgspec.structs import replace

from execsrv._lent import Lent
from execsrv._nursery import contain, owned
from execsrv._processes import streams
from execsrv._processes.attempt import Attempt, Spawned
from execsrv._processes.command import Command, settle, spawn_error
from execsrv._processes.environment import inherited_environment
from execsrv._processes.supervisor import Supervisor
from execsrv._processes.withheld import withheld_by
from execsrv._runner.link import Link
from execsrv._threads import SharedThreads
from execsrv._wire.quoting import quoted
from execsrv.errors import (
    InvalidParamsError,
    LimitExceededError,
    NotAllowedError,
    NotReadyError,
    RequestError,
    SpawnError,
)
from execsrv.limits import ServerConfig

logger = logging.getLogger(__name__)

MOST_RUNNERS = 16
"""So many one connection may have at once, with those that are lost and still there."""

READY_SECONDS = 15.0
"""A runner that has not answered by then is given up."""

IDLE_SECONDS = 60.0
"""A runner that nobody needs lasts so much longer."""

_LEAVE_SECONDS = 5.0
"""A runner that hears of its end has so long to end what it has started, before it is killed here."""

_LAST_WORDS_BYTES, _LAST_WORDS_SECONDS = 2048, 1.0


class Launched:
    """One runner, from its launch on."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words
        self.name = quoted(shlex.join(words))
        self.users = 0
        self.life = trio.CancelScope()
        self.settled = trio.Event()
        """Set when it is known whether it can be spoken with."""
        self.link: Link | None = None
        self.error: RequestError | None = None
        self.last_words = b""
        self.silent = trio.Event()
        """Set when it says nothing to people any more."""

    def __repr__(self) -> str:
        return f"<Launched {self.name} users={self.users} {self.link!r}>"

    @property
    def is_lost(self) -> bool:
        """True where it can start nothing any more."""
        is_gone = self.link is not None and self.link.why is not None
        return is_gone or self.error is not None or self.life.cancel_called

    async def ready(self) -> Link:
        """Wait until it can be spoken with. Raises `RequestError` where it cannot, or cannot any more."""
        await self.settled.wait()
        if self.error is not None:
            raise self.error
        assert self.link is not None
        if self.link.why is not None:  # nobody would tell a command that enters now
            raise self.cannot(self.link.why)
        return self.link

    def cannot(self, why: str) -> SpawnError:
        """Return the error of a start that it has failed."""
        return SpawnError(
            f"cannot start over the runner {self.name}: {self.with_last_word(why)}", stage="runner", errno=0
        )

    def with_last_word(self, why: str) -> str:
        """Return why it is lost, and what it has said last to people."""
        lines = self.last_words.decode(errors="replace").strip().splitlines()
        return f"{why}: {quoted(lines[-1])}" if lines else why


class Runners:
    """Those of one connection. Their tasks are its own."""

    def __init__(self, supervisor: Supervisor, config: ServerConfig, threads: SharedThreads) -> None:
        self._supervisor = supervisor
        self._config = config
        self._threads = threads
        self._by_words: dict[tuple[str, ...], Launched] = {}
        self._kept: set[Launched] = set()
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Runners {list(self._kept)}>"

    def open(self, nursery: trio.Nursery) -> None:
        """Launch runners in this nursery from now on."""
        self._nursery = nursery

    def close(self) -> None:
        """Launch none any more, and let each go that nobody needs, or as soon as nobody does."""
        self._nursery = None
        for launched in self._by_words.values():
            if not launched.users:
                launched.life.cancel()

    def acquire(self, words: Sequence[str]) -> Launched:
        """Return the runner that these words launch, for one command; `release` must follow.

        Raises `LimitExceededError`, and `NotReadyError` at the end of the connection.
        """
        launched = self._by_words.get(tuple(words))
        if launched is None or launched.is_lost:
            if self._nursery is None:
                raise NotReadyError("the connection is ending")
            if len(self._kept) >= MOST_RUNNERS:
                message = f"{MOST_RUNNERS} runners of this connection are there already"
                raise LimitExceededError(message, limit="runners", value=MOST_RUNNERS)
            launched = self._by_words[tuple(words)] = Launched(tuple(words))
            self._kept.add(launched)
            self._nursery.start_soon(contain, f"runner {launched.name}", self._keep, launched)
        launched.users += 1
        launched.life.deadline = math.inf
        return launched

    def release(self, launched: Launched) -> None:
        """Need a runner no more for one command."""
        launched.users -= 1
        if not launched.users:
            launched.life.deadline = trio.current_time() + (IDLE_SECONDS if self._nursery is not None else 0)

    async def _keep(self, launched: Launched) -> None:
        """Launch a runner, keep it as long as it is needed, and count it as long as it is there."""
        attempt = self._supervisor.new_attempt()
        spawned: Spawned | None = None
        try:
            ours, theirs = _socketpair()
            with ours, theirs, launched.life:
                launched.life.shield = True
                spawned = await self._start(attempt, launched, Lent(theirs.detach()))
                await self._speak(launched, Link(trio.socket.from_stdlib_socket(ours), launched.name), spawned)
        except RequestError as error:
            launched.error = error
        finally:
            self._settle(launched)
            if self._by_words.get(launched.words) is launched:
                del self._by_words[launched.words]
            if spawned is not None:
                with trio.move_on_after(_LEAVE_SECONDS, shield=True):
                    await spawned.tree.leader.wait_exited()
            await owned(attempt.end)
            self._kept.discard(launched)

    async def _start(self, attempt: Attempt, launched: Launched, lent: Lent) -> Spawned:
        """Start the program. When this returns, nobody else has its end of the channel."""

        def settled() -> Command:
            env = inherited_environment(withheld_by(self._config))
            return replace(settle(launched.words, None, env), stdin=lent, stdout=lent)

        return await attempt.start(settled, self._threads, size=None, pipe_stdin=False)

    async def _speak(self, launched: Launched, link: Link, spawned: Spawned) -> None:
        """Speak with the program until it is lost."""
        async with trio.open_nursery() as tasks:
            tasks.start_soon(owned, link.run)
            tasks.start_soon(owned, self._listen, launched, spawned.outputs["stderr"])
            with trio.move_on_after(READY_SECONDS):
                await link.ready.wait()
            if not link.ready.is_set():
                link.lose(f"it has not answered within {READY_SECONDS:g} seconds")
            if link.why is None:
                launched.link = link
                self._settle(launched)
                await link.gone.wait()
            lost, why = launched.users, link.why or "it was given up"
            with trio.move_on_after(_LAST_WORDS_SECONDS):
                await launched.silent.wait()
            if launched.link is None:
                launched.error = launched.cannot(why)
            elif lost:
                logger.warning(
                    "the runner %s is lost, with %d commands: %s", launched.name, lost, launched.with_last_word(why)
                )
            tasks.cancel_scope.cancel()

    @staticmethod
    def _settle(launched: Launched) -> None:
        if launched.link is None and launched.error is None:
            launched.error = launched.cannot("it was given up")
        launched.settled.set()

    async def _listen(self, launched: Launched, stderr: int) -> None:
        """Keep the last of what a runner says, or the program that was to bring it about."""
        while True:
            await trio.lowlevel.wait_readable(stderr)
            said = streams.read(stderr, is_terminal=False)
            if said == b"":
                launched.silent.set()
                return
            launched.last_words = (launched.last_words + (said or b""))[-_LAST_WORDS_BYTES:]


def _socketpair() -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair()
    except OSError as error:
        raise spawn_error("resources", error.errno or 0, "start a runner") from error


def words_of(runner: str | Sequence[str], config: ServerConfig) -> Sequence[str]:
    """Return the command of a runner that is named, or whose launch is given.

    What is to be run in its place is `execsrv runner`, unless the words end with a `runner` of their own.

    Raises `InvalidParamsError` for a name that is none, and `NotAllowedError` where clients may launch nothing.
    """
    if isinstance(runner, str):
        for line in config.runners:
            name, _, command = line.partition("=")
            if name == runner:
                return _whole(shlex.split(command))
        raise InvalidParamsError(f"runner: this server has no runner {quoted(runner)}", field="runner")
    if not config.allow_direct_exec:
        message = "this server launches no runner but its own, by their names: allow_direct_exec is off"
        raise NotAllowedError(message, setting="allow_direct_exec")
    return _whole(list(runner))


def _whole(words: list[str]) -> list[str]:
    return words if words[-1:] == ["runner"] else [*words, "execsrv", "runner"]
