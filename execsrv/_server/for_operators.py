"""What a server offers to its operator, where the settings ask for it: the audit, and health with metrics."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import trio

from execsrv._doors.reloads import Reloads
from execsrv._nursery import owned
from execsrv._server.failures import refused
from execsrv._threads import run_in_thread
from execsrv._version import __version__
from execsrv.errors import InvalidConfigError

if TYPE_CHECKING:
    from execsrv._doors.counts import Counts
    from execsrv._doors.metrics import Metric
    from execsrv._server.connections import Connections

logger = logging.getLogger(__name__)

_BEAT_SECONDS = 0.25


async def open_operations(
    connections: Connections, nursery: trio.Nursery, stack: ExitStack, reloads: Reloads | None
) -> None:
    """Begin with all that the settings ask for. What is needed for it is imported here, and by nobody else.

    Raises `InvalidConfigError`, `InvalidListenURLError` and `CannotListenError`.
    """
    config = connections.config
    if config.audit_log:
        from execsrv._doors.audit import open_audit

        audit = stack.enter_context(open_audit(config.audit_log))
        connections.journal.observers.append(audit)
        if reloads is not None:
            reloads.add("the audit log", lambda: run_in_thread(audit.reopen, trio.CapacityLimiter(1)))
    if config.traces:
        try:
            from execsrv._doors.spans import Spans
        except ImportError as error:
            raise InvalidConfigError(f"cannot set traces: install execsrv[otel] first ({error})") from error
        connections.journal.observers.append(Spans())
    if config.metrics_listen:
        from execsrv._doors.counts import Counts
        from execsrv._doors.health import serve_health
        from execsrv._doors.metrics import exposition

        counts, lag = Counts(), LoopLag()
        connections.journal.observers.append(counts)
        nursery.start_soon(owned, lag.measure)

        def text() -> bytes:
            return exposition(_metrics(connections, counts, lag))

        url: str = await nursery.start(serve_health, config.metrics_listen, lambda: connections.is_ready, text)
        logger.info("metrics on %s/metrics", url)


class LoopLag:
    """The time by which the loop is late, measured by a task that wants to sleep for a moment."""

    def __init__(self) -> None:
        self.total = self.worst = 0.0
        self.count = 0

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            wanted = trio.current_time() + _BEAT_SECONDS
            await trio.sleep_until(wanted)
            late = trio.current_time() - wanted
            self.count += 1
            self.total += late
            self.worst = max(self.worst, late)

    def take_worst(self) -> float:
        """Return the worst since the last time that somebody asked."""
        worst, self.worst = self.worst, 0.0
        return worst


def _metrics(connections: Connections, counts: Counts, lag: LoopLag) -> Iterator[Metric]:
    """Yield everything that there is to know, as of now."""
    from execsrv._doors.metrics import Metric

    def by_one(numbers: dict[str, int]) -> dict[tuple[str, ...], float]:
        return {(name,): number for name, number in numbers.items()}

    yield Metric("info", "gauge", "The version of the server.", {(__version__,): 1}, ("version",))
    yield Metric("ready", "gauge", "1 while the server takes new connections.", int(connections.is_ready))
    yield Metric("connections", "gauge", "Connections, with a channel or waiting for one.", len(connections))
    yield Metric("sessions", "gauge", "Sessions that run.", counts.running)
    yield Metric("starts_total", "counter", "Commands that were started.", counts.starts)
    failures = by_one(counts.failures)
    yield Metric("start_failures_total", "counter", "Starts that failed, by kind of error.", failures, ("kind",))
    yield Metric("ends_total", "counter", "Sessions that are over, by reason.", by_one(counts.ends), ("reason",))
    refusals: dict[tuple[str, ...], float] = {(kind, limit): number for (kind, limit), number in refused.items()}
    output = by_one(counts.output_bytes)
    yield Metric("output_bytes_total", "counter", "Bytes that commands have printed.", output, ("stream",))
    yield Metric(
        "omitted_bytes_total", "counter", "Bytes that slow readers were passed over with.", counts.omitted_bytes
    )
    yield Metric("refusals_total", "counter", "Requests refused, by kind and limit.", refusals, ("kind", "limit"))
    budgets = connections.allowances.server.budgets
    used: dict[tuple[str, ...], float] = {(budget.limit,): budget.taken for budget in budgets}
    most: dict[tuple[str, ...], float] = {(budget.limit,): budget.most for budget in budgets}
    yield Metric("budget_used", "gauge", "What is taken of each budget of the server.", used, ("limit",))
    yield Metric("budget_limit", "gauge", "The size of each budget of the server.", most, ("limit",))
    held = by_one(connections.allowances.held_by_kind)
    yield Metric("held_bytes", "gauge", "Memory that peers hold, by what holds it.", held, ("kind",))
    yield Metric("retained_output_bytes", "gauge", "Output that is kept for readers.", connections.kept_bytes)
    yield Metric("strays_reaped_total", "counter", "Processes reaped whose parents had gone.", connections.reaped)
    yield Metric("loop_lag_seconds_total", "counter", "The time by which the loop was late, all together.", lag.total)
    yield Metric("loop_beats_total", "counter", "How often that was measured.", lag.count)
    yield Metric("loop_lag_worst_seconds", "gauge", "The worst of it since the last scrape.", lag.take_worst())
    yield Metric("resident_memory_bytes", "gauge", "Memory of the server, without its commands.", _resident())
    yield Metric("processor_seconds_total", "counter", "Processor time of the server alone.", time.process_time())


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
