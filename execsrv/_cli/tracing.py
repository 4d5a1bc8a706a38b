"""OpenTelemetry in a daemon: its spans leave by OTLP over HTTP, as the variables `OTEL_*` say. A thread sends them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from execsrv.errors import InvalidConfigError

_FLUSH_MILLISECONDS = 2000


@contextmanager
def open_tracing() -> Iterator[None]:
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
    provider = TracerProvider(resource=Resource({"service.name": "execsrv"}).merge(Resource.create()))
    processor = BatchSpanProcessor(OTLPSpanExporter())
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        processor.force_flush(_FLUSH_MILLISECONDS)
