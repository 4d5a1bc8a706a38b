"""The sessions of one connection: their ids, their start, and how long they stay readable after their end.

nursery of the connection
├─ _forget_ended         lets go of ended sessions when their time is over
└─ _run, one for each    waits for the start of the command, and runs the session; then it counts as ended

Most commands have been started before that task has its first turn.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import trio

from execsrv._budget.allowance import Allowance
from execsrv._doors.journal import Page, Start
from execsrv._nursery import contain, owned
from execsrv._processes.attempt import Spawned
from execsrv._processes.command import Command
from execsrv._processes.supervisor import Supervisor
from execsrv._processes.terminal import DEFAULT_MODES
from execsrv._server.feed import Dialect
from execsrv._server.roster import Roster
from execsrv._server.session import Session
from execsrv._server.start_options import StartOptions, cost
from execsrv._server.starting import Over, Starting
from execsrv._threads import SharedThreads
from execsrv._wire.quoting import quoted
from execsrv.errors import NotReadyError
from execsrv.limits import ServerConfig
from execsrv.protocol import Size

if TYPE_CHECKING:
    from execsrv._login_shells.snapshots import Snapshots
    from execsrv._processes.attempt import Attempt
    from execsrv._processes.contract import AnySpawned
    from execsrv._server.over_runner import RunnerAttempt
    from execsrv._server.runners import Runners

    AnyAttempt = Attempt | RunnerAttempt

logger = logging.getLogger(__name__)


class Sessions(Roster):
    """All that run and those that have ended and can still be asked for, oldest first. Their tasks are the owner's."""

    def __init__(
        self, supervisor: Supervisor, config: ServerConfig, allowance: Allowance, visited: Container[str]
    ) -> None:
        super().__init__(supervisor, visited)
        self._allowance = allowance
        self._config = config
        self._nursery: trio.Nursery | None = None
        self._threads = SharedThreads(supervisor.threads)
        self._attempts: set[AnyAttempt] = set()
        self._runners: Runners | None = None
        self._snapshots: Snapshots | None = None
        self._draining = False
        self._is_cancelled = False
        self.page: Page | None = None  # where starts and ends are noted

    # -- their start --

    def open(self, nursery: trio.Nursery) -> None:
        """Run sessions in this nursery from now on. When it is cancelled, call `close`."""
        self._nursery = nursery
        nursery.start_soon(owned, self._forget_ended)

    def close(self) -> None:
        """Start nothing from now on. Those that run are cancelled, and hear of it here: they wait behind shields."""
        self._nursery = None
        self._is_cancelled = True
        with self.supervisor.one_look(), ExitStack() as all_of_them:
            for session in self:
                all_of_them.callback(session.heed_cancel)
        if self._runners is not None:
            self._runners.close()
        if self._snapshots is not None:
            self._snapshots.close()

    def start(
        self,
        id: str | None,
        settle: Callable[[Start | None], Command] | Over,
        dialect: Dialect,
        options: StartOptions,
        *,
        argv: Sequence[str] = (),
        pipe_stdin: bool = False,
        size: Size | None = None,
        modes: Mapping[str, bool | int] = DEFAULT_MODES,
        scope: str | None = None,
    ) -> Starting:
        """Start a command under that id, or under the next `session-N`. It ends with the connection.

        `settle` decides in a thread what is to run, here or over a runner, and is given what the journal has of it;
        until then `argv` names it. `dialect` says to the peer what happens to the session. A `timeout` holds for the
        start too. A login shell with a `scope`, on pipes, is restored from a snapshot where that can be; with an empty
        one it is told that it was not.

        Raises `ProcessExistsError`, `LimitExceededError` when as many run as may, and `NotReadyError` at the end of the
        connection. What else can go wrong is the outcome.
        """
        nursery = self._nursery
        if nursery is None:
            raise NotReadyError("the connection is ending")
        if self._draining:
            raise NotReadyError("the server is shutting down: it starts nothing any more")
        program = os.path.basename(argv[0]) if argv else ""
        over = self._new_attempt_over(settle.words) if isinstance(settle, Over) else None  # to load it may fail
        id = self._claim(id, self._config.max_sessions_per_connection)
        most_bytes = self._config.queued_stdin_bytes
        starting = Starting(id, program, options, most_bytes, is_terminal=size is not None, by_runner=over is not None)
        self._allowance.take_session(cost(is_terminal=starting.is_terminal))

        if self.page is not None:
            now, is_terminal = starting.begun_at, starting.is_terminal
            starting.note = self.page.begin(starting.id, program, argv, now, is_terminal=is_terminal)
        if scope is not None:
            starting.shell_snapshot = "unused"
        self._starting[starting.id] = starting
        attempt: AnyAttempt
        begin: Callable[[], Spawned | None] | None = None
        wait: Callable[[], Awaitable[AnySpawned]]
        if isinstance(settle, Over):
            assert over is not None
            attempt = over
            wait = partial(over.start, partial(settle.settle, starting.note), self._threads)
        else:
            attempt = self.supervisor.new_attempt()
            settled = partial(settle, starting.note)
            if scope:
                wait = partial(self._restore, starting, attempt, scope, settled, pipe_stdin)
            else:
                begin = partial(attempt.begin, settled, self._threads, size=size, pipe_stdin=pipe_stdin, modes=modes)
                wait = partial(attempt.wait, self._threads)
        self._attempts.add(attempt)
        nursery.start_soon(self._run, starting, attempt, wait, dialect, options)
        try:  # now it has an owner
            if begin is not None and (spawned := begin()) is not None:
                self._enter(spawned, attempt, starting, dialect, options)
        except Exception as error:
            self._fail(starting, error)
        return starting

    async def _restore(
        self, starting: Starting, attempt: Attempt, scope: str, settle: Callable[[], Command], pipe_stdin: bool
    ) -> Spawned:
        """Start a login shell, restored from a snapshot where that can be."""
        from execsrv._login_shells.snapshots import Snapshots

        if self._snapshots is None:
            memory, files = self._allowance.for_sessions, self._allowance.handles
            self._snapshots = Snapshots(self.supervisor.new_attempt, self._threads, memory, files)
        command = await self._snapshots.settle(scope, settle, starting.deadline)
        if command.named is not None:
            starting.shell_snapshot = "restored"
        return await attempt.start(lambda: command, self._threads, size=None, pipe_stdin=pipe_stdin)

    def _new_attempt_over(self, words: Sequence[str]) -> RunnerAttempt:
        """Return an attempt to start a command over the runner which these words launch."""
        from execsrv._server.over_runner import RunnerAttempt
        from execsrv._server.runners import Runners

        runners = self._runners = self._runners or Runners(self.supervisor, self._config, self._threads)
        if self._nursery is not None:
            runners.open(self._nursery)
        return RunnerAttempt(runners, words, self._allowance.for_sessions)

    @trio.lowlevel.enable_ki_protection
    async def _run(
        self,
        starting: Starting,
        attempt: AnyAttempt,
        wait: Callable[[], Awaitable[AnySpawned]],
        dialect: Dialect,
        options: StartOptions,
    ) -> None:
        """Wait until a command has been started, where that is not so yet, and keep its session until that is over.

        An interrupt of the program waits for another moment: from its first instant on, the command has an owner.
        """
        first, note, session = cost(is_terminal=starting.is_terminal), starting.note, None
        try:
            if starting.outcome is None:
                await self._wait(wait, attempt, starting, dialect, options)
            if not isinstance(starting.outcome, Exception):
                session = starting.outcome
            del starting, wait, dialect, options  # they hold the request
            if session is not None:
                if self._outbox is not None and self._outbox.has_answers:
                    # Those who hear of the start come first: what there is to hear of the command takes longer.
                    await trio.lowlevel.cancel_shielded_checkpoint()
                try:
                    await self._keep(session)
                finally:
                    if note is not None:
                        note.page.ended(note, session.log, attempt.usage, trio.current_time())
        finally:
            if session is None:  # nothing came of it
                self._allowance.for_sessions.give(first)
            self._allowance.sessions.give()
            if self._over:
                self._over.unpark_all()
            await owned(attempt.end)
            self._attempts.discard(attempt)

    async def end_rest(self) -> None:
        """End what an error has kept its task from ending. Cannot be cancelled."""
        while self._attempts:
            await owned(self._attempts.pop().end)

    async def _wait(
        self,
        wait: Callable[[], Awaitable[AnySpawned]],
        attempt: AnyAttempt,
        starting: Starting,
        dialect: Dialect,
        options: StartOptions,
    ) -> None:
        """Wait for the outcome of a start, and let those who wait too know it."""
        try:
            spawned: AnySpawned | None = None
            with starting.patience():
                spawned = await owned(wait)
            if spawned is None:
                raise starting.given_up()
            self._enter(spawned, attempt, starting, dialect, options)
        except Exception as error:
            self._fail(starting, error)
        finally:
            self._starting.pop(starting.id, None)
            starting.finish(NotReadyError("the connection is ending"))

    def _enter(
        self, spawned: AnySpawned, attempt: AnyAttempt, starting: Starting, dialect: Dialect, options: StartOptions
    ) -> None:
        """Make a session of what was spawned: that is the outcome of its start. Raises `SpawnError`."""
        passing = spawned if options.passes and isinstance(spawned, Spawned) else None
        ours = spawned if passing is None else passing.without_streams(keeps=options.passes == "kept")
        session = Session(starting.id, ours, options, self._config, dialect, self._outbox, self._allowance.for_sessions)
        attempt.pass_streams()
        session.shell_snapshot = starting.shell_snapshot
        if passing is not None and isinstance(ours, Spawned):
            starting.passed = passing.lent_streams(ours.onward)
        self._take_over(session)
        if self._is_alone:
            session.feed.let_run()
        if starting.note is not None:
            starting.note.page.started(starting.note, session.pid, session.log)
        starting.finish(session)

    def _fail(self, starting: Starting, error: Exception) -> None:
        """Have a start failed: its outcome is this error."""
        if starting.id in self._by_id:
            raise error
        if starting.note is not None:
            starting.note.page.failed(starting.note, error)
        self._starting.pop(starting.id, None)
        starting.finish(error)

    async def _keep(self, session: Session) -> None:
        """Run a session, and keep it for a while when it is over."""
        if self._is_cancelled:
            session.heed_cancel()
        if not await contain("session", session.run) or session.log.closed is None:
            logger.error("session %s has failed, and was killed; the others go on", quoted(session.id))
            session.abandon()
        self._ended[session.id] = session
        if len(self._ended) > self._config.retained_sessions:
            self._forget_oldest()

    def drain(self) -> None:
        """Refuse starts from now on: the server is to end, and what runs may go on for a while."""
        self._draining = True

    @trio.lowlevel.enable_ki_protection
    async def _forget_ended(self) -> None:
        """Let go of every session when it has been closed for `exited_retention`."""
        while True:
            while not self._ended:
                await self._over.park()
            closed_at = next(iter(self._ended.values())).closed_at
            assert closed_at is not None
            await trio.sleep_until(closed_at + self._config.exited_retention)
            if self._ended and next(iter(self._ended.values())).closed_at == closed_at:
                self._forget_oldest()
