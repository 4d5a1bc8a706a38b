"""The command that serves: every setting is an option."""

from __future__ import annotations

from execsrv._cli.register.kinds import FILE, LABEL, NUMBER, USAGE, Command, Example, Kind, Option
from execsrv._cli.settings import SETTINGS, Setting


def _option(setting: Setting) -> Option:
    default = setting.show(setting.default)
    text = f"{setting.description} [default: {default}]" if default else setting.description
    names, title = (setting.flag,), setting.group
    if setting.is_switch:
        return Option(names, text, off=setting.no_flag, title=title)
    # Text: it is checked in one place, wherever it came from.
    if setting.is_list:
        return Option(names, f"{text} Repeatable.", Kind(setting.facts["metavar"], str), many=True, title=title)
    if setting.choices:
        kind = Kind("|".join(setting.choices), str, complete=" ".join(setting.choices))
        return Option(names, text, kind, title=title)
    word = "URL" if setting.name.endswith("listen") else "TEXT"
    metavar = setting.unit.upper() or ("N" if isinstance(setting.default, int) else word)
    complete = "files" if setting.unit == "file" else "stdio:// unix:// ws://127.0.0.1:0" if word == "URL" else ""
    return Option(names, text, Kind(metavar, str, complete=complete), title=title)


_SERVE = Command(
    "serve",
    "Serve on stdio, a websocket or a unix socket.",
    """\
Serve on stdio, a websocket or a unix socket. Ends when the peer hangs up (stdio) or a signal comes.

When it accepts connections, the URL is printed on stdout and a line for people on stderr. SIGTERM, SIGINT and SIGQUIT
end it, and everything that descends from what it started; the exit status is 0. On SIGHUP it reads its settings again;
on stdio, or when it was started on a terminal, SIGHUP ends it too. A wrong command line or setting is exit status 2,
any other failure 1.

What an option sets can be set in the environment (`EXECSRV_MAX_CONNECTIONS=10`) and in a TOML file (`max_connections
= 10`) too, which `--config` or `EXECSRV_CONFIG` names. An option takes precedence over the environment, and that
over the file. BYTES may have a unit: 64KiB, 16MiB, 1GiB.""",
    "serve:serve",
    options=(
        Option(("--config",), "A TOML file of settings: max_connections = 10, and so on.", FILE),
        Option(
            ("--codex",),
            "Be the exec-server of a Codex CLI: --listen ws://127.0.0.1:0, --resume-grace 80 and --http-variables '*'"
            " become the defaults, and the line that tells the CLI where to find it is printed on stdout.",
        ),
        Option(("--print-config",), "Print all settings and where they came from, and end."),
        Option(
            ("--until-stdin-closes",),
            "End as soon as nobody holds the other end of stdin, even after SIGKILL. For a server that listens.",
            dest="lifeline",
            value=0,
        ),
        Option(
            ("--lifeline",),
            "End as soon as nobody holds the other end of this descriptor: a pipe or a socket.",
            Kind("FD", NUMBER.read, NUMBER.expected),
            dest="lifeline",
        ),
        Option(
            ("--join",),
            "Be listed in this file, by URL and labels, while connections are taken: pools find their servers there.",
            FILE,
        ),
        Option(("--label",), "A label in that file, such as gpu=1. Repeatable.", LABEL, many=True),
        Option(("--json",), "Log JSON: as --log-format json.", dest="as_json"),
        Option(("--quiet", "-q"), "Log only warnings and errors."),
        Option(("--verbose", "-v"), "Log everything: as --log-level debug."),
        *(_option(setting) for setting in SETTINGS.values()),
    ),
    examples=(
        Example("execsrv serve --listen unix://", "for this user; `execsrv run --url unix://` and others find it"),
        Example("execsrv serve --listen ws://127.0.0.1:8765", "on a port of this machine"),
        Example("execsrv serve --codex", "the exec-server of a Codex CLI"),
        Example("ssh build execsrv serve", "on stdio, through whatever carries bytes"),
    ),
    failure=1,
    usage=USAGE,
    raw=True,
)

COMMANDS = (_SERVE,)
