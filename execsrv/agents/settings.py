"""Bounds of an agent's tools. Each field says its unit; numbers of tokens are taken for four bytes each."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from execsrv.errors import InvalidParamsError

BYTES_PER_TOKEN = 4


class ToolSettings(Struct, frozen=True, kw_only=True):
    """Bounds of the tools of one agent, and their defaults."""

    max_sessions: int = 64
    """Sessions that are known at a time. Above it the oldest that has ended is forgotten; where all go on, another
    start is refused: none of them is ended for it."""
    retained_bytes: int = 1024 * 1024
    """Output of one session that `read` can give, the newest."""
    max_output_bytes: int = 40_000
    """Output in one answer, where a call does not ask for more or less."""
    most_output_bytes: int = 256 * 1024
    """Output in one answer, whatever a call asks for. It is what one session keeps of what no answer had."""
    exec_yield_ms: int = 10_000
    """Window of `exec_command`, where a call does not say."""
    write_yield_ms: int = 250
    """Window of `write_stdin` with something to write, where a call does not say."""
    poll_yield_ms: int = 5_000
    """Window of `write_stdin` with nothing to write, where a call does not say."""
    max_yield_ms: int = 50_000
    """Longest window. Many hosts give up a call after 60 s, and with it all that it would have told."""
    remembered_ends: int = 1024
    """Sessions that are forgotten, and of which it stays known how they ended."""
    strip_controls: bool = True
    """Leave colours, cursor movements and other control characters out of the text. A screen has them in any case."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InvalidParamsError(f"{field.name} must be a number above 0, got {value!r}", field=field.name)

    def window(self, asked: int | None, default: int) -> float:
        """Return the length of a window in seconds."""
        if asked is None:
            asked = default
        elif not isinstance(asked, int) or isinstance(asked, bool) or asked < 0:
            message = f"yield_time_ms must be a number of milliseconds, got {asked!r}"
            raise InvalidParamsError(message, field="yield_time_ms")
        return min(asked, self.max_yield_ms) / 1000

    def answered_bytes(self, tokens: int | None, size: int | None) -> int:
        """Return the most bytes of one answer, of what a call asks for in tokens, bytes or not at all."""
        for name, value in (("max_output_tokens", tokens), ("max_output_bytes", size)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise InvalidParamsError(f"{name} must be at least 0, got {value!r}", field=name)
        asked = [most for most in (None if tokens is None else tokens * BYTES_PER_TOKEN, size) if most is not None]
        return min([*asked, self.most_output_bytes] if asked else [self.max_output_bytes, self.most_output_bytes])
