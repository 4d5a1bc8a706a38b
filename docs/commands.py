"""Writes the reference of command-line.md, and the manual page, from the register: `python docs/commands.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from execsrv._cli.help import described, sections
from execsrv._cli.man import roff
from execsrv._cli.register import commands
from execsrv._cli.register.kinds import Command

PAGE = Path(__file__).with_name("command-line.md")
MANUAL = Path(__file__).with_name("execsrv.1")
MARK = "<!-- reference -->\n"


def written(page: str) -> str:
    """Return the page with its reference as it should be."""
    return page.partition(MARK)[0] + MARK + "".join(f"\n{reference(command)}" for command in commands())


def reference(command: Command) -> str:
    """Return the section of a command."""
    lines = [f"### {command.name}", "", "```text", command.usage_line, "```", ""]
    for paragraph in command.text.split("\n\n"):
        lines += [paragraph, ""]
    if command.examples:
        lines += ["```sh", *(f"{example.line}  # {example.meaning}" for example in command.examples), "```", ""]
    lines += _options(command)
    return "\n".join(lines).rstrip("\n") + "\n"


def _options(command: Command) -> Iterator[str]:
    found = list(sections(command))
    if command.name == "serve":
        yield "Beside these options there is one for [every setting](configuration.md#all-settings)."
        yield ""
        found = found[:1]
    yield "| option | meaning |"
    yield "| --- | --- |"
    for _, options in found:
        for option in options:
            yield f"| `{option.label.replace('|', chr(92) + '|')}` | {described(option).replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
    MANUAL.write_text(roff())
