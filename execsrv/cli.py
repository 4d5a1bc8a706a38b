"""The command line. Each command says what it takes and calls what does it; there is no logic here."""

from __future__ import annotations

import os

import click

from execsrv._environment import package_version


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_version(), prog_name="execsrv", message="%(prog)s %(version)s")
def app() -> None:
    """Run commands for somebody else: start them, stream their output, and leave nothing behind."""


@app.command()
@click.option(
    "--listen",
    metavar="URL",
    default="stdio://",
    show_default=True,
    help="stdio:// (one message a line), ws://IP:PORT (port 0: any free one) or unix://PATH.",
)
@click.option(
    "--cgroup/--no-cgroup", default=True, show_default=True, help="Use a control group of its own, if there is one."
)
def serve(listen: str, cgroup: bool) -> None:
    """Serve the exec protocol until the peer hangs up (stdio) or a signal says so.

    When it accepts connections, the URL is printed on stdout and a line for people on stderr. SIGTERM, SIGINT,
    SIGHUP and SIGQUIT end it, and everything that descends from what it started; the exit status is 0.
    """
    from execsrv._daemon import run_daemon

    raise SystemExit(run_daemon(listen, cgroup))


@app.command(context_settings={"allow_interspersed_args": False})
@click.option("--url", metavar="URL", help="The server: ws://HOST:PORT or unix://PATH. Default: one in this process.")
@click.option("--tty", "-t", is_flag=True, help="Run it on a terminal of its own.")
@click.option("--cwd", metavar="DIR", help="Absolute path on the server. Default: where the server runs.")
@click.option("--env", "-e", metavar="K=V", multiple=True, help="Set a variable on top of the server's. Repeatable.")
@click.argument("command", nargs=-1, required=True, metavar="COMMAND...")
def run(url: str | None, tty: bool, cwd: str | None, env: tuple[str, ...], command: tuple[str, ...]) -> None:
    """Run one command through a server, as if it ran here.

    Its stdout and stderr are ours, its stdin is what we read, and its exit code is ours: 128+N after signal N, 127 when
    the program was not found, 126 when it cannot be executed, 125 when execsrv itself failed.
    """
    from execsrv._run import run_once

    raise SystemExit(run_once(command, url=url, tty=tty, cwd=cwd, env=env))


@app.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine offers to keep hold of processes, what that guarantees, and what can still escape."""
    from execsrv._doctor import report

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
