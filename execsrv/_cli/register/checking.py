"""The command that checks a server."""

from __future__ import annotations

from execsrv._cli.register.common import MANNERS
from execsrv._cli.register.kinds import FILE, SOME_TIME, USAGE, Argument, Command, Example, Option, choice, named

SUITES = ("handshake", "processes", "commands", "files", "resuming", "faults", "additions")

_CONFORMANCE = Command(
    "conformance",
    "Check how well a server keeps to the protocol.",
    """\
Check a server of this protocol from outside, and say for each case whether it does what the protocol says.

URL is ws://HOST:PORT, wss://HOST:PORT, unix://PATH, or exec:COMMAND for a command that speaks on its stdin and stdout.
Commands of a POSIX system are run there, and files are written in a new folder, which is removed.

The exit status is 0 when nothing differs and every answer came, and 1 otherwise. What a server does not
have at all is reported, and is no failure.""",
    "conformance:conformance",
    arguments=(Argument("URL", named("URL"), dest="url"),),
    options=(
        Option(("--suite", "-s"), "Check that part alone. Repeatable.", choice(*SUITES), many=True, dest="suites"),
        Option(("--patience",), "The time of one case.", SOME_TIME, default=20.0),
        Option(("--token-file",), "The token that the server takes, in a file.", FILE),
        *MANNERS,
    ),
    examples=(
        Example("execsrv conformance ws://127.0.0.1:8765", "all there is"),
        Example("execsrv conformance -s processes 'exec:ssh build execsrv serve'", "one part, of a server by ssh"),
        Example("execsrv conformance --json unix:///run/server.sock", "for programs"),
    ),
    failure=2,
    usage=USAGE,
)

COMMANDS = (_CONFORMANCE,)
