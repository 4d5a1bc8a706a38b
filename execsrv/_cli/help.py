"""The help of the commands, made from the register: never wider than 80 columns, and never cut."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator

from execsrv._cli.register import GROUPS, commands
from execsrv._cli.register.kinds import Command, Option

MOST_COLUMNS = 80
_LEAST_COLUMNS = 40
_LABEL_COLUMNS = 26

ABOUT = "Run commands for other programs: start them, stream their output, and leave nothing behind."


def columns() -> int:
    """Return the width of a help text on this terminal."""
    return max(_LEAST_COLUMNS, min(MOST_COLUMNS, shutil.get_terminal_size((MOST_COLUMNS, 24)).columns))


def is_colored(descriptor: int) -> bool:
    """Tell whether the stream is a terminal that takes colors, and nobody has asked for none (`NO_COLOR`)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return os.isatty(descriptor)


class _Text:
    """A text in paragraphs, sections and lists, so wide and no wider."""

    def __init__(self, width: int, colored: bool) -> None:
        self._lines: list[str] = []
        self._width = width
        self._colored = colored

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def heading(self, text: str) -> None:
        self._lines += [*([""] if self._lines else []), f"\x1b[1m{text}\x1b[0m" if self._colored else text]

    def paragraph(self, text: str, indent: str = "  ", further: str | None = None) -> None:
        more = indent if further is None else further
        self._lines += textwrap.wrap(
            text, self._width, initial_indent=indent, subsequent_indent=more, break_on_hyphens=False
        ) or [""]

    def line(self, text: str) -> None:
        self._lines.append(text)

    def gap(self) -> None:
        self._lines.append("")

    def entry(self, label: str, text: str, label_columns: int = _LABEL_COLUMNS) -> None:
        """Add a label, and what it means beside it, or below where the label is long."""
        indent = " " * (label_columns + 2)
        if len(label) > label_columns - 2:
            self.paragraph(label, "  ", "      ")
            self.paragraph(text, indent)
        else:
            self.paragraph(text, f"  {label:{label_columns}}", indent)


def command_help(command: Command, width: int, *, colored: bool = False) -> str:
    """Return the help of one command."""
    text = _Text(width, colored)
    text.paragraph(f"Usage: {command.usage_line}", "", "       ")
    for paragraph in command.text.split("\n\n"):
        text.gap()
        text.paragraph(plain(paragraph))
    if command.examples:
        text.heading("Examples:")
        for example in command.examples:
            text.paragraph(example.line, "  $ ", "      ")
            text.paragraph(plain(example.meaning), "      ")
    for title, options in sections(command):
        text.heading(f"{title}:")
        for option in options:
            text.entry(option.label, described(option))
    return str(text)


def sections(command: Command) -> Iterator[tuple[str, list[Option]]]:
    """Yield the options of a command by their section, that of the command's own first."""
    found: dict[str, list[Option]] = {"Options": []}
    for option in command.options:
        found.setdefault(option.title, []).append(option)
    found["Options"].append(Option(("--help", "-h"), "Show this help, and end."))
    yield from found.items()


def described(option: Option) -> str:
    """Return the meaning of an option, with its default and its variable where they are not in the text."""
    text = plain(option.help)
    if option.default not in (None, 0) and not option.many:
        text += (
            f" [default: {option.default:g}]" if isinstance(option.default, float) else f" [default: {option.default}]"
        )
    if option.variable and option.variable not in text:
        text += f" [{option.variable}]"
    if option.many and "Repeatable" not in text:
        text += " Repeatable."
    return text


def overview(width: int, *, colored: bool = False) -> str:
    """Return the help of the whole command line."""
    text = _Text(width, colored)
    text.line("Usage: execsrv COMMAND [OPTION]...")
    text.gap()
    text.paragraph(ABOUT)
    text.heading("Commands:")
    groups: set[str] = set()
    for command in commands():
        group, _, rest = command.name.partition(" ")
        if not rest:
            text.entry(command.name, command.summary, 14)
        elif group not in groups:
            groups.add(group)
            text.entry(group, GROUPS[group], 14)
    text.heading("Options:")
    text.entry("--help, -h", "Show this help, and end. `execsrv COMMAND --help` shows that of a command.", 14)
    text.entry("--version", "Print the version, and end.", 14)
    text.heading("Examples:")
    for line in (
        "execsrv run --timeout 5m -- make check",
        "execsrv serve --listen unix://",
        "execsrv run --url ssh://build -t -- bash",
    ):
        text.line(f"  $ {line}")
    return str(text)


def group_help(group: str, width: int, *, colored: bool = False) -> str:
    """Return the help of the commands that begin with a word."""
    text = _Text(width, colored)
    text.line(f"Usage: execsrv {group} COMMAND [OPTION]...")
    text.gap()
    text.paragraph(GROUPS[group])
    text.heading("Commands:")
    for command in commands():
        if command.name.startswith(f"{group} "):
            text.entry(command.name.partition(" ")[2], command.summary, 14)
    return str(text)


def plain(text: str) -> str:
    """Return a text of the register as it is shown on a terminal: in one line, its backticks as they are."""
    return " ".join(text.split())
