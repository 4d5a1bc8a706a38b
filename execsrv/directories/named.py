"""Directories by a text, as they are given on a command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from urllib.parse import unquote, urlsplit

from execsrv.directories.dns import DnsDirectory
from execsrv.directories.endpoint import Directory, Endpoint
from execsrv.directories.joined import FileDirectory
from execsrv.errors import InvalidConfigError

FORMS = ("FILE", "ws://HOST:PORT,...", "dns://HOST:PORT", "kubernetes://[NAMESPACE[:PORT]]/SELECTOR", "ray://[NAME]")
"""The texts that name servers, for people."""

_PORT = 8765

_URL = r"[a-z][a-z0-9+.-]*://|exec:"
_SERVERS = re.compile(
    # A command, with the commas that it quotes, and those behind which no URL begins ...
    rf"""exec:(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^,]|,(?!{_URL}))*"""
    # ... or another URL.
    rf"""|(?:[^,]|,(?!{_URL}|,|$))+""",
    re.S,
)


def _of_dns(text: str) -> Directory:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or not parts.port or parts.path:
        raise ValueError
    return DnsDirectory(parts.hostname, parts.port)


def _of_kubernetes(text: str) -> Directory:
    from execsrv.directories.kubernetes import KubernetesDirectory  # which brings in HTTP and TLS

    parts = urlsplit(f"//{text}")
    if not (selector := unquote(parts.path.removeprefix("/"))):
        raise ValueError
    return KubernetesDirectory(selector, namespace=parts.hostname, port=parts.port or _PORT)


def _of_ray(name: str) -> Directory:
    try:
        adapter = import_module("execsrv.adapters.ray")  # by its name: it stands above, and Ray takes long to import
    except ImportError as error:
        raise InvalidConfigError("cannot use a pool of `ray://` without Ray: pip install 'execsrv[ray]'") from error
    found: Directory = adapter.RayDirectory(name) if name else adapter.RayDirectory()
    return found


_BY_SCHEME: dict[str, Callable[[str], Directory]] = {"dns": _of_dns, "kubernetes": _of_kubernetes, "ray": _of_ray}


def directory_of(text: str) -> Directory | list[Endpoint]:
    """Return the directory, or the servers, that a text names: one of `FORMS`.

    A text with URLs, and commas between them, is these servers. A comma behind which no URL begins is part of the one
    before it, as is every comma that the command of an `exec:` quotes. A text that is no URL is the path of a file that
    servers join. `ray://NAME` is what Ray keeps under that name. The port of pods is 8765 where none is given.

    Raises `InvalidConfigError` for another text, and for one whose extra is not installed.
    """
    scheme, separator, rest = text.partition("://")
    urls = _SERVERS.findall(text)
    try:
        if separator and scheme in _BY_SCHEME:
            return _BY_SCHEME[scheme](rest)
        if not urls:
            raise ValueError
    except ValueError:
        expected = ", ".join(f"`{form}`" for form in FORMS[:-1]) + f" or `{FORMS[-1]}`"
        raise InvalidConfigError(f"cannot take `{text}` for the servers of a pool: expected {expected}") from None
    if "://" in urls[0] or urls[0].startswith("exec:"):
        return [Endpoint(url) for url in urls]
    return FileDirectory(text)
