"""The keywords of a start that `run`, and what runs many, take too, and the refusal of those that they do not."""

from __future__ import annotations

from collections.abc import Iterable

from execsrv.client.keywords import RunKeywords, StartKeywords

START_WORDS = StartKeywords.__optional_keys__
"""Words that `Client.run` passes on to `start`."""

RUN_WORDS = RunKeywords.__optional_keys__ | {"input", "text", "encoding", "errors"}
"""Words of `Client.run`."""

MAP_WORDS = RUN_WORDS - {"record"}
"""Words of `Client.map`: of one recording, each command would write its own."""

_OF_START_ALONE = {"end_with_leader", "id", "key"}


def refused(call: str, words: Iterable[str]) -> TypeError:
    """Return the error for the first of some words that `run`, or what runs many, does not take."""
    word = min(words)
    if word == "stdin":
        return TypeError(f"{call}() takes no 'stdin': what a command reads is the 'input' of run()")
    of_start = ", which only start() has" if word in _OF_START_ALONE else ""
    if word == "record":
        return TypeError(f"{call}() takes no 'record': one file is no recording of many commands")
    return TypeError(f"{call}() got an unexpected keyword argument {word!r}{of_start}")
