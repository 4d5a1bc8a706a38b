"""Commands of any length and with any bytes, as words that a terminal passes on to a bash. Pure: no I/O."""

from __future__ import annotations

MAX_LINE_BYTES = 4095
"""The bytes of a line that a terminal passes on, unless its program edits lines itself. The kernel drops the others."""

_PIECE = 500
"""Bytes of a command in one line that is typed. Each has up to four characters."""

_PLAIN = {byte: chr(byte) for byte in range(0x20, 0x7F) if byte not in b"'\\!"}


def quoted(command: bytes) -> str:
    """Return a command as one word of bash, in short lines, without a byte that a terminal acts on.

    NULs are left out, as bash does it with what is typed.
    """
    data = command.replace(b"\0", b"")
    pieces = [data[at : at + _PIECE] for at in range(0, len(data) or 1, _PIECE)]
    return "\\\n".join("$'" + "".join(_PLAIN.get(byte, f"\\x{byte:02x}") for byte in piece) + "'" for piece in pieces)
