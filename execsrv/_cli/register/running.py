"""The commands that run one command: as anybody, and as the first process of a container."""

from __future__ import annotations

from execsrv._cli.register.common import CONFINING, LABEL_OPTION, LIMITING, POOL_OPTION, REACHING, url_option
from execsrv._cli.register.kinds import (
    DIRECTORY,
    FILE,
    NUMBER,
    SOME_TIME,
    SPAN,
    Argument,
    Command,
    Example,
    Option,
    named,
)

DEFAULT_GRACE_SECONDS = 5.0
"""Time for a command that was asked to end: enough to save a file, and not so long that anybody gives up."""

_RUN = Command(
    "run",
    "Run one command, here or on a server.",
    """\
Run one command, here or through a server, and end all that it leaves behind.

Its stdin, stdout, stderr, directory and environment are yours. `execsrv run` exits with its status: 128+N after signal
N, 127 when the program was not found, 126 when it cannot be executed, 125 when execsrv itself failed, 124 when its
time was over. Signals are passed on. A second SIGTERM or SIGINT kills it.

A TIME is seconds, or has a unit: 500ms, 5s, 1m, 2h.""",
    "run:run",
    arguments=(Argument("COMMAND", many=True),),
    options=(
        Option(("--tty", "-t"), "Run it on a terminal of its own. Enter ~ . ends it, as in ssh."),
        Option(("--interactive", "-i"), "Take your stdin, which it does anyway: for users of docker, who type -it."),
        Option(("--no-stdin", "-n"), "Take nothing from stdin: the command's is empty."),
        Option(
            ("--detach", "-d"),
            "Leave it running on the server, print its name, and end. It has no input, unless -i or -t is given.",
        ),
        Option(
            ("--name",),
            "What `execsrv ps` and others call it. With --url or --detach. Default for the latter: the program's name.",
            named("NAME"),
        ),
        Option(
            ("--cwd",),
            "Its directory. One on a server counts from the server's own. Default: yours, or the server's.",
            DIRECTORY,
        ),
        Option(
            ("--env", "-e"),
            "Set a variable, on top of all of yours or the server's. NAME alone takes your value along.",
            named("NAME[=VALUE]", complete="variables"),
            many=True,
        ),
        Option(
            ("--env-file",),
            "Set the variables of a file: NAME=VALUE on each line, or NAME; lines with # in front are passed over."
            " Repeatable; --env takes precedence.",
            FILE,
            many=True,
        ),
        Option(
            ("--secret-env",),
            "Set a variable to a secret of the server, by its name, or to a file there, by its path. With --url.",
            named("NAME=SECRET"),
            many=True,
        ),
        Option(
            ("--runner",),
            "Start it over a runner, where the server cannot enter: the name of one that it has, or a command that gets"
            " there, as 'sudo -n -u box'. With --url.",
            named("RUNNER"),
        ),
        Option(("--pass-fd",), "Pass descriptor N on. Not with --url.", NUMBER, many=True),
        Option(
            ("--user",),
            "Run it with the rights of that user, or USER:GROUP, by name or number. Needs root, or a server of root.",
            named("USER"),
        ),
        Option(("--timeout",), "Ask it to end after that time.", SOME_TIME),
        Option(("--idle-timeout",), "Ask it to end when nothing came or went for that long.", SOME_TIME),
        Option(
            ("--grace",),
            "Kill it if it has not ended that long after being asked to. 0: at once.",
            SPAN,
            default=DEFAULT_GRACE_SECONDS,
        ),
        *CONFINING,
        *LIMITING,
        Option(("--leave",), "Let live what outlives the command. Not with --url or --tty."),
        Option(
            ("--record",),
            "Record what it prints as an asciicast, for `execsrv play`.",
            FILE,
        ),
        Option(
            ("--progress",),
            "On a terminal, report on stderr when it is silent for long: its time, its bytes, its last line. Here its"
            " output goes through pipes for that. Default: if it goes through execsrv anyway, as with --url.",
            off="--no-progress",
        ),
        Option(
            ("--junit",),
            "Write how it ended, and the end of its output, as a JUnit report. The output then passes through execsrv.",
            FILE,
        ),
        url_option("it runs here"),
        POOL_OPTION,
        LABEL_OPTION,
        *REACHING,
        Option(
            ("--json",), "Say at the end, in a line of JSON on stderr, how it ended.", dest="as_json", title="Output"
        ),
        Option(("--quiet", "-q"), "Say nothing about what was ended with it, or about its time.", title="Output"),
        Option(("--verbose", "-v"), "Say where it runs, as what, and how it ended.", title="Output"),
    ),
    examples=(
        Example("execsrv run --timeout 5m -- make check", "end it, and all it started, after five minutes"),
        Example("execsrv run --url ssh://build -it -- bash", "a shell on another machine"),
        Example("execsrv run -e CI -e LEVEL=2 -- env", "with a variable of yours, and another"),
        Example("execsrv run --pool servers --label disk=fast -- make", "on one of many servers that has room"),
        Example("execsrv run --timeout 10m --junit check.xml -- make check", "as a step of a CI system"),
        Example("execsrv run -dt --name build -- make", "left running; `execsrv attach build` comes back to it"),
        Example("execsrv run --sandbox workspace-write --no-network -- make test", "confined to its own folder"),
        Example("execsrv run --limit-memory 2GiB --limit-processes 200 -- make -j8", "no more than that, all together"),
        Example("execsrv run --record demo.cast -t -- htop", "record a terminal"),
    ),
    mixed=False,
    raw=True,
)

_INIT = Command(
    "init",
    "Run one command as the first process of a container.",
    """\
Run one command as the first process of a container, and act as the init of all others.

It has your stdin, stdout, stderr, directory, environment and terminal. Every signal is passed on to it, each time
it comes; what the command does with it is up to the command. Processes whose parents have ended are reaped. When the
command has ended, all that is left is asked to end, and killed two seconds later; the exit status is that of the
command, 128+N after signal N. 127, 126 and 125 are those of `execsrv run`.

Outside of a container it is a subreaper, and does the same for all that descends from the command.""",
    "run:init",
    arguments=(Argument("COMMAND", many=True),),
    options=(
        Option(("--grace",), "Kill all that has not ended that long after a SIGTERM. Default: never.", SPAN),
        Option(("--quiet", "-q"), "Say nothing about what outlived the command and was ended.", title="Output"),
        Option(("--verbose", "-v"), "Say as what it runs, and how it ended.", title="Output"),
    ),
    examples=(
        Example("execsrv init -- python3 -m http.server", "as the ENTRYPOINT of an image"),
        Example("execsrv init --grace 8s -- ./server", "before docker stop kills all of it, after ten seconds"),
    ),
    mixed=False,
    raw=True,
)

COMMANDS = (_RUN, _INIT)
