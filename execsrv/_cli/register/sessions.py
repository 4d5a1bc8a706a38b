"""The commands for what runs on a server already: to list it, read it, be at it, wait for it, and end it."""

from __future__ import annotations

from execsrv._cli.register.common import MANNERS, POOL_OPTION, SERVER
from execsrv._cli.register.kinds import SOME_TIME, SPAN, TEXT, Argument, Command, Example, Option, moment, named
from execsrv._cli.register.running import DEFAULT_GRACE_SECONDS
from execsrv._cli.register.shells import ESCAPE, PATIENT_SERVER

_SESSION = named("NAME", TEXT, "sessions")
_NAMES = Argument("NAME", _SESSION, many=True, dest="names")
_NAME = Argument("NAME", _SESSION, dest="name")

_PS = Command(
    "ps",
    "List what runs on a server, and how it ended.",
    """\
List what runs on a server, or ran until a moment ago, of all connections that you may join: by name, with its state,
age, processor time, memory and output.

What was started under a name (`run --detach --name`, `shell --name`) is listed by it. Everything else is listed by the
number of its connection and its own name there: `3/p1`.""",
    "ps:ps",
    options=(POOL_OPTION, *SERVER, *MANNERS),
    examples=(
        Example("execsrv ps", "on the server of this user"),
        Example("execsrv ps --pool servers", "on all servers of a pool"),
        Example("execsrv ps --json", "all that is known, as JSON"),
    ),
)

_LOGS = Command(
    "logs",
    "Print the output of what runs on a server, or has ended.",
    """\
Print what a session has printed, as far as the server retains it: its stdout to stdout, its stderr to stderr.

It holds nobody up. A line on stderr says what is no longer retained.""",
    "session_logs:logs",
    arguments=(_NAME,),
    options=(
        Option(("--follow", "-f"), "Go on with new output, until the session has ended."),
        Option(("--since",), "Only what was printed in that time, or from a moment on.", moment()),
        Option(("--timestamps", "-t"), "Put the time in front of every line, in UTC."),
        *SERVER,
        *MANNERS,
    ),
    examples=(
        Example("execsrv logs build", "all that is retained"),
        Example("execsrv logs -f --since 5m build", "the last five minutes, and what comes"),
        Example("execsrv logs -t --since 2027-01-31T12:00 build", "with the time of every line"),
    ),
)

_ATTACH = Command(
    "attach",
    "Attach to a command on a server, or watch it.",
    """\
Attach your terminal to a session, as if you had started it: you see what it has printed and what comes, and what you
type goes there. Others may be attached as well. It brings back what was started by `run --detach` or `shell --name`.

Leaving it never ends it. At the start of a line, `~.` leaves, `~^Z` suspends, `~r` repaints the screen, and `~?`
lists these keys. The exit status is that of the session, and 0 when you left it.

Input from a pipe or a file goes there too. Its end does not, as others may be about to write: the session reads on,
and you stay attached until it has ended.""",
    "attach:attach",
    arguments=(_NAME,),
    options=(
        Option(("--read-only", "-r"), "Only watch: nothing that is typed goes there, and Ctrl-C leaves."),
        ESCAPE,
        Option(
            ("--detach-key",),
            "A key that leaves wherever it is typed, such as ^].",
            named("KEY"),
        ),
        *PATIENT_SERVER,
        *MANNERS,
    ),
    examples=(
        Example("execsrv attach build", "type into it"),
        Example("execsrv attach --read-only build", "watch it"),
        Example("execsrv attach --detach-key ^] work", "until Ctrl-] is typed"),
    ),
)

_WAIT = Command(
    "wait",
    "Wait for the end of what runs on a server.",
    """\
Wait until sessions have ended. The exit status is that of the last one that was named: 128+N after signal N, 124 if
the time was over first.""",
    "wait_and_kill:wait",
    arguments=(_NAMES,),
    options=(
        Option(("--timeout",), "Wait no longer than that.", SOME_TIME),
        *SERVER,
        *MANNERS,
    ),
    examples=(
        Example("execsrv wait build", "and end as it did"),
        Example("execsrv wait --json --timeout 1h build test", "how each of them ended"),
    ),
)

_KILL = Command(
    "kill",
    "End what runs on a server, or send it a signal.",
    """\
Ask sessions to end, with everything that descends from them, kill what is left after a while, and wait for the end.
With `--signal` they are sent that signal, and nothing else happens.""",
    "wait_and_kill:kill",
    arguments=(_NAMES,),
    options=(
        Option(("--signal", "-s"), "Send this signal, by name or number, to its process group.", named("SIGNAL")),
        Option(("--tree",), "Send it to everything that descends from the session."),
        Option(
            ("--grace",),
            "Kill what has not ended that long after it was asked to. 0: at once.",
            SPAN,
            default=DEFAULT_GRACE_SECONDS,
        ),
        *SERVER,
        *MANNERS,
    ),
    examples=(
        Example("execsrv kill build", "ask it to end, and kill it after five seconds"),
        Example("execsrv kill -s HUP build", "send a signal"),
        Example("execsrv kill -s STOP --tree build", "to all that it has started, too"),
    ),
)

COMMANDS = (_PS, _LOGS, _ATTACH, _WAIT, _KILL)
