"""Mistakes in a command line: said in one line, with what was meant, as far as that can be told."""

from __future__ import annotations

from collections.abc import Iterable


class UsageError(Exception):
    """A command line that means nothing."""


def meant(word: str, known: Iterable[str]) -> str:
    """Return a hint at the words that were meant, empty where none is near."""
    from difflib import get_close_matches  # only errors pay for it

    by_letters = {name.lstrip("-"): name for name in known}  # dashes, which all options share, make nothing similar
    close = get_close_matches(word.lstrip("-"), list(by_letters), 2, 0.6)
    return f"did you mean {' or '.join(f'`{by_letters[match]}`' for match in close)}?" if close else ""


def unknown(what: str, word: str, known: Iterable[str]) -> UsageError:
    """Return the error for a word that is none of those known."""
    hint = meant(word, known)
    return UsageError(f"unknown {what} `{word}`{f': {hint}' if hint else ''}")
