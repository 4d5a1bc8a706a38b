"""OpenTelemetry in a daemon: its spans leave by OTLP over HTTP, as the variables `OTEL_*` say. A thread sends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from execsrv._nursery import contain
from execsrv._threads import run_in_thread
from execsrv.errors import InvalidConfigError

_FLUSH_SECONDS = 2.0


@asynccontextmanager
async def open_tracing() -> AsyncIterator[None]:
    """Send spans as long as this lasts, and give the last ones a short time. Raises `InvalidConfigError`."""
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidConfigError(f"cannot set traces: install execsrv[otel] first ({error})") from error
    # `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before this name.
    resource = Resource({"service.name": "execsrv"}).merge(Resource.create())
    # At the exit of the interpreter it would wait for a collector that does not answer.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    processor = BatchSpanProcessor(OTLPSpanExporter())
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # The SDK keeps to no time that it is given: what has not left by then is lost, with the thread.
        with trio.move_on_after(_FLUSH_SECONDS, shield=True):
            await contain("sending the last spans", run_in_thread, processor.force_flush, trio.CapacityLimiter(1))
