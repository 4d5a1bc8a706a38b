"""The commands that say what a machine and a server can do."""

from __future__ import annotations

from execsrv._cli.register.common import MANNERS, REACHING, SERVER, url_option
from execsrv._cli.register.kinds import FILE, NUMBER, USAGE, Command, Example, Option, named

_DOCTOR = Command(
    "doctor",
    "Say how well this machine keeps hold of processes.",
    """\
Say how well this machine keeps hold of processes.

Lists the means that it offers, what they guarantee, and what can still escape. It speaks of this machine, and asks no
server.""",
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
List the ceilings of a server that runs: how much of each is in use, how much there may be, and the option of `serve`
that sets it. Of connections and sessions the one with the most is shown, of those that you may see.

What all users have together is told to owners alone. Of a rate, it is what may come at once, after a while of rest.""",
    "limits:limits",
    options=(
        Option(("--all", "-a"), "Those of which nothing is counted too: sizes and times.", dest="everything"),
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
    "Measure on this machine what we publish.",
    """\
Measure the figures of the documentation on this machine: starts, the round trip of a key, output, input and files.

A server is started for it, on a socket of its own, unless --url or `EXECSRV_URL` names one. The client has its share in
every figure, and runs in Python as your programs do. Nothing passes or fails. Each figure is the median of some rounds;
the spread is the distance from the lowest to the highest: a difference within it says nothing.""",
    "bench:bench",
    options=(
        Option(("--rounds", "-r"), "Take the median of so many rounds.", NUMBER, default=3),
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
