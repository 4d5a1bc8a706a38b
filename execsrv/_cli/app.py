"""The command line: finds the command in the register, has its words read, and calls the function that does it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from execsrv._cli.parsing import HELP, HelpWantedError
from execsrv._cli.register import GROUPS, command, names
from execsrv._cli.register.kinds import USAGE, Command
from execsrv._cli.streams import open_missing, say, write_line
from execsrv._cli.usage import UsageError, unknown

_OWN_PARSER = (
    *("serve", "run", "init", "shell", "ps", "logs", "attach", "wait", "kill", "cp"),
    *("files ls", "files cat", "files edit", "bridge", "runner"),
)
"""Those that are read without typer: somebody waits for them again and again, and what typer loads would be a third of
their time. A bridge and a runner are where no typer may be: execsrv was brought along."""


def main() -> None:
    """The console script."""
    open_missing()
    raise SystemExit(called(sys.argv[1:]))


def called(words: Sequence[str]) -> int:
    """Do what a command line says; return the exit status."""
    place = ""
    try:
        if not words or words[0] in (*HELP, "help"):
            return _show_help(words[1:] if words else None)
        if words[0] == "--version":
            from execsrv._version import __version__

            return _printed(f"execsrv {__version__}")
        if words[0] == "_complete":
            from execsrv._cli.completion import complete

            return complete(words[1:])
        place = f"{words[0]} " if words[0] in GROUPS else ""
        name, rest = _found(words)
    except UsageError as error:
        say(f"execsrv: {error}; see `execsrv {place}--help`")
        return USAGE
    if name in GROUPS:
        return _show_help([name])
    return _run(command(name), rest)


def _found(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the name of the command, or of a group whose help is wanted, and the words behind it."""
    first, known = words[0], names()
    if first in known:
        return first, words[1:]
    if first not in GROUPS:
        firsts = [*dict.fromkeys(name.partition(" ")[0] for name in known), "--version", *HELP]
        raise unknown("option" if first.startswith("-") else "command", first, firsts)
    if len(words) < 2 or words[1] in HELP:
        return first, ()
    if (name := f"{first} {words[1]}") not in known:
        own = [name.partition(" ")[2] for name in known if name.startswith(f"{first} ")]
        raise unknown(f"command of `{first}`", words[1], own)
    return name, words[2:]


def _run(found: Command, words: Sequence[str]) -> int:
    try:
        if found.name in _OWN_PARSER:
            from execsrv._cli.parsing import parsed
        else:
            from execsrv._cli.typer_parsing import parsed
        values: dict[str, Any] = parsed(found, words)
        module, _, name = found.handler.partition(":")
        handler = getattr(import_module(f"execsrv._cli.{module}"), name)
        gc.freeze()  # what is there now stays: to look at it again and again would hold up everybody
        gc.enable()
        if not found.raw:
            from execsrv._cli.calling import done

            return done(found, handler, values)
        status: int = handler(**values)
        return status
    except HelpWantedError:
        return _show_help([found.name])
    except UsageError as error:
        say(f"execsrv: {' '.join(str(error).split())}; see `execsrv {found.name} --help`")
        return found.usage


def _show_help(words: Sequence[str] | None) -> int:
    """Print the help of a command, or of all. Without words at all it was not asked for."""
    from execsrv._cli.help import columns, command_help, group_help, is_colored, overview

    width, colored = columns(), is_colored(1)
    if not words:
        _printed(overview(width, colored=colored).rstrip("\n"))
        return USAGE if words is None else 0
    name = words[0] if words[0] in GROUPS and len(words) == 1 else _found(words)[0]
    if name in GROUPS:
        return _printed(group_help(name, width, colored=colored).rstrip("\n"))
    return _printed(command_help(command(name), width, colored=colored).rstrip("\n"))


def _printed(text: str) -> int:
    """Print a text for which nobody waits longer than he reads it."""
    write_line(1, text.encode(errors="backslashreplace"))
    return 0
