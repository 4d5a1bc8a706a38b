"""The end of a session that is made to end, politely or by force. Its reason is decided here.

    reason         decided by the first of these while the leader is running, else by the leader's own end
    timeout        `Ending.open`: the deadline of the start is over
    idle           `Ending.open`: the idle clock has run out
    terminated     `process/terminate`, `command/exec/terminate`
    disconnected   `Conversation._end_sessions`, `Ending.hang_up`: the connection ends; or its runner is gone
    shutdown       `Conversation._end_sessions`, `Connection._stop`: the server ends
    oom, cpu, file-size    nobody asked: the leader died of one of its limits
    signaled       nobody asked: the leader died of a signal
    exited         nobody asked: the leader ended by itself

Every end asks first: SIGTERM to the whole tree and a grace, which is over as soon as nobody is left; what is left then
is killed. A grace of 0 kills at once. Killing is a task beside the session's life, which goes on through *exited* and
*closed*, so that what was printed is delivered.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import trio

from execsrv._nursery import owned
from execsrv._processes.leader import ExitStatus
from execsrv._server.feed import Feed
from execsrv.protocol import Member, Reason

if TYPE_CHECKING:
    from execsrv._processes.contract import AnyLimits, AnyTree, Received

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 1.0
"""The wait of a killed session for the end of its streams, should something else still hold them."""

QUIET_SECONDS = 0.05
"""The silence after which what others than the leader still hold of the streams is taken for nothing to wait for."""

_ASK_AGAIN_SECONDS = 0.1


class IdleClock:
    """Runs out when a command has neither printed nor been given anything for `seconds`.

    It stands still while output waits for its reader: that is not the command's idleness.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._held = 0  # how many streams wait for the reader
        self.scope = trio.CancelScope(deadline=trio.current_time() + seconds)

    def restart(self) -> None:
        """Begin anew."""
        self.scope.deadline = math.inf if self._held else trio.current_time() + self._seconds

    def hold(self) -> None:
        """Stand still until `release`, once for each."""
        self._held += 1
        self.restart()

    def release(self) -> None:
        """Run again, when nobody else holds it."""
        self._held -= 1
        self.restart()


class Ending:
    """The way in which one session is made to end, and the reason. It owns neither the tree nor the tasks."""

    def __init__(
        self,
        tree: AnyTree,
        feed: Feed,
        timeout: float,
        idle_timeout: float,
        grace: float,
        limits: AnyLimits | None = None,
    ) -> None:
        """Start the clocks, in seconds and infinite where none is wanted. `open` must follow.

        `grace` is what a session has that was asked to end by a clock, or because its leader has ended. `limits` are
        its own.
        """
        self.was_sent_kill = False
        """True when its peer has sent it SIGKILL, so that it says nothing of limits to have died of that."""
        self.killed = False
        """True when it is to end by force. From then on nothing of the session waits for a reader."""
        self.is_over = False
        """True when nothing is left to be ended. From then on nobody is asked or killed any more."""
        self.ended: list[Member] = []
        """Those that lived on after their leader, where that was reason enough to end them."""
        self.idle = IdleClock(idle_timeout) if idle_timeout < math.inf else None
        self._tree = tree
        self._feed = feed
        self._own_grace = grace
        self._limits = limits
        self._cause: Reason | None = None
        self._nursery: trio.Nursery | None = None
        self._is_asking = False
        self._asks_again = False  # as soon as that is done: it was asked for meanwhile
        self._clocks: list[tuple[trio.CancelScope, Reason, float]] = []
        self._grace: trio.CancelScope | None = None
        self._draining: trio.CancelScope | None = None
        self._outlived: trio.CancelScope | None = None  # the wait for processes that live on after their leader
        if timeout < math.inf:
            self._clocks.append((trio.CancelScope(deadline=trio.current_time() + timeout), "timeout", grace))
        if self.idle is not None:
            self._clocks.append((self.idle.scope, "idle", grace))

    def __repr__(self) -> str:
        state = "over" if self.is_over else "killed" if self.killed else "asked" if self._grace else "not asked"
        return f"<Ending {state} cause={self._cause}>"

    # -- for the session's life --

    def open(self, nursery: trio.Nursery) -> None:
        """Watch the clocks in the nursery of the session, and kill there what is to be killed already."""
        self._nursery = nursery
        for clock in self._clocks:
            nursery.start_soon(owned, self._end_at, *clock)
        if self.killed:
            nursery.start_soon(owned, self._tree.kill)

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Have something done as long as the session lives."""
        assert self._nursery is not None
        self._nursery.start_soon(owned, task)

    def reason(self, status: ExitStatus) -> Reason:
        """Return the reason of the leader's end, now that it has ended with this status."""
        if self._cause is not None:
            return self._cause
        if status.is_lost:
            return "disconnected"
        reached = None
        if self._limits is not None:
            reached = self._limits.reached(status, was_killed=self.was_sent_kill)
        return reached or ("signaled" if status.signal else "exited")

    def bound_drain(self, draining: trio.CancelScope) -> None:
        """Let the wait for the end of the streams, which is in this scope, take `DRAIN_SECONDS` after a kill."""
        self._draining = draining
        if self.killed:
            draining.deadline = trio.current_time() + DRAIN_SECONDS

    @property
    def asked(self) -> bool:
        """True when it was asked to end, or is ended by force."""
        return self.killed or self._grace is not None

    def end_when_quiet(self) -> None:
        """End what lives on after the leader, as soon as it prints no more, in `DRAIN_SECONDS` at the latest."""
        assert self._nursery is not None
        self._nursery.start_soon(owned, self._wait_quiet)

    async def _wait_quiet(self) -> None:
        with trio.move_on_after(DRAIN_SECONDS):
            quiet = False
            while not quiet:
                with trio.move_on_after(QUIET_SECONDS) as silence:
                    await self._feed.wait_appended()
                quiet = silence.cancelled_caught
        await self.end_rest()

    async def end_rest(self) -> None:
        """End what lives on after the leader, and note who that is."""
        if self.is_over or self.ended:
            return
        self.ended = await self._tree.remaining()
        if self.ended and not self.asked:
            self.terminate("terminated", self._own_grace)

    async def wait_alone(self) -> None:
        """Wait until nothing of the session lives on after its leader, or until that is to be killed."""
        if not self.killed:
            with trio.CancelScope() as self._outlived:
                await self._tree.wait_alone()

    async def wait_empty(self) -> None:
        """Wait until nothing of the session lives, its leader neither, and leave all as it is."""
        while not self.is_over and await self._tree.wait_gone():
            pass

    # -- for those who want its end --

    def terminate(self, reason: Reason, grace: float) -> bool:
        """End everything of it, whether or not its leader has ended. Return whether the leader was still running.

        With a grace, in seconds, it is asked first, and killed when that time is over; asking again may only make it
        shorter. Without, it is killed at once.
        """
        if self.is_over:
            return False
        running = not self._tree.leader.has_ended
        if running and self._cause is None:
            self._cause = reason
        if grace > 0:
            if self._grace is None:
                self._grace = self._kill_after(grace, reason)
            self._grace.deadline = min(self._grace.deadline, trio.current_time() + grace)
            if self._is_asking:
                self._asks_again = True
            elif self._nursery is None:
                self._ask()
            elif not isinstance(rest := self._begin_asking(), int):
                self._is_asking = True
                self._nursery.start_soon(owned, self._keep_asking, rest)
        else:
            self._kill()
        return running

    def hang_up(self, grace: float) -> float:
        """Ask it to end, now that its tasks are cancelled. Return the time at which it is to be killed.

        A grace that runs already goes on, but is not longer than this one.
        """
        now = trio.current_time()
        if self.killed or grace <= 0:
            return now
        if self._grace is not None:
            return min(self._grace.deadline, now + grace)
        self._grace = trio.CancelScope()
        self._cause = self._cause or "disconnected"
        if not self._ask():  # and no task that could do so later
            self._tree.ask_group_to_end()
        return now + grace

    def _kill(self) -> None:
        if self.killed:
            return
        self.killed = True
        if self._outlived is not None:
            self._outlived.cancel()
        self._feed.wake()
        if self._nursery is not None:
            self._nursery.start_soon(owned, self._tree.kill)
        if self._draining is not None:
            self.bound_drain(self._draining)

    def _ask(self) -> bool:
        """Ask it to end at once. Return False where there is no descriptor to find it with."""
        try:
            self._tree.ask_to_end_now()
        except OSError as error:
            self._cannot_ask(error)
            return False
        return True

    def _begin_asking(self) -> Received | None:
        """Ask it to end, as far as one turn goes. Return None where there is no descriptor to find it with."""
        try:
            return self._tree.ask_to_end()
        except OSError as error:
            self._cannot_ask(error)
            return None

    def _cannot_ask(self, error: OSError) -> None:
        logger.warning("cannot ask session %d to end yet: %s", self._tree.pid, error)

    async def _keep_asking(self, rest: Received | None) -> None:
        """Ask all of it that one turn was not enough for, as soon as there are descriptors. Others go on meanwhile.

        However often it is to be asked, there is one task that does so: each look takes turns from all others.
        """
        while not isinstance(rest, int):
            self._asks_again = rest is None
            if rest is None:
                await trio.sleep(_ASK_AGAIN_SECONDS)
            elif await self._asked(rest) is None:
                self._asks_again = True
            rest = self._begin_asking() if self._asks_again and not self.killed else 0
        self._is_asking = False

    async def _asked(self, rest: Coroutine[Any, Any, int]) -> int | None:
        try:
            return await rest
        except OSError as error:
            self._cannot_ask(error)
            return None

    def _kill_after(self, seconds: float, reason: Reason) -> trio.CancelScope:
        """Kill it when that time is over. Return the clock, whose deadline may be moved."""
        clock = trio.CancelScope(deadline=trio.current_time() + seconds), reason, 0.0
        if self._nursery is None:
            self._clocks.append(clock)  # `open` starts it
        else:
            self._nursery.start_soon(owned, self._end_at, *clock)
        return clock[0]

    async def _end_at(self, clock: trio.CancelScope, reason: Reason, grace: float) -> None:
        with clock:
            await trio.sleep_forever()
        self.terminate(reason, grace)
