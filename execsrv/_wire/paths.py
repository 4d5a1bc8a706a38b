"""Absolute paths and `file:` URIs, one to the other (RFC 8089), with the refusals that Codex clients know."""

from __future__ import annotations

import os
import posixpath
import re
import secrets
from functools import cache
from urllib.parse import SplitResult, quote_from_bytes, unquote_to_bytes, urlsplit

from execsrv.errors import InvalidParamsError


def path_from_wire(text: str, field: str) -> str:
    """Return the absolute path that `text`, an absolute path or a `file:` URI, stands for.

    Raises `InvalidParamsError` naming `field` for anything else.
    """
    if text.startswith("/"):
        if "\0" in text:
            raise InvalidParamsError(f"{field}: a path cannot contain a NUL character: {text!r}", field=field)
        return text
    if (plain := _plain_uri().fullmatch(text)) is not None:
        return plain[1]
    if any(character in text for character in "\t\r\n"):
        raise InvalidParamsError(f"{field}: invalid URI: control characters must be escaped: {text!r}", field=field)
    parts = _split(text, field)
    if parts.scheme != "file":
        wanted = "expected an absolute path or a file: URI"
        if not parts.scheme:
            raise InvalidParamsError(
                f"{field}: invalid URI: relative URL without a base: `{text}`; {wanted}", field=field
            )
        raise InvalidParamsError(f"{field}: unsupported path URI scheme `{parts.scheme}`; {wanted}", field=field)
    if "?" in text:
        raise InvalidParamsError(f"{field}: query parameters are not allowed in path URIs: `{text}`", field=field)
    if "#" in text:
        raise InvalidParamsError(f"{field}: fragments are not allowed in path URIs: `{text}`", field=field)
    path = os.fsdecode(unquote_to_bytes(parts.path))
    drive = path[1:3]
    foreign = parts.netloc not in ("", "localhost") or (drive[1:] == ":" and drive[:1].isalpha())
    if foreign or "\0" in path:
        raise InvalidParamsError(f"{field}: `{text}` is not a path of this machine", field=field)
    return posixpath.normpath("/" + path.lstrip("/"))


def uri_from_path(path: str) -> str:
    """Return the `file:` URI of an absolute path. Bytes that are not UTF-8 are percent-escaped as they are."""
    return "file://" + escaped(path)


def escaped(text: str) -> str:
    """Return a path, which need not be absolute, percent-escaped as in a URI."""
    return quote_from_bytes(os.fsencode(text), safe="/:@!$&'()*+,;=~-._")


@cache
def _plain_uri() -> re.Pattern[str]:
    """Return what matches a `file:` URI with nothing escaped and nothing left to be settled, as most are."""
    return re.compile("file://((?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+)")


def _split(text: str, field: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError as error:
        raise InvalidParamsError(f"{field}: invalid URI `{text}`: {error}", field=field) from None


def part_name(name: str, key: str = "") -> str:
    """Return a name beside `name` for what is not whole yet, no longer than a directory takes.

    It is a new one each time, unless a `key` of up to 16 letters is given, by which it is found again.
    """
    short = name.encode(errors="surrogateescape")[:200].decode(errors="surrogateescape")
    return f".{short}.{key or secrets.token_hex(8)}.part"
