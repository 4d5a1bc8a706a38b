"""All that descends from one started command: signalling it, and ending it until nothing is left.

The leader is watched by `leader`. Who else belongs to the session is asked of a `Finder`, which the supervisor gives. A
signal goes to a process only after asking, with a pidfd open, whether it is still whom it was found as.
"""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from execsrv._processes import proc
from execsrv._processes.leader import Leader, signals_groups_by_pidfd
from execsrv._processes.proc import Steps, at_once
from execsrv._processes.reaper import Reaper
from execsrv._processes.turns import in_one_turn, in_turns, shielded
from execsrv._processes.usage import Usage, usage_of, used_by
from execsrv._processes.wait_gone import wait_gone
from execsrv.protocol import Layer, Member

if TYPE_CHECKING:
    from execsrv._processes.contract import Received, Target
    from execsrv._processes.finder import Finder

logger = logging.getLogger(__name__)

END_SECONDS = 5.0
"""Time that killed processes have to be gone. Freeing a large memory takes its time."""

_ROUND_SECONDS = 0.1

T = TypeVar("T")


class ProcessTree:
    """A leader and all that descends from it. Whoever holds it calls `end` in the end."""

    is_over_runner = False
    reaper: Reaper | None = None
    """The first process of its pid namespace, where it has one of its own."""

    def __init__(self, leader: Leader, number: int, finder: Finder, born_after: float) -> None:
        """Take ownership of a leader that was started, after that time, as session `number` of its supervisor."""
        self.leader = leader
        self.number = number
        self.born_after = born_after
        self.looks = finder.looks
        """The threads of its server for looks that may hang in the kernel."""
        self._finder = finder
        self._is_empty = False

    def __repr__(self) -> str:
        return f"<ProcessTree number={self.number} {self.leader!r}>"

    @property
    def pid(self) -> int:
        """The pid of the leader."""
        return self.leader.pid

    # -- signals --

    def signal(self, number: int, target: Target = "tree") -> Received:
        """Send a signal to the leader, to its process group or to all that descends from it.

        Children go first, as long as their parent is there to tell whose they are. Return how many received it. Where
        they are too many for one turn, return what sends it to the rest.
        """
        return self._begin(partial(self._signalling, number, target))

    def signal_now(self, number: int, target: Target) -> int:
        """Send what `signal` does, however long that takes. Return how many received it."""
        return self._now(partial(self._signalling, number, target))

    def _signalling(self, number: int, target: Target) -> Steps[int]:
        if target == "leader":
            return (yield from self._sending([] if self.leader.has_ended else [(self.pid, 0)], number))
        members = yield from self._find()
        if target == "tree":
            return (yield from self._sending(list(reversed(members.items())), number))
        count = 0
        for pid in members:
            count += proc.group(pid) == self.pid
            yield
        return count if self.leader.signal_group(number) else 0

    def ask_to_end_now(self) -> None:
        """Send SIGTERM to all that descends from it, and let those go on that are stopped, or they could not heed it.

        All are stopped first, parents before their children: a shell whose child has ended of it would go on with its
        next command. Raises `OSError` without a descriptor left to look with.
        """
        self._now(self._asking)

    def ask_group_to_end(self) -> None:
        """Send SIGTERM to the leader's group at once, for which no descriptor is needed."""
        self.leader.signal_group(signal.SIGTERM)

    def ask_to_end(self) -> Received:
        """Send what `ask_to_end_now` does. Where they are many, return what sends it to the rest, uncancelled."""
        rest = self._begin(self._asking)
        return rest if isinstance(rest, int) else shielded(rest)  # nobody is to be left stopped

    def _asking(self) -> Steps[int]:
        found = list((yield from self._find()).items())
        if len(found) > 1:
            yield from self._sending(found, signal.SIGSTOP)
        yield from self._sending(found[::-1], signal.SIGTERM)
        return (yield from self._sending(found[::-1], signal.SIGCONT))

    def signal_foreground(self, number: int, terminal: int) -> Received:
        """Send a signal to the job in front on the terminal with this master. Return what `signal` does."""
        try:
            group = os.tcgetpgrp(terminal)
        except OSError:
            return 0
        return self._begin(partial(self._signalling_group, number, group))

    def _signalling_group(self, number: int, group: int) -> Steps[int]:
        members = yield from self._find()
        return (yield from self._sending([(pid, 0) for pid in members if proc.group(pid) == group], number))

    def _begin(self, steps: Callable[[], Steps[int]]) -> Received:
        """Take the first turn of steps now. Return their result, or what takes the others."""
        begun = steps()
        try:
            sent = in_one_turn(begun)
        except OSError:
            return self._now(steps)
        return self._go_on(begun, steps) if sent is None else sent

    async def _go_on(self, begun: Steps[T], steps: Callable[[], Steps[T]]) -> T:
        try:
            return await self._in_turns(begun)
        except OSError:
            return self._now(steps)

    def _now(self, steps: Callable[[], Steps[T]]) -> T:
        """Take all steps at once, where there are no descriptors with those that are kept for that."""
        try:
            return at_once(steps())
        except OSError:
            with self._finder.spare():
                return at_once(steps())

    def _sending(self, members: list[tuple[int, int]], number: int) -> Steps[int]:
        count = 0
        for pid, parent in members:
            count += self._send_to(pid, parent, number)
            yield
        return count

    def _send_to(self, pid: int, parent: int, number: int) -> bool:
        """Send to a process if it is still whom it was found as. Return whether it lives."""
        if pid == self.pid and not self.leader.is_reaped:
            return self.leader.send(number)

        def belongs(pid: int) -> bool:
            return self._finder.belongs(self, pid) or (parent != 0 and proc.parent(pid) == parent)

        return proc.send(pid, number, belongs)

    # -- what is left --

    def _find(self) -> Steps[dict[int, int]]:
        """Find who lives of the session, each with its parent. Once that was nobody, it stays so.

        Raises `OSError` without a descriptor left to look with.
        """
        if self._is_empty:
            return {}
        look = partial(self._finder.find, self)
        found = yield from (look() if self.reaper is None else self.reaper.find(look, self.leader))
        if not found and not self.leader.has_ended:
            return {self.pid: 0}
        self._is_empty = not found
        return found

    async def remaining(self) -> list[Member]:
        """Find who lives of the session. The leader counts as long as it runs."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._is_empty:
            try:
                return [Member(pid, proc.name(pid)) for pid in await self._in_turns(self._find())]
            except OSError:
                with suppress(OSError), self._finder.spare():
                    return [Member(pid, proc.name(pid)) for pid in at_once(self._find())]
                await trio.sleep(_ROUND_SECONDS)  # for a descriptor to look with
        return []

    async def usage(self) -> Usage:
        """Return what it takes of processors and memory: all that lives of it, or what its leader has taken."""
        living = await self.remaining()
        return usage_of(member.pid for member in living) if living else used_by(self.leader.usage)

    async def wait_gone(self) -> bool:
        """Wait until those are gone who live of it now. Return whether there was anybody."""
        living = await self.remaining()
        for member in living:
            await wait_gone(member.pid)
        return bool(living)

    async def wait_alone(self) -> None:
        """Wait until nothing of the session lives, and reap the leader, which has ended. Cancelling stops waiting.

        Where the kernel cannot signal a group by pidfd, the leader stays a zombie as long as others live.
        """
        await trio.lowlevel.checkpoint()  # others that have just ended hear of it, and one look does for all of them
        while True:
            try:
                left = await self._in_turns(self._find())
                if not left or signals_groups_by_pidfd():
                    self.leader.reap()
            except OSError:
                await trio.sleep(_ROUND_SECONDS)  # for a descriptor to look with
                continue
            if not left:
                return
            for pid in left:
                await wait_gone(pid)
            await trio.lowlevel.checkpoint()

    async def _in_turns(self, steps: Steps[T]) -> T:
        return await in_turns(steps, self._finder.turn)

    @trio.lowlevel.enable_ki_protection
    async def kill(self) -> Layer | None:
        """Kill all that is left, wait until it is gone, and reap the leader. Cannot be cancelled.

        Return the layer that proved that nothing is left. Return None when it could not be proved: who cannot be killed
        (the kernel is busy with it, or it runs as another user) is waited for no longer than `END_SECONDS` from the
        first look on, whose turn may come late, and then left, with a word in the log.

        All are stopped first, parents before their children: a shell whose child was killed would go on with its next
        command.
        """
        self._finder.ending(self)
        if self._is_empty and self.leader.has_ended:
            self.leader.reap()
            return self._finder.layer
        left: list[int] | None = None
        given_up_at = math.inf
        with trio.CancelScope(shield=True):
            while True:
                try:
                    left = await self._in_turns(self._killing())
                except OSError:  # no descriptor left to look with
                    left = self._kill_short()
                given_up_at = min(given_up_at, (now := trio.current_time()) + END_SECONDS)
                if left == [] or now >= given_up_at:
                    break
                with trio.move_on_after(_ROUND_SECONDS):  # then see who has come up meanwhile
                    for pid in left or []:
                        await wait_gone(pid)
                    if left is None:
                        await trio.sleep(_ROUND_SECONDS)
        if left != []:
            names = ", ".join(f"{pid} ({proc.name(pid)})" for pid in left or [self.pid])
            logger.error("cannot kill what is left of session %d: %s", self.pid, names)
            return None
        self.leader.reap()
        return self._finder.layer

    def _killing(self) -> Steps[list[int]]:
        """Kill all that is there. Return who that was."""
        found = list((yield from self._find()).items())
        if len(found) > 1:
            yield from self._sending(found, signal.SIGSTOP)
        yield from self._sending(found[::-1], signal.SIGKILL)
        return [pid for pid, _ in found]

    def _kill_short(self) -> list[int] | None:
        """Kill all that is there, with the descriptors that are kept for it. Return who that was, None unless known."""
        try:
            with self._finder.spare():
                return at_once(self._killing())
        except OSError:
            # The end of its streams will give some back.
            self.leader.signal_group(signal.SIGKILL)
            return None

    @trio.lowlevel.enable_ki_protection
    async def end(self) -> None:
        """Kill all that is left, as `kill` does, and let go of it. Cannot be cancelled."""
        try:
            await self.kill()
        finally:
            self.release()

    def release(self) -> None:
        """Let go of it. All that is left lives on."""
        self._finder.ended(self)
        self.leader.close()
