"""Directories by a text, as they are given on a command line."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from execsrv.directories.dns import DnsDirectory
from execsrv.directories.endpoint import Directory, Endpoint
from execsrv.directories.joined import FileDirectory
from execsrv.errors import InvalidConfigError

FORMS = ("FILE", "ws://HOST:PORT,...", "dns://HOST:PORT", "kubernetes://[NAMESPACE]/SELECTOR")
"""The texts that name a directory, for people."""

_PORT = 8765


def directory_of(text: str) -> Directory | list[Endpoint]:
    """Return the directory, or the servers, that a text names: one of `FORMS`.

    A text with URLs, and commas between them, is these servers; one that is no URL is the path of a file that servers
    join. Behind a NAMESPACE there may be `:PORT`, else it is 8765. Raises `InvalidConfigError`.
    """
    if text.startswith(("dns://", "kubernetes://")):
        try:
            return _asked_of_others(text)
        except ValueError:
            raise InvalidConfigError(f"cannot use the directory `{text}`: expected {_forms()}") from None
    words = [word for word in text.split(",") if word]
    if not words:
        raise InvalidConfigError(f"a directory must not be empty: expected {_forms()}")
    if "://" in words[0] or words[0].startswith("exec:"):
        return [Endpoint(word) for word in words]
    return FileDirectory(text)


def _asked_of_others(text: str) -> Directory:
    parts = urlsplit(text)
    if parts.scheme == "dns":
        if not parts.hostname or not parts.port or parts.path:
            raise ValueError
        return DnsDirectory(parts.hostname, parts.port)
    from execsrv.directories.kubernetes import KubernetesDirectory  # which brings in HTTP and TLS

    if not (selector := unquote(parts.path.removeprefix("/"))):
        raise ValueError
    return KubernetesDirectory(selector, namespace=parts.hostname, port=parts.port or _PORT)


def _forms() -> str:
    return ", ".join(f"`{form}`" for form in FORMS[:-1]) + f" or `{FORMS[-1]}`"
