"""The end of a session that somebody asked for: by a deadline, politely, or by force. Its reason is decided here.

    reason         decided by the first of these while the leader is running, else by the leader's own end
    timeout        `Ending.open`: the deadline of the start is over
    idle           `Ending.open`: the idle clock has run out
    terminated     `process/terminate`, `command/exec/terminate`
    disconnected   `Conversation._end_sessions`: the connection ends
    shutdown       `Conversation._end_sessions`, `Connection._stop`: the server ends
    signaled       nobody asked: the leader died of a signal
    exited         nobody asked: the leader ended by itself

Asking is SIGTERM to the whole tree and a grace; what is left then is killed. Killing is a task beside the session's
life, which goes on through *exited* and *closed*, so that what was printed is delivered.
"""

from __future__ import annotations

import logging
import math
import signal

import trio

from execsrv._processes.leader import ExitStatus
from execsrv._processes.tree import ProcessTree
from execsrv._server.outbox import Feed
from execsrv.protocol import Reason

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 1.0
"""The wait of a killed session for the end of its streams, should something else still hold them."""

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

    def __init__(self, tree: ProcessTree, feed: Feed, timeout: float, idle_timeout: float) -> None:
        """Start the clocks, in seconds and infinite where none is wanted. `open` must follow."""
        self.killed = False
        """True when it is to end by force. From then on nothing of the session waits for a reader."""
        self.is_over = False
        """True when nothing is left to be ended. From then on nobody is asked or killed any more."""
        self.idle = IdleClock(idle_timeout) if idle_timeout < math.inf else None
        self._tree = tree
        self._feed = feed
        self._cause: Reason | None = None
        self._nursery: trio.Nursery | None = None
        self._clocks: list[tuple[trio.CancelScope, Reason]] = []
        self._grace: trio.CancelScope | None = None
        self._draining: trio.CancelScope | None = None
        self._outlived = trio.CancelScope()  # the wait for processes that live on after the close
        if timeout < math.inf:
            self._end_after(timeout, "timeout")
        if self.idle is not None:
            self._clocks.append((self.idle.scope, "idle"))

    def __repr__(self) -> str:
        state = "over" if self.is_over else "killed" if self.killed else "asked" if self._grace else "not asked"
        return f"<Ending {state} cause={self._cause}>"

    # -- for the session's life --

    def open(self, nursery: trio.Nursery) -> None:
        """Watch the clocks in the nursery of the session, and kill there what is to be killed already."""
        self._nursery = nursery
        for clock in self._clocks:
            nursery.start_soon(self._end_at, *clock)
        if self.killed:
            nursery.start_soon(self._tree.kill)

    def reason(self, status: ExitStatus) -> Reason:
        """Return the reason of the leader's end, now that it has ended with this status."""
        return self._cause or ("signaled" if status.signal else "exited")

    def bound_drain(self, draining: trio.CancelScope) -> None:
        """Let the wait for the end of the streams, which is in this scope, take `DRAIN_SECONDS` after a kill."""
        self._draining = draining
        if self.killed:
            draining.deadline = trio.current_time() + DRAIN_SECONDS

    async def wait_alone(self) -> None:
        """Wait until nothing of the session lives on after its close, or until that is to be killed."""
        with self._outlived:
            await self._tree.wait_alone()

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
                self._grace = self._end_after(grace, reason)
            self._grace.deadline = min(self._grace.deadline, trio.current_time() + grace)
            self._ask()
        else:
            self._kill()
        return running

    def _kill(self) -> None:
        if self.killed:
            return
        self.killed = True
        self._outlived.cancel()
        self._feed.wake()
        if self._nursery is not None:
            self._nursery.start_soon(self._tree.kill)
        if self._draining is not None:
            self.bound_drain(self._draining)

    def _ask(self) -> None:
        """Ask it to end: at once, or as soon as there is a descriptor to find it with."""
        try:
            self._tree.signal(signal.SIGTERM, "tree")
            self._tree.signal(signal.SIGCONT, "tree")  # a stopped process cannot heed it
        except OSError as error:
            logger.warning("cannot ask session %d to end yet: %s", self._tree.pid, error)
            if self._nursery is not None:
                self._nursery.start_soon(self._ask_later)

    async def _ask_later(self) -> None:
        await trio.sleep(_ASK_AGAIN_SECONDS)
        if not self.killed:
            self._ask()

    def _end_after(self, seconds: float, reason: Reason) -> trio.CancelScope:
        """Kill it when that time is over. Return the clock, whose deadline may be moved."""
        clock = trio.CancelScope(deadline=trio.current_time() + seconds), reason
        if self._nursery is None:
            self._clocks.append(clock)  # `open` starts it
        else:
            self._nursery.start_soon(self._end_at, *clock)
        return clock[0]

    async def _end_at(self, clock: trio.CancelScope, reason: Reason) -> None:
        with clock:
            await trio.sleep_forever()
        self.terminate(reason, 0)
