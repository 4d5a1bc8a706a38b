"""The command line: the commands, their options, and the function that each calls. There is no logic here."""

from __future__ import annotations

from typing import Any

import click

from execsrv._cli.escape_keys import DEFAULT_KEY
from execsrv._cli.job import DEFAULT_GRACE_SECONDS, RunOptions
from execsrv._cli.options import SOME_TIME, RunCommand, ServeCommand
from execsrv._cli.settings import CLIENT_VARIABLES, SETTINGS, TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE
from execsrv._cli.streams import open_missing
from execsrv._version import __version__
from execsrv.errors import ExecsrvError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="execsrv", message="%(prog)s %(version)s")
def app() -> None:
    """Run commands for somebody else: start them, stream their output, and leave nothing behind."""


@app.command(cls=ServeCommand)
@click.option("--config", metavar="FILE", help="A TOML file of settings: max_connections = 10, and so on.")
@click.option(
    "--codex",
    is_flag=True,
    help="Be the exec-server of a Codex CLI: --listen ws://127.0.0.1:0, --resume-grace 80 and --http-variables '*'"
    " become the defaults, and the line that tells the CLI where to find it is printed on stdout.",
)
@click.option("--print-config", is_flag=True, help="Print all settings and where they came from, and end.")
@click.option("--quiet", is_flag=True, help="Log warnings and errors alone.")
@click.option(
    "--until-stdin-closes",
    "lifeline",
    flag_value=0,
    type=int,
    help="End with whoever holds the other end of stdin, by SIGKILL too. For a server that listens.",
)
@click.option(
    "--lifeline",
    metavar="FD",
    type=click.IntRange(min=0),
    help="End with whoever holds the other end of this descriptor: a pipe or a socket.",
)
def serve(
    config: str | None, print_config: bool, codex: bool, quiet: bool, lifeline: int | None, **settings: Any
) -> None:
    """Serve on stdio, a websocket or a unix socket.

    Ends when the peer hangs up (stdio) or a signal comes.

    When it accepts connections, the URL is printed on stdout and a line for people on stderr. SIGTERM, SIGINT and
    SIGQUIT end it, and everything that descends from what it started; the exit status is 0. SIGHUP has it read its
    settings again; on stdio, or when it was started on a terminal, SIGHUP ends it too.

    What an option sets can be set in the environment (EXECSRV_MAX_CONNECTIONS=10) and in a TOML file (max_connections
    = 10) too, which --config or EXECSRV_CONFIG names. An option goes before the environment, and that before the
    file. BYTES may have a unit: 64KiB, 16MiB, 1GiB.
    """
    from execsrv._cli.serve import DaemonOptions, run_serve

    options = DaemonOptions(codex=codex, quiet=quiet, lifeline=lifeline)
    raise SystemExit(run_serve({"config": config, **settings}, options, print_config=print_config))


@app.command(
    cls=RunCommand,
    short_help="Run one command, here or on a server.",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--url",
    metavar="URL",
    envvar=URL_VARIABLE,
    help="The server: ws://HOST:PORT, unix://PATH, ssh://[USER@]HOST, docker://CONTAINER, kubectl://POD and so on."
    f" Default: {URL_VARIABLE}, else it runs here.",
)
@click.option("--tty", "-t", is_flag=True, help="Run it on a terminal of its own. Enter ~ . ends it, as in ssh.")
@click.option("--no-stdin", "-n", is_flag=True, help="Take nothing of stdin: the command's is empty.")
@click.option(
    "--cwd", metavar="DIR", help="Its directory; on a server an absolute path. Default: yours, or the server's."
)
@click.option(
    "--env", "-e", metavar="K=V", multiple=True, help="Set a variable, on top of all of yours or the server's."
)
@click.option(
    "--secret-env",
    metavar="K=NAME",
    multiple=True,
    help="Set a variable to a secret of the server, by its name, or to a file there, by its path. With --url.",
)
@click.option(
    "--pass-fd",
    metavar="N",
    type=click.IntRange(min=0),
    multiple=True,
    help="Pass descriptor N on. Not with --url.",
)
@click.option("--timeout", metavar="SECONDS", type=SOME_TIME, help="Ask it to end after that time.")
@click.option(
    "--idle-timeout", metavar="SECONDS", type=SOME_TIME, help="Ask it to end when nothing came or went so long."
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=DEFAULT_GRACE_SECONDS,
    show_default=True,
    help="Kill it when it has not ended that long after it was asked to. 0: at once.",
)
@click.option("--leave", is_flag=True, help="Let live what outlives the command. Not with --url or --tty.")
@click.option(
    "--reconnect",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=0,
    help="Try for that time to take a lost connection up again. A server of ws:// or unix:// needs a --resume-grace.",
)
@click.option(
    "--ca-file",
    metavar="FILE",
    envvar=CLIENT_VARIABLES["ca_file"],
    help="The authorities whose servers are trusted by wss://, in PEM. Default: the machine's.",
)
@click.option(
    "--certificate-file",
    metavar="FILE",
    envvar=CLIENT_VARIABLES["client_certificate_file"],
    help="The certificate that is shown to a server of wss:// that asks for one, in PEM.",
)
@click.option(
    "--key-file",
    metavar="FILE",
    envvar=CLIENT_VARIABLES["client_key_file"],
    help="Its private key. Default: it is in the certificate's file.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    help=f"The token that the server takes, in a file. Default: that in {TOKEN_VARIABLE}, or in the file that"
    f" {TOKEN_FILE_VARIABLE} names.",
)
@click.option(
    "--server-uid",
    metavar="UID",
    type=click.IntRange(min=0),
    multiple=True,
    help="Trust servers of this user too, on a unix socket and on the loopback, beside yours and root's. Repeatable.",
)
@click.option("--no-bring", is_flag=True, help="Bring no execsrv along to a place that has none.")
@click.argument("command", nargs=-1, required=True, metavar="COMMAND...")
def run(command: tuple[str, ...], **options: Any) -> None:
    """Run one command, here or through a server, and end all that it leaves behind.

    Its stdin, stdout, stderr, directory and environment are yours, and its exit status ours: 128+N after signal N, 127
    when the program was not found, 126 when it cannot be executed, 125 when execsrv itself failed, 124 when its time
    was over. Signals are passed on. A second SIGTERM or SIGINT kills it.
    """
    from execsrv._cli.run import run_once

    raise SystemExit(run_once(RunOptions(command, **options)))


@app.command(short_help="Be at a login shell on a server.", context_settings={"allow_interspersed_args": False})
@click.option("--cwd", metavar="DIR", help="Its directory. Default: the user's home.")
@click.option("--env", "-e", metavar="K=V", multiple=True, help="Set a variable, on top of all of the server's.")
@click.option(
    "--escape",
    metavar="KEY",
    default=DEFAULT_KEY,
    show_default=True,
    help="The key that speaks with execsrv at the start of a line: a character, ^], or none.",
)
@click.option(
    "--reconnect",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Try for that time to take a lost connection up again.",
)
@click.argument("url", envvar=URL_VARIABLE, default="unix://")
@click.argument("argv", nargs=-1, metavar="[COMMAND]...")
def shell(**options: Any) -> None:
    """Be at a login shell on a server, or at another command there, as over ssh.

    At the start of a line, ~. ends it, ~^Z suspends, ~r paints the screen anew, and ~? lists these keys.
    """
    from execsrv._cli.shell import ShellOptions, run_shell

    raise SystemExit(run_shell(ShellOptions(**options)))


@app.command(short_help="Be the far end of a connection that may be cut.")
@click.argument("name")
@click.argument("grace")
def bridge(name: str, grace: str) -> None:
    """Join stdin and stdout to the server called NAME, which keeps a lost connection for GRACE seconds.

    The first bridge starts the server. It is for one client, and ends with it. `run --reconnect` has a bridge at the
    far end of ssh:// and the like; with exec:COMMAND the command may be one.
    """
    from execsrv._cli.bridge import run_bridge

    try:
        raise SystemExit(run_bridge(name, grace))
    except ExecsrvError as error:
        raise click.ClickException(str(error)) from None


@app.group(name="token")
def tokens() -> None:
    """Make, list and revoke the tokens by which clients come in.

    A server that is started with --token-file FILE takes those in it. There are only their hashes: a token is shown
    once, when it is made. Tell a running server of changes by SIGHUP.
    """


_TOKEN_FILE = click.option(
    "--file",
    "-f",
    "path",
    metavar="FILE",
    envvar=SETTINGS["token_file"].variable,
    required=True,
    help=f"The file of tokens. Default: {SETTINGS['token_file'].variable}.",
)


@tokens.command(name="new")
@click.argument("name")
@_TOKEN_FILE
@click.option(
    "--role",
    type=click.Choice(["owner", "writer", "viewer", "health"]),
    default="owner",
    show_default=True,
    help="All that it is good for.",
)
@click.option("--expires", metavar="TIME", help="Until when: 12h, 30d, or 2027-01-31T12:00. Default: for ever.")
@click.option("--out", metavar="FILE", help="Write the token there, for its user alone, and not to stdout.")
def new_token(name: str, path: str, role: str, expires: str | None, out: str | None) -> None:
    """Make a token, and print it."""
    from execsrv._cli.token import make

    make(path, name, role, expires, out)


@tokens.command(name="list")
@_TOKEN_FILE
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_tokens(path: str, as_json: bool) -> None:
    """List the tokens of a file: their names, roles and expiry."""
    from execsrv._cli.token import listed

    click.echo(listed(path, as_json), nl=False)


@tokens.command(name="revoke")
@click.argument("name")
@_TOKEN_FILE
def revoke_token(name: str, path: str) -> None:
    """Take a token out of a file."""
    from execsrv._cli.token import revoke

    revoke(path, name)


@app.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> None:
    """Say how well this machine keeps hold of processes.

    Lists the means that it offers, what they guarantee, and what can still escape.
    """
    from execsrv._cli.doctor import report

    click.echo(report(as_json))


def main() -> None:
    """The console script."""
    open_missing()
    app(prog_name="execsrv")
