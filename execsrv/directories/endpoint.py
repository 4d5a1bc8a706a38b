"""A server as a directory tells of it: where it is, how to come in, and its labels. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct


class Endpoint(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One server. `labels` are words about it that `Pool` can be asked for, such as `{"gpu": "1"}`.

    `token` or `token_file` is how to come in, where that is not the same for all servers of a pool. `free` is how many
    commands it can take from one pool at a time; None leaves that to the pool. `allow_plain_network` is that of
    `ClientConfig`, for this server.
    """

    url: str
    token: str | None = None
    token_file: str | None = None
    labels: dict[str, str] = {}
    free: int | None = None
    allow_plain_network: bool = False

    def __repr__(self) -> str:
        """Show everything but the token."""
        labels = "".join(f" {name}={value}" for name, value in self.labels.items())
        return f"<Endpoint {self.url}{labels}>"


Directory = Callable[[], Awaitable[Sequence[Endpoint | str]]] | Callable[[], Sequence[Endpoint | str]]
"""Gives the servers that there are now, an `Endpoint` or a URL each.

An async function is one of trio. A plain one is called in a thread, and may block there.
"""
