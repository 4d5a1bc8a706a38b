"""Reads the words of a command line by the register.

Commands that somebody waits for are read here, and those that may be where no typer is: `_OWN_PARSER` in `_cli.app`.
The daemon starts in little more than the time of trio, and half as much again would go into what typer loads. All other
commands are read by typer (`_cli.typer_parsing`). What the words mean is one for both: `settled`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from execsrv._cli.register.kinds import TRUTH, Argument, Command, Kind, Option
from execsrv._cli.usage import UsageError, unknown

HELP = ("-h", "--help")

Given = dict[str, list[Any]]
"""What was given, by the first name of each option, and by the name of each argument."""


class HelpWantedError(Exception):
    """The user asks for help, and for nothing else."""


def parsed(command: Command, words: Sequence[str]) -> dict[str, Any]:
    """Return the options and arguments by their keys. Raises `UsageError` and `HelpWantedError`."""
    by_name = command.by_name
    given: Given = {}
    rest: list[str] = []
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        if rest and not command.mixed:
            rest += [word, *reversed(waiting)]
            break
        if word == "--":
            rest += reversed(waiting)
            break
        if word.startswith("--"):
            name, has_value, value = word.partition("=")
            _take(given, by_name, name, value if has_value else None, waiting)
        elif word.startswith("-") and word != "-":
            _take_letters(given, by_name, word, waiting)
        else:
            rest.append(word)
    return settled(command, given | _arguments(command, rest), os.environ)


def _take(
    given: Given,
    by_name: Mapping[str, Option],
    name: str,
    value: str | None,
    waiting: list[str],
) -> None:
    if name in HELP:
        raise HelpWantedError
    option = by_name.get(name)
    if option is None:
        raise unknown("option", name, [*by_name, *HELP])
    if option.kind is None:
        if value is not None:
            raise UsageError(f"`{name}` takes no value")
        given.setdefault(option.names[0], []).append(False if name == option.off else option.value)
        return
    if value is None:
        if not waiting:
            raise UsageError(f"`{name}` needs a value: {option.kind.metavar}")
        value = waiting.pop()
    given.setdefault(option.names[0], []).append(value)


def _take_letters(given: Given, by_name: Mapping[str, Option], word: str, waiting: list[str]) -> None:
    """Take options of one letter each, the last of which may have its value in the same word."""
    for place in range(1, len(word)):
        name, rest = f"-{word[place]}", word[place + 1 :]
        if name not in by_name and name not in HELP and len(word) > 2 and place == 1:
            raise unknown("option", word, by_name)
        takes_value = name in by_name and by_name[name].kind is not None
        _take(given, by_name, name, rest.removeprefix("=") if takes_value and rest else None, waiting)
        if takes_value:
            return


def _arguments(command: Command, rest: list[str]) -> Given:
    """Return the words of each argument. One that takes many leaves to those behind it what they need."""
    given: Given = {}
    for number, argument in enumerate(command.arguments):
        behind = sum(other.needed for other in command.arguments[number + 1 :])
        count = max(0, len(rest) - behind) if argument.many else min(1, len(rest))
        given[argument.name], rest = list(rest[:count]), rest[count:]
        if argument.needed and not given[argument.name]:
            raise UsageError(f"{argument.label} is missing")
    if rest:
        raise UsageError(f"nothing takes `{rest[0]}`")
    return given


def settled(command: Command, given: Given, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the values by key: what was given, else what a variable gives, else the default. Raises `UsageError`."""
    values: dict[str, Any] = {option.key: option.nothing for option in command.options}
    for option in command.options:
        found = given.get(option.names[0], [])
        source, kind = option.names[0], option.kind
        if not found and option.variable and environ.get(option.variable):
            found, source, kind = [environ[option.variable]], option.variable, kind or TRUTH
        if found:
            read = [text if kind is None else _read(kind, text, source) for text in found]
            values[option.key] = tuple(read) if option.many else read[-1]
    for argument in command.arguments:
        words = [_read(argument.kind, text, argument.name) for text in given.get(argument.name, [])]
        values[argument.key] = _value_of(argument, words)
    return values


def _value_of(argument: Argument, words: list[Any]) -> Any:
    if argument.many:
        return tuple(words)
    return words[0] if words else None


def _read(kind: Kind, text: str, source: str) -> Any:
    try:
        return kind.read(text)
    except ValueError:
        raise UsageError(f"cannot take `{text}` for {source}: expected {kind.expected or kind.metavar}") from None
