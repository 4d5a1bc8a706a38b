"""The register of all commands: from it come the parsers, the help, the man page, the documentation and completion.

A command is described once, in one of the modules beside this one, and done by one function elsewhere. Nothing here
loads what does the work: to look a command up is cheap.
"""

from __future__ import annotations

from importlib import import_module

from execsrv._cli.register.kinds import Command

_HOMES = {
    "serve": "serving",
    "run": "running",
    "init": "running",
    "map": "pools",
    "shell": "shells",
    "ps": "sessions",
    "logs": "sessions",
    "attach": "sessions",
    "wait": "sessions",
    "kill": "sessions",
    "cp": "files",
    "files ls": "files",
    "files cat": "files",
    "files edit": "files",
    "play": "files",
    "mcp": "agents",
    "doctor": "machine",
    "conformance": "checking",
    "limits": "machine",
    "bench": "machine",
    "token new": "tokens",
    "token list": "tokens",
    "token revoke": "tokens",
    "completion": "self",
    "man": "self",
    "bridge": "self",
    "runner": "runner",
}
"""The module of each command, in the order in which they are listed."""

GROUPS = {
    "files": "Look at files of a server, and change them.",
    "token": "Make, list and revoke the tokens by which clients come in.",
}
"""Words that other commands begin with, and what those are for."""


def names() -> list[str]:
    """Return the name of every command. That of one in a group has two words."""
    return list(_HOMES)


def command(name: str) -> Command:
    """Return a command by its name."""
    return next(found for found in _module(_HOMES[name]) if found.name == name)


def commands() -> list[Command]:
    """Return all commands that are listed."""
    return [found for found in map(command, _HOMES) if not found.hidden]


def _module(name: str) -> tuple[Command, ...]:
    found: tuple[Command, ...] = import_module(f"execsrv._cli.register.{name}").COMMANDS
    return found
