"""The command that is spread over many servers."""

from __future__ import annotations

from execsrv._cli.register.common import LABEL_OPTION, POOL_OPTION, SERVER, coming_back
from execsrv._cli.register.kinds import FILE, NUMBER, SOME_TIME, Argument, Command, Example, Option, named

DEFAULT_LIMIT = 64
"""Commands at a time: enough to keep three machines busy with short ones, and few to lose with a client."""

DEFAULT_OUTPUT_BYTES = 1024 * 1024

DEFAULT_RECONNECT_SECONDS = 10.0

_MAP = Command(
    "map",
    "Run a command for each line of stdin, over many servers.",
    """\
Run a command for each line of stdin, over the servers of a pool, and print a line of JSON for each result as soon as
it arrives: `line` and `input`, `argv`, `server`, `exitCode`, `signal`, `reason`, `stdout` and `stderr`.

Each `{}` in the command stands for the line; if there is none, the line is added as the last word. No shell reads it.

A command whose start has failed is tried elsewhere. One whose server was lost may have run, wholly or in part: its
result has the `kind` `unknown`, and nothing is run twice without `--idempotent`.

Ctrl-C starts no more and waits for what runs; a second one ends that. With `--journal` the same command over the
same input goes on where it had stopped.

The exit status is 0 when all commands succeeded, 1 when one did not, and 125 when execsrv itself failed. Those that an
earlier run has in the journal count too.""",
    "mapping:map_lines",
    arguments=(Argument("COMMAND", many=True, dest="command"),),
    options=(
        Option(("--limit", "-j"), "Run that many at a time.", NUMBER, default=DEFAULT_LIMIT),
        Option(
            ("--journal",),
            "Record in this file how far each line has come, and repeat none that has ended. It has the results too.",
            FILE,
        ),
        Option(("--idempotent",), "Run a command again if nobody knows whether it has run."),
        Option(("--timeout",), "End a command after that time.", SOME_TIME),
        Option(
            ("--max-output",),
            "Keep that many bytes of each stream of a command: its beginning and its end.",
            named("BYTES", NUMBER),
            default=DEFAULT_OUTPUT_BYTES,
        ),
        POOL_OPTION,
        LABEL_OPTION,
        *coming_back(
            (option for option in SERVER if option.key != "no_bring"),
            "Try for that time to take a lost connection up again, before it counts as lost.",
            DEFAULT_RECONNECT_SECONDS,
        ),
        Option(("--json",), "Print JSON, as it does anyway.", dest="as_json", title="Output"),
        Option(("--quiet", "-q"), "Say nothing but errors, and show no progress.", title="Output"),
        Option(("--verbose", "-v"), "Say more about errors.", title="Output"),
    ),
    examples=(
        Example("seq 1000 | execsrv map --pool servers -- sh -c 'echo {}'", "over the servers that joined a file"),
        Example("execsrv map --pool ray://execsrv --journal j -- make {} <targets", "over a Ray cluster, in two goes"),
    ),
    mixed=False,
)

COMMANDS = (_MAP,)
