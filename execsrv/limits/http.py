"""The settings of a server for its HTTP relay."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import HTTP, MIB, Bytes, Count, Patterns
from execsrv.limits.group import Settings, group


@group(frozen=True, kw_only=True)
class HttpSettings(Settings):
    """A part of `ServerConfig`."""

    allow_http: Annotated[
        bool,
        HTTP,
        Meta(
            description="Whether `http/request` is served. It reaches what this machine reaches, its loopback and its"
            " metadata services among it. Commands can do the same, unless something outside of execsrv confines them."
        ),
    ] = True

    http_variables: Annotated[
        Patterns,
        HTTP,
        Meta(
            description="Variables of the server's environment whose values a request may send, without its client"
            " seeing them (`valueEnvVar`). It may send them anywhere."
        ),
    ] = ()

    http_exchanges: Annotated[
        Count,
        HTTP,
        Meta(
            ge=1,
            description="HTTP requests of one connection that are under way at once, streamed bodies included. One more"
            " is answered `busy`. Each may hold one chunk (at most 164 KiB) for a peer that does not read.",
        ),
    ] = 64

    buffered_http_bytes: Annotated[
        Bytes,
        HTTP,
        Meta(
            ge=0,
            description="Bodies of unstreamed HTTP responses that one connection holds until they are answered. In"
            " base64 the largest still fits the largest message.",
        ),
    ] = 40 * MIB
