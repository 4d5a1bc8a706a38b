"""Messages that the first decoding refuses: is there a call in them that can be answered?

JSON may hold half of a surrogate pair, and a whole number may be written with a point; msgspec takes neither where a
string or an integer is wanted. Everything here runs for refused messages only, and looks at no more than it must.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import NoReturn

import msgspec
from msgspec import UNSET, Struct, UnsetType

from execsrv._wire.bounds import LARGE_BYTES
from execsrv._wire.quoting import quoted
from execsrv.errors import InvalidParamsError, ProtocolError, RequestError
from execsrv.protocol import MessageId, Request

_HEX = "[0-9a-fA-F]{2}"
_HIGH, _LOW = rf"\\u[dD][89abAB]{_HEX}", rf"\\u[dD][c-fC-F]{_HEX}"
_LONE_SURROGATE = rf"\\u[dD](?:[89abAB]{_HEX}(?!{_LOW})|[c-fC-F]{_HEX}(?<!{_HIGH}{_LOW}))"
"""It begins with letters, which is what makes it fast to search for."""
_REPLACEMENT = r"\ufffd"
_MOST_SURROGATES = 1000
_MOST_BACKSLASHES = 1000

_HALF = rb"\\u[dD][89abAB]"
_BEGINNING_BYTES = 4096

_EARLY_ID = (
    r'\s*+\{\s*+(?:"(?:jsonrpc|method)"\s*+:\s*+"[^"\\]{0,256}"\s*+,\s*+){0,2}'
    r'"id"\s*+:\s*+(-?\d{1,19}|"[^"\\]{0,256}")\s*+,'
)
"""The id of a message that is too large, or nested too deeply, to be read, where clients commonly put it."""

_NUMBER = rb'("(?:[^"\\]|\\.)*+")|-?\d++(?:\.\d++)?+(?:[eE][-+]?\d++)?+'
_MOST_REWRITTEN_BYTES = 1024 * 1024
_MOST_REWRITTEN = 10_000
"""Strings and numbers: so many take some milliseconds."""

_MOST_ID_BYTES = 4096
_LARGEST_WHOLE = 2**53
"""From there on a number with a point does not tell one integer from the next."""


class UnreadableError(ProtocolError):
    """A call that came whole and is to be answered with an error; everything else on the channel goes on.

    `id` is None where it has none that could be repeated.
    """

    def __init__(self, id: MessageId | None, error: RequestError) -> None:
        super().__init__(f"malformed message: {error}")
        self.id = id
        self.error = error


class InvalidCallError(RequestError):
    """The envelope of a call is wrong: its id or its method."""

    code = -32600
    kind = "invalid-request"


class _Members(Struct):
    """The members of a message, each as it was written."""

    jsonrpc: msgspec.Raw | UnsetType = UNSET
    id: msgspec.Raw | UnsetType = UNSET
    method: msgspec.Raw | UnsetType = UNSET
    params: msgspec.Raw | UnsetType = UNSET


_members = msgspec.json.Decoder(_Members)


def read_again(data: bytes | bytearray, error: Exception) -> tuple[Request, bool]:
    """Return the call in a message that was refused with `error`, and whether it has a `jsonrpc` member.

    Raises `UnreadableError` for a call that can only be answered with an error, and `ProtocolError` when it is none.
    """
    if len(data) > LARGE_BYTES:
        _refuse_large(data, str(error))
    text = str(data, "utf-8")
    if isinstance(error, RecursionError):
        _refuse_nested(text)
    halves = _lone_surrogates(text)
    try:
        members = _members.decode(_replaced(text, halves) if halves else text)
    except (msgspec.DecodeError, RecursionError):
        members = _Members()
        if len(halves) == _MOST_SURROGATES:
            raise UnreadableError(None, _surrogate(text, halves)) from None
    method = members.method
    if isinstance(method, UnsetType) or isinstance(members.id, UnsetType):
        raise ProtocolError(f"malformed message: {error}; it begins with {quoted(text)}")
    id = _id_in(members.id)
    if halves:
        raise UnreadableError(id, _surrogate(text, halves))
    if id is None:
        refuse_id(str(bytes(members.id)[:100], "utf-8", "replace"))
    try:
        name = msgspec.json.decode(method, type=str)
    except msgspec.DecodeError:
        raise UnreadableError(id, InvalidCallError("the method of a request must be a string")) from None
    params = None if isinstance(members.params, UnsetType) else members.params
    return Request(id, name, params), not isinstance(members.jsonrpc, UnsetType)


def refuse_id(written: str) -> NoReturn:
    """Raise `UnreadableError` for a call with this id, which cannot be repeated."""
    text = f"a request id must be a 64-bit integer or a string of up to 256 bytes, got {quoted(written)}"
    raise UnreadableError(None, InvalidCallError(text))


def _lone_surrogates(text: str) -> list[int]:
    """Return where escapes of half a surrogate pair begin, the first of them at least."""
    found = islice(re.finditer(_LONE_SURROGATE, text), _MOST_SURROGATES)
    return [match.start() for match in found if not _is_escaped(text, match.start())]


def _is_escaped(text: str, backslash: int) -> bool:
    """Tell whether a backslash stands for itself, since another one is in front of it."""
    before = text[max(0, backslash - _MOST_BACKSLASHES) : backslash]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _replaced(text: str, halves: list[int]) -> str:
    """Return the text with the replacement character in these places."""
    starts = [0, *(half + len(_REPLACEMENT) for half in halves)]
    return _REPLACEMENT.join(text[start:end] for start, end in zip(starts, [*halves, len(text)], strict=True))


def _surrogate(text: str, halves: list[int]) -> InvalidParamsError:
    before = quoted(text[max(0, halves[0] - 20) : halves[0]])
    return InvalidParamsError(f"half of a surrogate pair, which is no character, after {before}")


def _refuse_nested(text: str) -> NoReturn:
    if not text.lstrip().startswith("{"):
        raise ProtocolError(f"malformed message: nested too deeply; it begins with {quoted(text)}")
    raise UnreadableError(_early_id(text), InvalidParamsError("nested too deeply"))


def _early_id(text: str) -> MessageId | None:
    found = re.match(_EARLY_ID, text)
    return _id_in(found[1].encode()) if found else None


def _refuse_large(data: bytes | bytearray, why: str) -> NoReturn:
    """Refuse a message without looking at all of it: that would hold up others."""
    text = str(data[:_BEGINNING_BYTES], "utf-8", "replace")
    id = _early_id(text)
    if id is not None or re.search(_HALF, data) is not None:
        raise UnreadableError(id, InvalidParamsError(why))
    raise ProtocolError(f"malformed message: {why}; it begins with {quoted(text)}")


def check_head(data: bytes | bytearray) -> None:
    """Raise as `read_again` does for a large message whose id or method is large, before letters are made of it."""
    try:
        members = _members.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return  # to be told by who decodes all of it
    for member in (members.id, members.method):
        if not isinstance(member, UnsetType) and len(member) > _MOST_ID_BYTES:
            _refuse_large(data, f"its id or its method has {len(member)} bytes")


def refuse_many_values(data: bytes | bytearray, most: int) -> NoReturn:
    """Refuse a large message with more values than that."""
    id = _early_id(str(data[:_BEGINNING_BYTES], "utf-8", "replace"))
    raise UnreadableError(id, InvalidParamsError(f"a message may have {most} commas, and this one has more"))


def _id_in(raw: bytes | msgspec.Raw) -> MessageId | None:
    """Return the id that is written there, None where there is none that can be repeated."""
    written = bytes(raw)
    if len(written) > _MOST_ID_BYTES or written[:1] not in b'-0123456789"' or _REPLACEMENT.encode() in written:
        return None
    import json  # which a server does without until it hears such a message

    value = json.loads(written)
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_WHOLE:
        value = int(value)
    try:
        return msgspec.convert(value, MessageId)  # type: ignore[no-any-return]
    except msgspec.ValidationError:
        return None


def with_whole_numbers(params: bytes | msgspec.Raw) -> bytes | None:
    """Return JSON with `3` for every `3.0` and `3e0`, None where there is none, or where that is too long.

    What comes behind many other strings and numbers is left as it is.
    """
    if len(params) > _MOST_REWRITTEN_BYTES:
        return None
    written = bytes(params)
    rewritten = re.sub(_NUMBER, _as_whole, written, count=_MOST_REWRITTEN)
    return rewritten if rewritten != written else None


def _as_whole(found: re.Match[bytes]) -> bytes:
    """Return a number without its point and exponent, where it is a whole one, and all else as it is."""
    if found[1] is None and not found[0].lstrip(b"-").isdigit():
        number = float(found[0])
        if abs(number) < _LARGEST_WHOLE and number.is_integer():
            return b"%d" % number
    return found[0]
