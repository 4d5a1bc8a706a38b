"""The allowances of a server: everything that its peers may have at once, and that one principal may.

A principal has the configured share of each. Its allowance lasts as long as something of it does, and is remembered for
a while: what it has done counts when it comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from execsrv._budget.budget import Budget
from execsrv._budget.rate import Rate
from execsrv.errors import LimitExceededError
from execsrv.limits import KIB, ServerConfig

CONNECTION_BYTES = 256 * KIB
"""The cost of a connection beside all that counts by itself: tasks, and the text of what is on its way in and out."""

SESSION_BYTES = 32 * KIB
"""The cost of a session beside its output and its input, until it is forgotten."""

_SAVED_SECONDS = 10
"""So long a rate is saved up: a burst is no flood."""

_HOUR = 3600

KINDS = ("connections", "sessions", "messages", "files", "http")
"""Memory is counted by these. Output and input count for their session, requests and answers as messages."""

_REMEMBERED = 1024
"""So many principals are remembered that have gone, so that none has a rate anew by coming back."""


class Allowance:
    """Bytes, things and deeds. One object for the server, and one below it for each principal."""

    def __init__(self, config: ServerConfig, above: Allowance | None = None) -> None:
        self.above = above
        self._is_whole = above is None
        whose = "" if self._is_whole else " for one principal"
        most = partial(self._most, config)

        def budget(limit: str, higher: Callable[[Allowance], Budget]) -> Budget:
            return Budget(limit, most(limit), None if above is None else higher(above), whose)

        def rate(limit: str, higher: Callable[[Allowance], Rate], seconds: int = _SAVED_SECONDS, per: int = 1) -> Rate:
            over = None if above is None else higher(above)
            return Rate(limit, most(limit), over, whose, seconds=seconds, per=per)

        self.held: Budget = budget("held_bytes", lambda above: above.held)
        """Bytes of memory, of all kinds together."""
        self.for_connections, self.for_sessions, self.for_messages, self.for_files, self.for_http = (
            Budget(above=self.held) for _ in KINDS
        )
        self.sessions: Budget = budget("max_sessions", lambda above: above.sessions)
        """Sessions that run."""
        self.handles: Budget = budget("max_file_handles", lambda above: above.handles)
        """Open files of `fs/open`, and kept snapshots of login shells."""
        self.watches: Budget = budget("max_watches", lambda above: above.watches)
        """Watches of files, each with a descriptor."""
        self.exchanges: Budget = budget("max_http_exchanges", lambda above: above.exchanges)
        """HTTP requests under way."""
        self.starts: Rate = rate("starts_per_second", lambda above: above.starts)
        self.requests: Rate = rate("requests_per_second", lambda above: above.requests)
        self.written: Rate = rate("written_file_bytes_per_hour", lambda above: above.written, _HOUR, _HOUR)
        """Bytes that file methods write."""

    def __repr__(self) -> str:
        return f"<Allowance {self.held} {self.sessions}>"

    def _most(self, config: ServerConfig, limit: str) -> int:
        whole: int = getattr(config, limit)
        return whole if self._is_whole else math.ceil(whole * config.principal_percent / 100)

    def configure(self, config: ServerConfig) -> None:
        """Allow what these settings say from now on. What was taken stays taken."""
        for budget in self.budgets:
            budget.most = self._most(config, budget.limit)
        for rate in self.rates:
            rate.allow(self._most(config, rate.limit))

    def take_session(self, size: int) -> None:
        """Take a start, a session, and the bytes that it has from its start on. Raises `LimitExceededError`."""
        self.starts.take()
        self.sessions.take()
        try:
            self.for_sessions.take(size)
        except LimitExceededError:
            self.sessions.give()
            raise

    @property
    def held_by_kind(self) -> tuple[int, ...]:
        """Bytes of memory by what holds them, in the order of `KINDS`."""
        kinds = self.for_connections, self.for_sessions, self.for_messages, self.for_files, self.for_http
        return tuple(kind.taken for kind in kinds)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Everything that is given back."""
        return self.held, self.sessions, self.handles, self.watches, self.exchanges

    @property
    def rates(self) -> tuple[Rate, ...]:
        """Everything that is counted by time."""
        return self.starts, self.requests, self.written


class Allowances:
    """The allowance of a server, and those of its principals by name."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.server = Allowance(config)
        self._by_name: WeakValueDictionary[str, Allowance] = WeakValueDictionary()
        self._latest: dict[str, Allowance] = {}
        """The last that came, in the order in which they did."""

    def configure(self, config: ServerConfig) -> None:
        """Allow what these settings say, everybody at once."""
        self._config = config
        for allowance in (self.server, *self._by_name.values()):
            allowance.configure(config)

    def of(self, principal: str) -> Allowance:
        """Return the allowance of a principal, the same for all that is there of it, and when it comes back."""
        if (allowance := self._by_name.get(principal)) is None:
            self._by_name[principal] = allowance = Allowance(self._config, self.server)
        self._latest.pop(principal, None)
        self._latest[principal] = allowance
        if len(self._latest) > _REMEMBERED:
            del self._latest[next(iter(self._latest))]
        return allowance

    @property
    def held_by_kind(self) -> dict[str, int]:
        """Bytes of memory that all peers hold, by kind."""
        each = [allowance.held_by_kind for allowance in list(self._by_name.values())]
        return {kind: sum(held[number] for held in each) for number, kind in enumerate(KINDS)}
