"""`execsrv shell`: a login shell on a server, at our terminal, as over ssh."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import trio

from execsrv._cli import terminal
from execsrv._cli.calling import explained
from execsrv._cli.connection_name import connected_as
from execsrv._cli.escape_keys import DEFAULT_KEY, EscapeKeys, parse_key
from execsrv._cli.heard_signals import die_of
from execsrv._cli.interactive import Interaction, Outcome
from execsrv._cli.job import failed
from execsrv._cli.reach import Reach
from execsrv._cli.register.common import DEFAULT_URL
from execsrv._cli.register.kinds import OWN_FAILURE
from execsrv._cli.register.shells import DEFAULT_RECONNECT_SECONDS
from execsrv._cli.streams import say
from execsrv._cli.variables import variables
from execsrv.client import Client
from execsrv.client.inside import connection_of
from execsrv.errors import ConnectionLostError, ExecsrvError, RequestError, SpawnError

_CARRIED = ("TERM", "COLORTERM", "LANG", "LANGUAGE", "TZ")
"""The terminal and the locale of a user, together with all of LC_*."""

_ACTIONS = {ord("."): "leave", 26: "suspend", ord("r"): "repaint", ord("?"): "help"}
_KEPT_ACTIONS = {ord("."): "leave", ord("d"): "detach", **_ACTIONS}


class ShellOptions(NamedTuple):
    """A server, and how to be at a shell of it. Without a command it is the user's login shell."""

    url: str
    argv: Sequence[str] = ()
    cwd: str | None = None
    env: Sequence[str] = ()
    escape: str = DEFAULT_KEY
    name: str | None = None
    reconnect: float = DEFAULT_RECONNECT_SECONDS
    no_bring: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    server_uid: tuple[int, ...] = ()
    allow_plain_network: bool = False
    token_file: str | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False


def shell(*, place: str | None, url: str | None, argv: Sequence[str], **options: Any) -> int:
    """Be at a shell, by the words of a command line; return the exit status."""
    return run_shell(ShellOptions(place or url or DEFAULT_URL, argv, **options))


def run_shell(options: ShellOptions) -> int:
    """Be at a shell until it ends, and return its exit status, or end as the signal says that ended us."""
    logging.getLogger("execsrv").setLevel(logging.ERROR)  # the terminal is the shell's
    began = time.monotonic()
    try:
        escape = parse_key("--escape", options.escape)
        outcome = trio.run(_shell, options, escape)
    except RequestError as error:
        return failed(f"{error} ({error.kind})").code
    except ConnectionLostError as error:
        way_back = f"; `execsrv attach {options.name}` brings it back" if options.name is not None else ""
        return failed(f"{error}{way_back}").code
    except ExecsrvError as error:
        return failed(explained(error, options.url)).code
    except OSError as error:
        return failed(error.strerror or str(error)).code
    _report(options, outcome, time.monotonic() - began)
    return status_of(outcome)


def _report(options: ShellOptions, outcome: Outcome, seconds: float) -> None:
    """Say how it ended, to whoever wants to know."""
    exited = outcome.exited
    if options.verbose:
        how = outcome.how if exited is None else f"exited with status {exited.exit_code}"
        say(f"execsrv: it ended after {seconds:.3f} s: {how}")
    if options.as_json:
        code, signal = (None, None) if exited is None else (exited.exit_code, exited.signal)
        facts = {"how": outcome.how, "exitCode": code, "signal": signal, "seconds": round(seconds, 3)}
        say(msgspec.json.encode(facts).decode())


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
    reach = Reach(**{name: getattr(options, name) for name in Reach._fields})
    keeping: dict[str, Any] = {"keep": "untilIdle", "size_policy": "latest"} if options.name is not None else {}
    async with connected_as(reach, options.name, **keeping) as client:
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
        id=options.name,
    ) as process:
        actions = _ACTIONS if options.name is None else _KEPT_ACTIONS
        keys = EscapeKeys(escape, actions)
        link = connection_of(client)
        if options.verbose:
            say(f"execsrv: it runs at {options.url} as pid {process.pid}")
        at = Interaction(
            process, link, keys, escape=escape, actions=actions, patience=options.reconnect, quiet=options.quiet
        )
        outcome = await at.run()
        if options.name is not None and outcome.how in ("detach", "signal", "hung up"):
            process.leave_running()
            if not options.quiet:
                say(f"execsrv: `{options.name}` goes on; `execsrv attach {options.name}` brings it back")
        return outcome


def _environment(settings: Sequence[str]) -> dict[str, str]:
    """Return what of our environment a shell elsewhere needs, and what was set for it. Raises `ExecsrvError`."""
    carried = {name: value for name, value in os.environ.items() if name in _CARRIED or name.startswith("LC_")}
    for setting in variables((), settings):
        name, _, carried[name] = setting.partition("=")
    return carried
