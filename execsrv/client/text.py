"""Output as text: lines, and characters as they come, whatever the pieces in which their bytes arrive."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from execsrv._log.entries import Gap
from execsrv.client.inbox import PARTS, Inbox, Part
from execsrv.client.parameters import Data
from execsrv.errors import InvalidParamsError, LimitExceededError
from execsrv.limits import MIB
from execsrv.protocol import Chunk

MAX_LINE_BYTES = 1 * MIB
"""The longest line, unless its reader says otherwise."""


class TextMode(NamedTuple):
    """The way from bytes to text, as `bytes.decode` has it."""

    encoding: str = "utf-8"
    errors: str = "strict"

    def forgiving(self) -> TextMode:
        """Return the way that replaces what does not decode, where this one would refuse it."""
        return self._replace(errors="replace") if self.errors == "strict" else self


def text_mode(text: bool | None, encoding: str | None, errors: str | None) -> TextMode | None:
    """Return how text is asked for, None where bytes are. Raises `InvalidParamsError` for an unknown word."""
    if text is not None and not isinstance(text, bool):
        raise InvalidParamsError(f"text must be True or False, got {text!r}", field="text")
    if text is None and encoding is None and errors is None:
        return None
    if text is False:
        if encoding is not None or errors is not None:
            word = "errors" if encoding is None else "encoding"
            raise InvalidParamsError(f"{word} is for text, and text is False", field=word)
        return None
    mode = TextMode(*(TextMode()[n] if word is None else word for n, word in enumerate((encoding, errors))))
    try:
        "x".encode(mode.encoding)
    except (LookupError, TypeError, ValueError):
        raise InvalidParamsError(f"unknown encoding {mode.encoding!r}", field="encoding") from None
    try:
        codecs.lookup_error(mode.errors)
    except (LookupError, TypeError, ValueError):
        raise InvalidParamsError(f"errors: unknown way {mode.errors!r} to decode errors", field="errors") from None
    return mode


def process_text(text: bool | None, encoding: str | None, errors: str | None) -> TextMode | None:
    """Return how text of a process is asked for, which comes and goes in pieces, None where bytes are.

    Raises `InvalidParamsError` for an encoding that begins each piece with a byte order mark, or whose bytes mean
    something else behind others.
    """
    mode = text_mode(text, encoding, errors)
    if mode is not None and "".encode(mode.encoding):
        message = f"encoding: a process needs one without a byte order mark, such as utf-16-le, got {mode.encoding!r}"
        raise InvalidParamsError(message, field="encoding")
    if mode is not None and _has_state(mode.encoding):
        message = f"encoding: a process needs one without a shift state, such as utf-8, got {mode.encoding!r}"
        raise InvalidParamsError(message, field="encoding")
    return mode


def _has_state(encoding: str) -> bool:
    """Return whether what bytes mean depends on those before them: no rest of such a text can be read by itself."""
    try:
        return "\u4e2d\u4e2d".encode(encoding) != 2 * "\u4e2d".encode(encoding)
    except UnicodeError:
        return False


def as_bytes(data: Data | str | None, mode: TextMode | None, name: str = "input") -> Data | None:
    """Return input as bytes. Raises `TypeError` for what is none, and for text where that was not asked for."""
    if isinstance(data, str) and mode is not None:
        try:
            return data.encode(mode.encoding, mode.errors)
        except UnicodeEncodeError as error:
            raise InvalidParamsError(f"{name} cannot be written as {mode.encoding}: {error}", field=name) from None
    if not isinstance(data, bytes | bytearray | memoryview | None):
        wanted = "bytes" if mode is None else "bytes or a string"
        hint = " (or text=True)" if isinstance(data, str) else ""
        raise TypeError(f"{name} must be {wanted}, got {type(data).__name__}{hint}")
    return data


def decoded(data: bytes, mode: TextMode, where: str) -> str:
    r"""Return bytes as text, with "\n" as the end of all lines. Raises `UnicodeDecodeError`, naming their source."""
    try:
        text = data.decode(*mode)
    except UnicodeDecodeError as error:
        error.reason = f"{error.reason} in {where}; errors='replace' reads it"
        raise
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def split_lines(text: str) -> list[str]:
    """Return the lines of text, without their ends; the last one needs none."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


class Decoder:
    """Decodes the pieces of one stream. What is no character yet stays where it was."""

    def __init__(self, mode: TextMode, where: str) -> None:
        self._mode = mode
        self._where = where
        self._decoder = codecs.getincrementaldecoder(mode.encoding)(mode.errors)

    def decode(self, data: bytes, final: bool = False) -> tuple[str, bytes]:
        """Return text, and the bytes behind it that begin a character. Raises `UnicodeDecodeError`, and forgets all."""
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            self._decoder.reset()
            error.reason = f"{error.reason} in {self._where}; errors='replace' reads it"
            raise
        pending, state = self._decoder.getstate()
        if pending:
            self._decoder.setstate((b"", state))
        return text, pending


class LineTaker:
    """Takes whole lines out of an inbox, of one stream or of both, each in one piece."""

    def __init__(self, inbox: Inbox, part: Part | None, mode: TextMode, most: int, id: str) -> None:
        if "\n".encode(mode.encoding) != b"\n":
            message = f"encoding: lines need one in which a line ends with one byte, got {mode.encoding!r}"
            raise InvalidParamsError(message, field="encoding")
        self._inbox = inbox
        self._parts = PARTS if part is None else (part,)
        self._most = most
        self._decoders = {each: Decoder(mode, f"{each} of process {id}") for each in self._parts}
        self._id = id
        self._last: tuple[Chunk, bytes] | None = None

    @property
    def last(self) -> Chunk:
        """The bytes of the line that was taken last, to be given back."""
        assert self._last is not None
        first, data = self._last
        return Chunk(first.seq, first.stream, data, first.at_ms)

    @property
    def is_before_gap(self) -> bool:
        """True where output is missing next."""
        return any(
            entries and isinstance(entries[0], Gap)
            for entries in (self._inbox.queues[part].entries for part in self._parts)
        )

    def take(self) -> str | Gap | None:
        """Return the next line without its end, or a gap in front of it; None while there is none.

        Raises `LimitExceededError` and `UnicodeDecodeError`; the line is then still there, to be read in another way.
        """
        queues = self._inbox.queues
        parts = [part for part in self._parts if queues[part].entries]
        if len(parts) > 1:
            parts.sort(key=lambda part: queues[part].first or 0)
        for part in parts:
            first = queues[part].entries[0]
            try:
                data = self._inbox.take_line(part, self._most)
            except ValueError:
                message = f"{part} of process {self._id} has a line of more than max_bytes ({self._most})"
                raise LimitExceededError(message, limit="max_bytes", value=self._most, field="max_bytes") from None
            if data is None:
                continue
            if isinstance(data, Gap) or isinstance(first, Gap):
                return data if isinstance(data, Gap) else None
            try:
                text, pending = self._decoders[part].decode(data)
                if pending:  # the last line, or one before a gap
                    text += self._decoders[part].decode(pending, final=True)[0]
            except UnicodeDecodeError:
                self._inbox.give_back(Chunk(first.seq, first.stream, data, first.at_ms))
                raise
            self._last = first, data
            return text[:-2] if text.endswith("\r\n") else text[:-1] if text.endswith(("\n", "\r")) else text
        return None

    def make_room(self) -> None:
        """Let more of a line come than fits into the window."""
        for part in self._parts:
            self._inbox.credit(part)


class TextTaker:
    """Takes characters out of an inbox as they come, of one stream or of both."""

    def __init__(self, inbox: Inbox, part: Part | None, mode: TextMode, id: str) -> None:
        self._inbox = inbox
        self._parts = PARTS if part is None else (part,)
        self._decoders = {each: Decoder(mode, f"{each} of process {id}") for each in self._parts}
        self.last = Chunk(0, "stdout", b"")
        """The bytes of the text that was taken last, to be given back."""

    def take(self) -> str | Gap | None:
        """Return what has come as far as it is whole characters, or a gap in front of it; None while there is none.

        Raises `UnicodeDecodeError`; what does not decode is then still there.
        """
        queues = self._inbox.queues
        for part in sorted(self._parts, key=lambda part: queues[part].first or 0):
            text = self._take(part)
            if text:
                return text
            if (entries := queues[part].entries) and isinstance(entries[0], Gap):
                return self._inbox.take_bytes(part, 0)  # type: ignore[return-value]  # it is the gap
        return None

    def _take(self, part: Part) -> str:
        entries, decoder = self._inbox.queues[part].entries, self._decoders[part]
        text, data, whole = "", b"", b""
        first: Chunk | None = None
        try:
            while not text and entries and isinstance(entries[0], Chunk):
                taken = self._inbox.take(part)
                assert isinstance(taken, Chunk)
                first = taken
                whole += first.chunk
                data += first.chunk
                text, data = decoder.decode(data)
            if data and (entries or self._inbox.closed) and not (entries and isinstance(entries[0], Chunk)):
                text, data = text + decoder.decode(data, final=True)[0], b""
        finally:
            if first is not None:
                self.last = Chunk(first.seq, first.stream, whole[: len(whole) - len(data)], first.at_ms)
                if data:
                    self._inbox.give_back(Chunk(first.seq, first.stream, data, first.at_ms))
        return text
