"""Manners of a command that says things: results on stdout, everything else on stderr, as much as was asked for."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import msgspec

from execsrv._cli.help import is_colored
from execsrv._cli.streams import escaped, say
from execsrv._wire.writing import write_all

_COLORS = {"green": "32", "yellow": "33"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Manners(NamedTuple):
    """The options of how much a command says, and in which form."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    def note(self, text: str) -> None:
        """Say something for people, unless they want to hear nothing."""
        if not self.quiet:
            say(f"execsrv: {text}")


def print_text(text: str) -> None:
    """Print a result. Raises `OSError`, `BrokenPipeError` among them."""
    write_all(1, text.encode(errors="surrogateescape"))


def print_json(value: Any) -> None:
    """Print a result as JSON: on a terminal for people to read, elsewhere in one line."""
    text = msgspec.json.encode(value)
    write_all(1, (msgspec.json.format(text) if os.isatty(1) else text) + b"\n")


def colored(text: str, color: str, descriptor: int = 1) -> str:
    """Return a text in a color, where the stream is a terminal that takes it."""
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m" if is_colored(descriptor) else text


def one_line(text: str) -> str:
    """Return a text with nothing in it that could end a line, or move the cursor."""
    return escaped(text)


def size(number: float) -> str:
    """Return bytes as people write them."""
    for unit in _UNITS:
        if abs(number) < 1024 or unit == _UNITS[-1]:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError


def span(seconds: float) -> str:
    """Return a time as people write it, in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit, smaller, length, part in (("m", "s", 60, 1), ("h", "m", 3600, 60), ("d", "h", 86400, 3600)):
        if whole < length * (60 if unit == "m" else 24) or unit == "d":
            return f"{whole // length} {unit} {whole % length // part} {smaller}"
    raise AssertionError
