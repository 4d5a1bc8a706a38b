"""The command line. Each command says what it takes and calls what does it; there is no logic here."""

from __future__ import annotations

import os
from typing import Any

import click

from execsrv._cli.config import as_toml, load
from execsrv._cli.settings import SETTINGS, Setting
from execsrv._server.host import package_version
from execsrv.errors import InvalidConfigError

SOME_TIME = click.FloatRange(min=0, min_open=True)


class ServeCommand(click.Command):
    """A command that takes every setting as an option, None where it is not given."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += [_option(setting) for setting in SETTINGS.values()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of all options, the command's own first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for option in self.get_params(ctx):
            title = SETTINGS[option.name].group if option.name in SETTINGS else "Options"
            sections.setdefault(title, []).extend(filter(None, [option.get_help_record(ctx)]))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _option(setting: Setting) -> click.Option:
    text = f"{setting.description} [default: {setting.show(setting.default)}]"
    if setting.is_switch:
        return click.Option([f"{setting.flag}/{setting.no_flag}"], default=None, help=text)
    # Text: whether it is right is checked in one place, wherever it came from.
    if setting.is_list:
        return click.Option([setting.flag], metavar="DIR", multiple=True, help=f"{text} Repeatable.")
    metavar = setting.unit.upper() or ("N" if isinstance(setting.default, int) else "URL")
    return click.Option([setting.flag], metavar=metavar, help=text)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_version(), prog_name="execsrv", message="%(prog)s %(version)s")
def app() -> None:
    """Run commands for somebody else: start them, stream their output, and leave nothing behind."""


@app.command(cls=ServeCommand)
@click.option("--config", metavar="FILE", help="A TOML file of settings: max_connections = 10, and so on.")
@click.option(
    "--codex",
    is_flag=True,
    help="Be the exec-server of a Codex CLI: --listen ws://127.0.0.1:0 and --resume-grace 80 become the defaults, and"
    " the line that tells the CLI where to find it is printed on stdout.",
)
@click.option("--print-config", is_flag=True, help="Print all settings and where they came from, and end.")
def serve(config: str | None, print_config: bool, codex: bool, **settings: str | bool | tuple[str, ...] | None) -> None:
    """Serve the exec protocol until the peer hangs up (stdio) or a signal says so.

    When it accepts connections, the URL is printed on stdout and a line for people on stderr. SIGTERM, SIGINT,
    SIGHUP and SIGQUIT end it, and everything that descends from what it started; the exit status is 0.

    What an option sets can be set in the environment (EXECSRV_MAX_CONNECTIONS=10) and in a TOML file (max_connections
    = 10) too, which --config or EXECSRV_CONFIG names. An option goes before the environment, and that before the
    file. BYTES may have a unit: 64KiB, 16MiB, 1GiB.
    """
    try:
        loaded = load({"config": config, **settings}, os.environ, codex=codex)
        if print_config:
            click.echo(as_toml(loaded).encode(), nl=False)
            return
    except InvalidConfigError as error:
        raise click.UsageError(str(error)) from None
    from execsrv._cli.serve import run_daemon

    raise SystemExit(run_daemon(loaded.listen, loaded.config, codex=codex))


@app.command(context_settings={"allow_interspersed_args": False})
@click.option("--url", metavar="URL", help="The server: ws://HOST:PORT or unix://PATH. Default: one in this process.")
@click.option("--tty", "-t", is_flag=True, help="Run it on a terminal of its own.")
@click.option("--cwd", metavar="DIR", help="Absolute path on the server. Default: where the server runs.")
@click.option("--env", "-e", metavar="K=V", multiple=True, help="Set a variable on top of the server's. Repeatable.")
@click.option("--timeout", metavar="SECONDS", type=SOME_TIME, help="Kill it after that time.")
@click.option("--idle-timeout", metavar="SECONDS", type=SOME_TIME, help="Kill it when nothing happened for that time.")
@click.option(
    "--reconnect",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=0,
    help="Try for that time to take a lost connection up again; for a server with a --resume-grace.",
)
@click.argument("command", nargs=-1, required=True, metavar="COMMAND...")
def run(command: tuple[str, ...], env: tuple[str, ...], **options: Any) -> None:
    """Run one command through a server, as if it ran here.

    Its stdout and stderr are ours, its stdin is what we read, and its exit code is ours: 128+N after signal N, 127 when
    the program was not found, 126 when it cannot be executed, 125 when execsrv itself failed, 124 when it was killed
    for its time.
    """
    from execsrv._cli.run import Request, run_once

    raise SystemExit(run_once(Request(command, **options), env))


@app.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine offers to keep hold of processes, what that guarantees, and what can still escape."""
    from execsrv._cli.doctor import report

    click.echo(report(as_json))


def main() -> None:
    """The console script."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Started with it closed: something else would get its number, and be read or written for it.
            os.open(os.devnull, os.O_RDWR)
    app(prog_name="execsrv")
