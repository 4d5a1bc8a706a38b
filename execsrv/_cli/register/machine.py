"""The commands that say what a machine and a server can do."""

from __future__ import annotations

from execsrv._cli.register.common import MANNERS, REACHING, SERVER, url_option
from execsrv._cli.register.kinds import FILE, NUMBER, USAGE, Command, Example, Option, named

_DOCTOR = Command(
    "doctor",
    "Check how reliably this machine can track and end processes.",
    """\
Check how reliably this machine can track and end processes.

Lists the means that it offers, what they guarantee, and what can still escape. This is about this machine: no server is
asked.""",
    "doctor:doctor",
    options=MANNERS,
    examples=(
        Example("execsrv doctor", "for people"),
        Example("execsrv doctor --json", "for programs"),
    ),
    usage=USAGE,
)

_LIMITS = Command(
    "limits",
    "List the ceilings of a server, with what is in use of each.",
    """\
List the ceilings of a running server: how much of each is in use, how much there may be, and the option of `serve`
that sets it. For limits of one connection or session, the one that uses most is shown, of those that
you may see.

Only owners are shown what all users have together. For a rate, the figure is what may come at once after a rest.""",
    "limits:limits",
    options=(
        Option(("--all", "-a"), "Also those of which nothing is counted: sizes and times.", dest="everything"),
        *SERVER,
        *MANNERS,
    ),
    examples=(
        Example("execsrv limits", "what is in use"),
        Example("execsrv limits --json --all", "every ceiling, for programs"),
    ),
)

_BENCH = Command(
    "bench",
    "Measure on this machine the figures that we publish.",
    """\
Measure the figures of the documentation on this machine: starts, the round trip of a key, output, input and files.

A server is started for it, on a socket of its own, unless --url or `EXECSRV_URL` names one. The client has its share in
every figure, and runs in Python as your programs do. Nothing passes or fails. Each figure is the median of some rounds;
the spread is the distance from the lowest to the highest: a difference within it says nothing.""",
    "bench:bench",
    options=(
        Option(("--rounds", "-r"), "Take the median of that many rounds.", NUMBER, default=3),
        Option(("--only", "-o"), "Measure that figure alone, by its name. Repeatable.", named("FIGURE"), many=True),
        Option(("--plot", "-p"), "Draw the figures into a file, as SVG.", FILE),
        url_option("a server that is started for it"),
        *REACHING,
        *MANNERS,
    ),
    examples=(
        Example("execsrv bench", "a table"),
        Example("execsrv bench --plot bench.svg", "and a plot"),
        Example("execsrv bench -u ssh://build --only 'key and echo'", "how far away another machine is"),
    ),
)

COMMANDS = (_DOCTOR, _LIMITS, _BENCH)
