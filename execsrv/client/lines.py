"""Lines and characters in bytes that come in pieces. Pure: no I/O."""

from __future__ import annotations


def end_of_line(data: bytes, start: int, after: bytes | None) -> int | None:
    r"""Return where the line that begins at `start` ends, behind its "\n", "\r\n" or "\r", None where it goes on.

    `after` is the piece that follows, None where it is not known.
    """
    end = data.find(b"\n", start)
    bound = len(data) if end < 0 else end
    carriage = data.find(b"\r", start, bound)
    if carriage < 0:
        return None if end < 0 else end + 1
    if carriage + 1 < len(data):
        return end + 1 if carriage + 1 == end else carriage + 1
    if after is None or after.startswith(b"\n"):
        return None  # perhaps the first half of "\r\n", which is found with its second
    return carriage + 1
