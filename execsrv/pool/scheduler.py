"""Places for commands on the servers of a pool: which server gets the next one, and who is next where all are full.

Where there is room, the freer of two servers taken at random gets the command: nearly as even as asking all of them,
and two pools that know nothing of each other do not run to the same one. Where there is none, the shares of a pool take
turns at each place that becomes free, so that a share with thousands of commands does not hold up one with a few.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol

import trio
from outcome import Error, Value

from execsrv.errors import NoServerError
from execsrv.pool.labels import Labels

_LOOK_SECONDS = 0.5

_MOST_GROUPS = 256
"""Sets of labels that are remembered, beside those that somebody waits for."""

_MOST_WHYS = 3
"""An error names the troubles of so many servers."""


class Host(Protocol):
    """A server, as far as places are concerned."""

    labels: Labels
    running: int
    """Places that are taken."""
    slots: int
    """Places that there are."""
    is_resting: bool
    """True while it is to be left alone for a moment."""
    is_hopeless: bool
    """True where waiting for it to be there is in vain."""
    why: str
    """The last that went wrong, empty where nothing did."""

    @property
    def is_there(self) -> bool:
        """True while it takes commands, though it may have no room for one now."""


class _Group:
    """The servers that have the same labels asked for, and since when none of them is there."""

    def __init__(self, *, is_all: bool) -> None:
        self.hosts: list[Host] = []
        self.missing_since: float | None = None
        self._is_all = is_all  # no others come later

    @property
    def is_hopeless(self) -> bool:
        """True where it is in vain to wait for any of them, or for others."""
        return (self._is_all or bool(self.hosts)) and all(host.is_hopeless for host in self.hosts)


Queue = OrderedDict[trio.lowlevel.Task, None]
"""Tasks that wait for a place, in their order. One that gives up is taken out wherever it stands, and one that has
nobody is not kept: it would be taken for somebody who waits."""


class Scheduler:
    """The places of all servers, and the shares that wait for one."""

    def __init__(self, patience: float, directory: object = None, *, is_fixed: bool = False) -> None:
        """`patience` is how long to wait for a server to be there, in seconds.

        `directory` is who tells of servers, for people. Where they are `is_fixed`, no others come later.
        """
        self._is_fixed = is_fixed
        self._patience = patience
        self._directory = directory
        self.trouble = ""
        """Why it could not be asked the last time, for people."""
        self._hosts: list[Host] = []
        self._groups: dict[Labels, _Group] = {}
        self._shares: dict[Hashable, dict[Labels, Queue]] = {}  # the first is the next to get a place
        self._waiting = 0

    # -- servers --

    def add(self, host: Host) -> None:
        """Take in a server."""
        self._hosts.append(host)
        for labels, group in self._groups.items():
            if labels <= host.labels:
                group.hosts.append(host)
        self.fill(host)

    def remove(self, host: Host) -> None:
        """Forget a server. Places that are taken there are still to be given back."""
        self._hosts.remove(host)
        for group in self._groups.values():
            if host in group.hosts:
                group.hosts.remove(host)

    def relabel(self, host: Host, labels: Labels) -> None:
        """Give a server other labels."""
        self.remove(host)
        host.labels = labels
        self.add(host)

    # -- commands --

    async def take(self, labels: Labels, share: Hashable, *, first: bool = False) -> Host:
        """Return a server with these labels, on which a place is taken. `first` is for who comes back for another one.

        Raises `NoServerError`, at once where all that have the labels are hopeless, and where none has them and none
        comes later. Cancelling takes none.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        group = self._group(labels)
        if first or not self._waiting or not self._is_asked_for(labels):
            host = self._choose(group)
            if host is not None:
                host.running += 1
                return host
        if group.is_hopeless:
            raise self._nobody(labels)
        return await self._wait(labels, share, first=first)

    def give(self, host: Host) -> None:
        """Give a place back."""
        host.running -= 1
        self.fill(host)

    def fill(self, host: Host) -> None:
        """Have those who wait take the places that a server has."""
        while self._waiting and _has_room(host):
            found = self._first(host)
            if found is None:
                return
            share, labels = found
            task = self._pop(share, labels)
            _put_last(self._shares, share)  # others of its share, and of its labels, are behind all
            _put_last(self._shares.get(share, {}), labels)
            host.running += 1
            trio.lowlevel.reschedule(task, Value(host))

    async def watch(self) -> None:
        """Tell those who wait in vain, for ever."""
        while True:
            await trio.sleep(min(_LOOK_SECONDS, self._patience / 4))
            self.look()

    def look(self) -> None:
        """Tell those who wait in vain."""
        now = trio.current_time()
        for labels, group in [*self._groups.items()]:
            if self._is_missing(labels, group, now) or group.is_hopeless:
                self._refuse(labels, partial(self._nobody, labels))

    @property
    def wants(self) -> list[str]:
        """Servers that somebody waits for, since none is there, for people."""
        return [
            f"a server{_named(labels)}, for {self._patience:g} s at most: {self._known(labels)}"
            for labels, group in self._groups.items()
            if group.missing_since is not None and self._is_asked_for(labels)
        ]

    @property
    def waiting(self) -> int:
        """The commands that wait for a place."""
        return self._waiting

    def close(self, error: Callable[[], Exception]) -> None:
        """Have all who wait raise an error."""
        for labels in [*self._groups]:
            self._refuse(labels, error)

    def _group(self, labels: Labels) -> _Group:
        group = self._groups.get(labels)
        if group is None:
            if len(self._groups) > _MOST_GROUPS:
                self._groups = {key: known for key, known in self._groups.items() if self._is_asked_for(key)}
            group = self._groups[labels] = _Group(is_all=self._is_fixed)
            group.hosts = [host for host in self._hosts if labels <= host.labels]
        return group

    def _is_asked_for(self, labels: Labels) -> bool:
        return any(labels in queues for queues in self._shares.values())

    def _choose(self, group: _Group) -> Host | None:
        """Return the freer one of two servers at random, and where neither has room, the freest of all."""
        hosts = group.hosts
        if not hosts:
            return None
        one, other = random.choice(hosts), random.choice(hosts)
        best = max(one, other, key=_free)
        if _has_room(best):
            return best
        best = max(hosts, key=_free)
        return best if _has_room(best) else None

    @trio.lowlevel.enable_ki_protection
    async def _wait(self, labels: Labels, share: Hashable, *, first: bool) -> Host:
        task = trio.lowlevel.current_task()
        queue = self._shares.setdefault(share, {}).setdefault(labels, OrderedDict())
        queue[task] = None
        if first:
            queue.move_to_end(task, last=False)
        self._waiting += 1

        def abort(_: object) -> trio.lowlevel.Abort:
            del queue[task]
            self._is_out(share, labels)
            return trio.lowlevel.Abort.SUCCEEDED

        host: Host = await trio.lowlevel.wait_task_rescheduled(abort)
        return host

    def _first(self, host: Host) -> tuple[Hashable, Labels] | None:
        """Return the share and the labels that are next of those that this server is good for."""
        places = ((share, labels) for share, queues in self._shares.items() for labels in queues)
        return next(((share, labels) for share, labels in places if labels <= host.labels), None)

    def _pop(self, share: Hashable, labels: Labels) -> trio.lowlevel.Task:
        task, _ = self._shares[share][labels].popitem(last=False)
        self._is_out(share, labels)
        return task

    def _is_out(self, share: Hashable, labels: Labels) -> None:
        """Note that one of these waits no longer."""
        self._waiting -= 1
        if not self._shares[share][labels]:
            del self._shares[share][labels]
            if not self._shares[share]:
                del self._shares[share]

    # -- servers that are not there --

    def _is_missing(self, labels: Labels, group: _Group, now: float) -> bool:
        """Return True where somebody waits, and no server was there for as long as that is to go on."""
        if not self._waiting or not self._is_asked_for(labels) or any(host.is_there for host in group.hosts):
            group.missing_since = None
            return False
        if group.missing_since is None:
            group.missing_since = now
        return now - group.missing_since >= self._patience

    def _refuse(self, labels: Labels, error: Callable[[], Exception]) -> None:
        for share in [share for share, queues in self._shares.items() if labels in queues]:
            while share in self._shares and labels in self._shares[share]:
                outcome = Error(error())  # before the task is out: whatever is wrong with that, it goes on waiting
                trio.lowlevel.reschedule(self._pop(share, labels), outcome)

    def _nobody(self, labels: Labels) -> NoServerError:
        what = "can be used" if self._group(labels).is_hopeless else f"was there for {self._patience:g} s"
        return NoServerError(f"no server{_named(labels)} {what}: {self._known(labels)}")

    def _known(self, labels: Labels) -> str:
        """Return which servers are known, and their troubles, for people."""
        hosts = self._group(labels).hosts
        known = f"{len(hosts)} of {len(self._hosts)} servers have them" if labels else f"{len(self._hosts)} are known"
        if not self._hosts:
            known = f"none is known to {self._directory!r}"
        whys = "".join(f"; {host}: {host.why}" for host in hosts[:_MOST_WHYS] if host.why)
        if self.trouble:
            whys += f"; cannot ask {self._directory!r}: {self.trouble}"
        return known + whys


def _named(labels: Labels) -> str:
    return " with " + ", ".join(f"{name}={value}" for name, value in sorted(labels)) if labels else ""


def _put_last(queues: dict[Any, Any], key: Hashable) -> None:
    if key in queues:
        queues[key] = queues.pop(key)


def _free(host: Host) -> int:
    """Return how much room a server has, below all others where it takes nothing."""
    return host.slots - host.running if host.is_there and not host.is_resting else -1 << 30


def _has_room(host: Host) -> bool:
    return host.running < host.slots and host.is_there and not host.is_resting
