"""`execsrv man`: the manual page, made from the register."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from execsrv._cli.help import ABOUT, described, sections
from execsrv._cli.interrupts import left_to_another
from execsrv._cli.manners import print_text
from execsrv._cli.register import commands
from execsrv._cli.register.kinds import Command
from execsrv._version import __version__

_STATUSES = (
    ("124", "The time of a command was over."),
    ("125", "execsrv itself failed, or cannot read the command line."),
    ("126", "The program cannot be executed."),
    ("127", "The program was not found."),
    ("128+N", "The command died of signal N."),
)
_VARIABLES = (
    ("EXECSRV_URL", "The server of all commands that ask one."),
    ("EXECSRV_TOKEN, EXECSRV_TOKEN_FILE", "The token for it, or the file that has it."),
    ("EXECSRV_CONFIG", "The file of settings of `serve`."),
    ("EXECSRV_NAME", "For `serve`: the setting NAME, such as EXECSRV_MAX_CONNECTIONS."),
    ("NO_COLOR", "Where it is not empty, nothing is colored."),
)


def man(*, source: bool) -> int:
    """Show the page where there is somebody who reads it, and print its source elsewhere."""
    page = roff()
    if os.isatty(1) and not source and (program := shutil.which("man")):
        with left_to_another():
            return subprocess.run([program, "-l", "-"], input=page.encode()).returncode
    print_text(page)
    return 0


def roff() -> str:
    """Return the page in the language of man(7)."""
    lines = [
        f'.TH EXECSRV 1 "" "execsrv {__version__}" "User Commands"',
        ".SH NAME",
        "execsrv \\- run commands for other programs",
        ".SH SYNOPSIS",
        ".B execsrv",
        "\\fICOMMAND\\fR [\\fIOPTION\\fR]...",
        ".SH DESCRIPTION",
        _text(ABOUT),
        ".SH COMMANDS",
    ]
    for command in commands():
        lines += _command(command)
    lines.append(".SH EXIT STATUS")
    for label, meaning in _STATUSES:
        lines += [".TP", f".B {_text(label)}", _text(meaning)]
    lines.append(".SH ENVIRONMENT")
    for label, meaning in _VARIABLES:
        lines += [".TP", f".B {_text(label)}", _text(meaning)]
    return "\n".join(lines) + "\n"


def _command(command: Command) -> list[str]:
    lines = [f".SS {_text(command.usage_line)}"]
    for paragraph in command.text.split("\n\n"):
        lines += [_text(" ".join(paragraph.split())), ".PP"]
    for _, options in sections(command):
        for option in options:
            lines += [".TP", f".B {_text(option.label)}", _text(described(option))]
    lines.append(".PP")
    if command.examples:
        lines += ["Examples:", ".RS"]
        for example in command.examples:
            lines += [".PP", f".B {_text(example.line)}", ".br", _text(example.meaning)]
        lines.append(".RE")
    return lines


def _text(text: str) -> str:
    """Return a text that roff sets as it is, with `code` in bold."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    escaped = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
