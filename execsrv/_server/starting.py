"""A session between the request to start it and the first instant of its command.

A start may take as long as a file system likes. Whatever is asked of the session meanwhile waits here, and is done in
order as soon as it is known what became of the start, before anything else happens to it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import trio
from msgspec import UNSET, UnsetType

from execsrv._doors.journal import Start
from execsrv._lent import Lent
from execsrv._nursery import happened
from execsrv._server.start_options import StartOptions
from execsrv.errors import BusyError, SpawnError
from execsrv.protocol import Reason

if TYPE_CHECKING:
    from execsrv._processes.attempt import PipeName
    from execsrv._runner.version_2_messages import SpawnRequest
    from execsrv._server.session import Session
    from execsrv.protocol.login_shells import Snapshotted

R = TypeVar("R", covariant=True)

GIVE_UP_SECONDS = 1.0
"""So long a start may still take when the session is to end already."""

_FIRST_MOMENT_SECONDS = 1.0
"""So long after its beginning a start is waited for by what is too much to wait for longer."""

_MOST_WAITING = 256
"""So many requests of its connection may wait for one start, that for the start among them."""


class Starting:
    """A session that is being started. `outcome` is the session or the error, None before."""

    def __init__(
        self,
        id: str,
        program: str,
        options: StartOptions,
        most_bytes: int,
        *,
        is_terminal: bool,
        by_runner: bool = False,
    ) -> None:
        """Give it up when its time is over. Input of at most so many bytes may wait for it."""
        self.id = id
        self.program = program
        self.is_terminal = is_terminal
        self.begun_at = trio.current_time()
        self.deadline = self.begun_at + options.timeout
        self._timeout = options.timeout
        self._by_runner = by_runner
        self._scope: trio.CancelScope | None = None
        self.outcome: Session | Exception | None = None
        self.over = trio.Event()
        self.argv = options.argv
        self.cwd = options.cwd
        self.key = options.key
        self.note: Start | None = None
        """What is said of it in the journal."""
        self.shell_snapshot: Snapshotted | UnsetType = UNSET
        self.passed: dict[PipeName, Lent] = {}
        """The pipes that its client gets, once it has begun."""
        self._then: list[Callable[[], None]] = []
        self._most_bytes = most_bytes
        self._bytes = 0
        self._end: tuple[Reason, float] | None = None

    def __repr__(self) -> str:
        return f"<Starting {self.id} waiting={len(self._then)}>"

    def then(self, do: Callable[[], None]) -> None:
        """Do something as soon as it has an outcome. It must not raise."""
        if self.outcome is None:
            self._then.append(do)
        else:
            do()

    def check_room(self, size: int = 0) -> None:
        """Raise `BusyError` where too much waits already for one more request, with so much input."""
        if len(self._then) >= _MOST_WAITING or (self._bytes and self._bytes + size > self._most_bytes):
            raise BusyError(f"process {self.id} is still being started, and too much waits for it already")

    async def lets_wait(self, size: int, *, ends: bool) -> bool:
        """Return whether a request has to wait for the outcome, with `then`. One that `ends` it makes that come soon.

        It brings `size` bytes of input. Raises `BusyError` where too much waits already. The first moment of a start is
        waited for then: most are over in it. One that takes longer holds up nothing else.
        """
        if ends:
            self.hurry()
        try:
            self.check_room(size)
        except BusyError:
            with trio.move_on_at(self.begun_at + _FIRST_MOMENT_SECONDS):
                await happened(self.over)
            if self.outcome is None:
                raise
        self._bytes += size
        return self.outcome is None

    def finish(self, outcome: Session | Exception) -> None:
        """Set the outcome, unless there is one, and do all that has waited for it."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        then, self._then = self._then, []
        for do in then:
            do()
        self.over.set()
        if self._end is not None and not isinstance(outcome, Exception):
            outcome.terminate(*self._end)

    def patience(self) -> trio.CancelScope:
        """Return the scope of a wait for it, which is cancelled when it is to be given up."""
        self._scope = trio.CancelScope(deadline=self.deadline)
        return self._scope

    def hurry(self) -> None:
        """Give it up soon, if it does not end by itself."""
        self.deadline = min(self.deadline, trio.current_time() + GIVE_UP_SECONDS)
        if self._scope is not None:
            self._scope.deadline = self.deadline

    def given_up(self) -> SpawnError:
        """Return the error of a start that was given up: its time is over, or it was to be ended."""
        if self.deadline >= self.begun_at + self._timeout:
            why = f"its time limit ({self._timeout:g} s) was over before it had begun"
        elif self._by_runner:
            why = "given up while its runner did not answer"
        else:
            login_files = "" if self.shell_snapshot is UNSET else ", or its login files,"
            why = f"given up while the file system of its directory or of its program{login_files} did not answer"
        return SpawnError(f"cannot start: {why}", stage="resources", errno=errno.ETIMEDOUT)

    def terminate(self, reason: Reason, grace: float) -> None:
        """Have the session end as soon as it has begun, and give its start up soon."""
        self._end = reason, grace
        self.hurry()

    def session(self) -> Session:
        """Return the session that has been started. Raises the error of the start."""
        assert self.outcome is not None
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Over(NamedTuple):
    """A start over a runner: the command that launches the runner, and what decides in a thread what to ask of it."""

    words: Sequence[str]
    settle: Callable[[Start | None], SpawnRequest]


class Deferred(NamedTuple, Generic[R]):
    """An answer that is made by `run` when a start has its outcome, in the order of the requests."""

    starting: Starting
    run: Callable[[], Any]


def answer_of(starting: Starting, make: Callable[[Session], R]) -> R | Deferred[R]:
    """Return the answer that is made of a session, now or as soon as it has been started. Raises the start's error."""
    if starting.outcome is None:
        return Deferred(starting, lambda: make(starting.session()))
    return make(starting.session())
