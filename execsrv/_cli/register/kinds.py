"""The words that describe a command line: commands, options, arguments, and the kinds of values. Pure: no I/O."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Struct

OWN_FAILURE = 125
"""The exit status when execsrv itself failed, as in env(1) and docker-run(1)."""

USAGE = 2
"""The exit status of a wrong command line, where no command is run whose status could be taken for it."""

_SPAN = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ms|s|m|h|d)?"
_SIZE = r"([0-9]{1,15})(?: ?(KiB|MiB|GiB))?"
_SIZE_BYTES = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SPAN_SECONDS = {"ms": 0.001, None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Kind(Struct, frozen=True):
    """The values that an option takes. `read` turns a text into one, and raises `ValueError` for another text."""

    metavar: str
    read: Callable[[str], Any]
    expected: str = ""
    """The values, for people."""
    complete: str = ""
    """What completes it in a shell: "files", "directories", "variables", or words with spaces between."""


def _seconds(text: str) -> float:
    found = re.fullmatch(_SPAN, text)
    if found is None:
        raise ValueError
    return float(found[1]) * _SPAN_SECONDS[found[2]]


def _some_seconds(text: str) -> float:
    if not (seconds := _seconds(text)):
        raise ValueError
    return seconds


def _bytes(text: str) -> int:
    found = re.fullmatch(_SIZE, text)
    if found is None:
        raise ValueError
    return int(found[1]) * _SIZE_BYTES[found[2]]


def _moment(text: str) -> float:
    if re.fullmatch(_SPAN, text) is not None:
        return time.time() - _seconds(text)
    return datetime.fromisoformat(text).timestamp()


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError
    return int(text)


def _factor(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text) or not float(text):
        raise ValueError
    return float(text)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError
    return text.lower() in ("true", "1")


def _label(text: str) -> tuple[str, str]:
    name, has_value, value = text.partition("=")
    if not name or not has_value:
        raise ValueError
    return name, value


TEXT = Kind("TEXT", str)
TRUTH = Kind("true|false", _truth, "true or false")
LABEL = Kind("NAME=VALUE", _label, "a label such as `gpu=1`")
FILE = Kind("FILE", str, complete="files")
DIRECTORY = Kind("DIR", str, complete="directories")
SPAN = Kind("TIME", _seconds, "a time such as `5`, `5s`, `1m` or `2h`")
SOME_TIME = Kind("TIME", _some_seconds, "a time above 0, such as `5`, `5s`, `1m` or `2h`")
SIZE = Kind("SIZE", _bytes, "bytes, or a size such as `64MiB` or `2GiB`")
PERCENT = Kind("PERCENT", lambda text: _count(text.removesuffix("%")), "a percentage such as `50%`")
NUMBER = Kind("N", _count, "a whole number of 0 or more")
FACTOR = Kind("N", _factor, "a number above 0")


def named(metavar: str, kind: Kind = TEXT, complete: str | None = None) -> Kind:
    """Return a kind under another name."""
    return Kind(metavar, kind.read, kind.expected, kind.complete if complete is None else complete)


def moment() -> Kind:
    """Return the kind of a time of the calendar, in seconds since 1970. A span is so long ago."""
    return Kind("TIME", _moment, "a time such as `5m`, which is so long ago, or `2027-01-31T12:00`")


def choice(*words: str) -> Kind:
    """Return the kind of one of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return Kind("|".join(words), read, " or ".join(f"`{word}`" for word in words), " ".join(words))


class Option(Struct, frozen=True):
    """One option. Without a kind it is a switch, which gives `value`."""

    names: tuple[str, ...]
    help: str
    kind: Kind | None = None
    many: bool = False
    """It may be repeated, and gives a tuple."""
    default: Any = None
    variable: str | None = None
    """The environment variable that gives it, where the option does not: `true` or `false` for a switch. An empty one
    gives nothing."""
    dest: str = ""
    value: Any = True
    off: str = ""
    """The name that turns a switch off."""
    title: str = "Options"
    """The section of the help that it stands in."""

    @property
    def key(self) -> str:
        """The name of the parameter that gets it."""
        return self.dest or max(self.names, key=len).lstrip("-").replace("-", "_")

    @property
    def label(self) -> str:
        """The names and the metavar, for people."""
        names = " / ".join(filter(None, (", ".join(self.names), self.off)))
        return f"{names} {self.kind.metavar}" if self.kind else names

    @property
    def nothing(self) -> Any:
        """The value where it is not given."""
        if self.many:
            return ()
        return False if self.kind is None and self.value is True and not self.off else self.default


class Argument(Struct, frozen=True):
    """A word behind the options. `many` takes all the rest, as a tuple."""

    name: str
    kind: Kind = TEXT
    many: bool = False
    needed: bool = True
    dest: str = ""

    @property
    def key(self) -> str:
        """The name of the parameter that gets it."""
        return self.dest or self.name.lower()

    @property
    def label(self) -> str:
        """The name for people."""
        text = self.name + ("..." if self.many else "")
        return text if self.needed else f"[{text}]"


class Example(Struct, frozen=True):
    """A line for a shell, and what it does."""

    line: str
    meaning: str


class Command(Struct, frozen=True):
    """One command. `handler` is the function that does it, as `module:name` below `execsrv._cli`.

    It gets each option and argument by its key, and returns the exit status.
    """

    name: str
    summary: str
    """One line."""
    text: str
    """Paragraphs, with an empty line between them. `code` stands in backticks."""
    handler: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    examples: tuple[Example, ...] = ()
    failure: int = OWN_FAILURE
    """The exit status when it failed."""
    usage: int = OWN_FAILURE
    """The exit status of a wrong command line."""
    mixed: bool = True
    """Options may follow arguments."""
    hidden: bool = False
    raw: bool = False
    """Its function takes each option by its name, and not those of reaching a server as one `reach`, those of what is
    said as one `manners`."""

    @property
    def by_name(self) -> dict[str, Option]:
        """The options by each of their names."""
        return {name: option for option in self.options for name in (*option.names, *filter(None, [option.off]))}

    @property
    def usage_line(self) -> str:
        """The shape of its command line."""
        return " ".join(["execsrv", self.name, "[OPTION]...", *(argument.label for argument in self.arguments)])
