"""The command line. Each command says what it takes and calls what does it; there is no logic here."""

from __future__ import annotations

import os
from typing import Annotated, Optional

import typer

app = typer.Typer(
    help="Run commands for somebody else: start them, stream their output, and leave nothing behind.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from execsrv._environment import package_version

        typer.echo(f"execsrv {package_version()}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    listen: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="stdio:// (one message a line), ws://IP:PORT (port 0: any free one) or unix://PATH.",
        ),
    ] = "stdio://",
) -> None:
    """Serve the exec protocol until the peer hangs up (stdio) or a signal says so.

    When it accepts connections, the URL is printed on stdout and a line for people on stderr. SIGTERM, SIGINT and
    SIGHUP end it, and every process that it started; the exit status is 0.
    """
    from execsrv._daemon import run_daemon

    raise SystemExit(run_daemon(listen))


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The program and its arguments.")],
    url: Annotated[
        Optional[str],
        typer.Option(metavar="URL", help="The server: ws://HOST:PORT or unix://PATH. Default: one in this process."),
    ] = None,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Run it on a terminal of its own.")] = False,
    cwd: Annotated[
        Optional[str], typer.Option(metavar="DIR", help="Absolute path on the server. Default: where it runs.")
    ] = None,
    env: Annotated[
        Optional[list[str]],
        typer.Option("--env", "-e", metavar="K=V", help="Set a variable on top of the server's. Repeatable."),
    ] = None,
) -> None:
    """Run one command through a server, as if it ran here.

    Its stdout and stderr are ours, its stdin is what we read, and its exit code is ours: 128+N after signal N, 127 when
    the program was not found, 126 when it cannot be executed, 125 when execsrv itself failed.
    """
    from execsrv._daemon import run_once

    raise SystemExit(
        run_once(command, url=url, tty=tty, cwd=cwd if cwd is None else os.path.expanduser(cwd), env=env or [])
    )


def main() -> None:
    """The console script."""
    app(prog_name="execsrv")
