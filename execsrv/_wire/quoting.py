"""A peer's own words in errors and in the log: cut, and without anything that a terminal or a log takes for its own."""

from __future__ import annotations

_CHARACTERS = 60


def quoted(text: str, most: int = _CHARACTERS) -> str:
    """Return the beginning of a text in backquotes, with what is not printable escaped."""
    shown = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text[:most])
    return f"`{shown}...`" if len(text) > most else f"`{shown}`"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
