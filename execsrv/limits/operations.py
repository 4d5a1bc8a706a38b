"""The settings of a server for what its operator sees of it: logs, an audit, metrics, traces."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated, Literal

from msgspec import Meta

from execsrv._setting_units import NEEDS_RESTART, OPERATIONS, FilePath
from execsrv.limits.group import Settings, group


@group(frozen=True, kw_only=True)
class OperationSettings(Settings):
    """A part of `ServerConfig`."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        OPERATIONS,
        Meta(description="The least that the log of `execsrv serve` has."),
    ] = "info"

    log_format: Annotated[
        Literal["auto", "text", "json"],
        OPERATIONS,
        NEEDS_RESTART,
        Meta(description="The form of that log. `auto` is text on a terminal, and elsewhere an object of JSON a line."),
    ] = "auto"

    metrics_listen: Annotated[
        str,
        OPERATIONS,
        NEEDS_RESTART,
        Meta(
            description="Where `/livez`, `/readyz` and `/metrics` are answered: `http://IP:PORT`. Whoever reaches that"
            " needs no token, and learns numbers alone."
        ),
    ] = ""

    audit_log: Annotated[
        FilePath,
        OPERATIONS,
        NEEDS_RESTART,
        Meta(description="A file that gets a line of JSON for each start and each end. Opened again at SIGHUP."),
    ] = ""

    audit_argv: Annotated[
        bool,
        OPERATIONS,
        Meta(description="Whether those lines have the arguments of commands too, which may hold secrets."),
    ] = False

    traces: Annotated[
        bool,
        OPERATIONS,
        NEEDS_RESTART,
        Meta(
            description="Whether each session is a span of OpenTelemetry, which `OTEL_*` configures. The command gets a"
            " `TRACEPARENT`. Needs `execsrv[otel]`."
        ),
    ] = False
