"""Spans of OpenTelemetry: one for each session, from the request for it to its end.

A span's parent is the one that the client names by TRACEPARENT in the environment of the command, where it does; the
command gets the session's own there. Neither arguments nor environments are in a span. What is done with them is up to
the program's configuration of OpenTelemetry; nothing here waits for that.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from execsrv._doors.journal import End, Page, Start
from execsrv._version import __version__
from execsrv.errors import RequestError

_SPAN = "span"
_propagator = TraceContextTextMapPropagator()


class Spans:
    """A reader of the journal that makes spans."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("execsrv", __version__)
        self._running: dict[Start, None] = {}

    def __repr__(self) -> str:
        return f"<Spans running={len(self._running)}>"

    def variables(self, start: Start, parent: str) -> dict[str, str]:
        """Begin the span of a session, below the one that `parent` names, and return what tells the command of it."""
        span = self._begin(start, parent)
        told: dict[str, str] = {}
        _propagator.inject(told, trace.set_span_in_context(span))
        return {name.upper(): value for name, value in told.items()}

    def started(self, start: Start) -> None:
        """Say in its span what is known of it."""
        self._running[start] = None
        self._span(start).set_attribute("process.pid", start.pid)

    def failed(self, start: Start, error: Exception) -> None:
        """End the span of a start that failed."""
        kind = error.kind if isinstance(error, RequestError) else "internal-error"
        span = self._span(start)
        span.set_attribute("error.type", kind)
        span.set_status(trace.StatusCode.ERROR, kind)
        span.end()

    def ended(self, start: Start, end: End) -> None:
        """End the span of a session."""
        self._running.pop(start, None)
        span = self._span(start)
        span.set_attribute("process.exit.code", end.exit_code)
        span.set_attribute("execsrv.reason", end.reason)
        for stream, size in end.totals.items():
            span.set_attribute(f"execsrv.{stream}.bytes", size)
        if end.reason in ("timeout", "idle", "signaled"):
            span.set_status(trace.StatusCode.ERROR, end.reason)
        span.end()

    def resumed(self, page: Page, origin: str) -> None:
        """Make a span of its own for a connection that is resumed, with a link to each session that was waiting."""
        links = [trace.Link(self._span(start).get_span_context()) for start in self._running if start.page is page]
        attributes: dict[str, Any] = {"execsrv.connection": page.number, "execsrv.from": origin}
        self._tracer.start_span("execsrv.resume", links=links, attributes=attributes).end()

    def _span(self, start: Start) -> trace.Span:
        span = start.marks.get(_SPAN) or self._begin(start, "")
        assert isinstance(span, trace.Span)
        return span

    def _begin(self, start: Start, parent: str) -> trace.Span:
        above = _propagator.extract({"traceparent": parent}) if parent else None
        attributes: dict[str, Any] = {
            "process.executable.name": start.program,
            "execsrv.process": start.id,
            "execsrv.connection": start.page.number,
            "execsrv.identity": start.page.principal.name,
            "execsrv.tty": start.is_terminal,
        }
        span = self._tracer.start_span(f"execsrv.session {start.program}", context=above, attributes=attributes)
        start.marks[_SPAN] = span
        return span
