"""The words of others in errors, in the log and in JSON.

Those of a peer are cut, and have nothing that a terminal or a log takes for its own; a path is text whatever is in it.
"""

from __future__ import annotations

import os
import re

_CHARACTERS = 60

_TOKEN = re.compile(r"exs_[\w-]+|eyJ[\w.-]+")
"""The tokens of a file begin so, and signed ones."""


def quoted(text: str, most: int = _CHARACTERS) -> str:
    """Return the beginning of a text in backquotes, with what is not printable escaped, and without tokens."""
    beginning = _TOKEN.sub("[token]", text[:most])
    words = "".join(letter if letter.isprintable() else _escaped(letter) for letter in beginning)
    return f"`{words}...`" if len(text) > most else f"`{words}`"


def shown(path: str) -> str:
    """Return a path, or a text with one in it, for errors and for people: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(path).decode(errors="replace")


def in_utf8(text: str) -> str:
    """Return a text that JSON can hold. A name of a file may be no UTF-8: where it is none, it has backslashes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
