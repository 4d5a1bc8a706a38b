"""`execsrv shell`: a login shell on a server, at our terminal, as over ssh."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import trio

from execsrv._cli import terminal
from execsrv._cli.escape_keys import DEFAULT_KEY, EscapeKeys, parse_key
from execsrv._cli.heard_signals import die_of
from execsrv._cli.interactive import Interaction, Outcome
from execsrv._cli.job import failed
from execsrv._cli.options import OWN_FAILURE
from execsrv._cli.streams import say
from execsrv.client import Client, connect
from execsrv.errors import ExecsrvError, RequestError, SpawnError
from execsrv.limits import ClientConfig

DEFAULT_RECONNECT_SECONDS = 60.0
"""Time to come back in after a network that is lost: a laptop has been carried elsewhere."""

_CARRIED = ("TERM", "COLORTERM", "LANG", "LANGUAGE", "TZ")
"""The terminal and the locale of a user, together with all of LC_*."""

_ACTIONS = {ord("."): "leave", 26: "suspend", ord("r"): "repaint", ord("?"): "help"}


class ShellOptions(NamedTuple):
    """A server, and how to be at a shell of it. Without a command it is the user's login shell."""

    url: str
    argv: Sequence[str] = ()
    cwd: str | None = None
    env: Sequence[str] = ()
    escape: str = DEFAULT_KEY
    reconnect: float = DEFAULT_RECONNECT_SECONDS
    no_bring: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    server_uid: Sequence[int] = ()
    token_file: str | None = None


def run_shell(options: ShellOptions) -> int:
    """Be at a shell until it ends, and return its exit status, or end as the signal says that ended us."""
    logging.getLogger("execsrv").setLevel(logging.ERROR)  # the terminal is the shell's
    try:
        escape = parse_key("--escape", options.escape)
        outcome = trio.run(_shell, options, escape)
    except ExecsrvError as error:
        return failed(f"{error} ({error.kind})" if isinstance(error, RequestError) else str(error)).code
    except OSError as error:
        return failed(error.strerror or str(error)).code
    return status_of(outcome)


def status_of(outcome: Outcome) -> int:
    """Return the exit status of this process after it was at another one. Does not return where a signal ended us."""
    if outcome.how == "signal":
        die_of(outcome.signal)
    if outcome.how == "exited" and outcome.exited is not None:
        if outcome.exited.reason in ("disconnected", "shutdown"):
            say(f"execsrv: the server ended it: {outcome.exited.reason}")
            return OWN_FAILURE
        return outcome.exited.exit_code
    return 0 if outcome.how == "detach" else OWN_FAILURE


async def _shell(options: ShellOptions, escape: int | None) -> Outcome:
    config = ClientConfig(
        server_uids=tuple(options.server_uid),
        tls_ca_file=options.ca_file or "",
        tls_certificate_file=options.certificate_file or "",
        tls_key_file=options.key_file or "",
    )
    async with connect(
        options.url,
        token_file=options.token_file,
        reconnect=options.reconnect,
        bring=not options.no_bring,
        config=config,
    ) as client:
        try:
            return await _at_shell(client, options, escape, options.cwd or client.info.user_home_dir)
        except SpawnError as error:
            if error.stage != "cwd" or options.cwd is not None:
                raise
            return await _at_shell(client, options, escape, "/")  # a user without a home


async def _at_shell(client: Client, options: ShellOptions, escape: int | None, cwd: str) -> Outcome:
    is_terminal = terminal.modes() is not None
    window = terminal.window()
    shell = client.info.shell.path
    argv = options.argv[options.argv[:1] == ("--",) :]
    async with client.start(
        argv or [shell],
        arg0=None if argv else f"-{os.path.basename(shell)}",
        cwd=cwd,
        env_add=_environment(options.env),
        stdin=True,
        tty=is_terminal,
        size=None if window is None else terminal.size_of(window),
        modes=terminal.named_modes() if is_terminal else None,
    ) as process:
        keys = EscapeKeys(escape, _ACTIONS)
        link = client._connection
        at = Interaction(process, link, keys, escape=escape, actions=_ACTIONS, patience=options.reconnect)
        return await at.run()


def _environment(settings: Sequence[str]) -> dict[str, str]:
    """Return what of our environment a shell elsewhere needs, and what was set for it. Raises `ExecsrvError`."""
    carried = {name: value for name, value in os.environ.items() if name in _CARRIED or name.startswith("LC_")}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise ExecsrvError(f"invalid --env `{setting}`; expected `K=V`")
        carried[name] = value
    return carried
