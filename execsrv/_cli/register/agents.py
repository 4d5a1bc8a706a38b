"""The command that offers tools to agents."""

from __future__ import annotations

from execsrv._cli.register.common import CONFINING, LIMITING, MANNERS, REACHING, url_option
from execsrv._cli.register.kinds import DIRECTORY, FILE, USAGE, Command, Example, Option, named

_MCP = Command(
    "mcp",
    "Offer tools to agents, by the Model Context Protocol.",
    """\
Offer tools to agents, by the Model Context Protocol: commands that go on between calls, their output, screens and
recordings. On stdin and stdout, or with --listen over HTTP.

Commands run here, or with --url on a server, and all of them end with this one. Needs `execsrv[mcp]`.""",
    "mcp:mcp",
    options=(
        Option(("--cwd",), "The directory of all commands. Default: yours, or the server's.", DIRECTORY),
        Option(
            ("--ask",),
            "Have the user asked before each command, and before something is typed; if the client cannot ask, refuse.",
            title="Approval",
        ),
        Option(
            ("--only",),
            "Run no program but this, and no shell. Repeatable.",
            named("PROGRAM"),
            many=True,
            title="Approval",
        ),
        *CONFINING,
        *LIMITING,
        Option(
            ("--recordings",),
            "Record each session in a new folder there, as an asciicast that is a resource.",
            DIRECTORY,
        ),
        Option(
            ("--listen",),
            "Serve it there, as `http://127.0.0.1:PORT/mcp`. Needs --http-token-file.",
            named("URL"),
            title="HTTP",
        ),
        Option(("--http-token-file",), "The bearer token of all clients, in a file.", FILE, title="HTTP"),
        url_option("they run here"),
        *REACHING,
        *MANNERS,
    ),
    examples=(
        Example("execsrv mcp", "what an agent's configuration names"),
        Example("execsrv mcp --url ssh://build --cwd /src", "commands on another machine"),
        Example("execsrv mcp --sandbox workspace-write:/src --no-network", "confined to one folder"),
        Example("execsrv mcp --only git --only make", "two programs, and nothing else"),
    ),
    usage=USAGE,
)

COMMANDS = (_MCP,)
