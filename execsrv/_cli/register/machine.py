"""The commands that say what a machine and a server can do."""

from __future__ import annotations

from execsrv._cli.register.common import MANNERS, SERVER
from execsrv._cli.register.kinds import FILE, NUMBER, USAGE, Command, Example, Option

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
    "List every ceiling of a server: its setting and its use.",
    """\
List the ceilings of a server: how much of each is in use, by everybody and by you, how much there may be, how often
somebody was refused, and the setting that changes it.""",
    "limits:limits",
    options=(
        Option(("--all", "-a"), "Those without a current use too: sizes and times.", dest="everything"),
        *SERVER,
        *MANNERS,
    ),
    examples=(
        Example("execsrv limits", "what is in use"),
        Example("execsrv limits --json --all", "every setting that is a bound"),
    ),
)

_BENCH = Command(
    "bench",
    "Measure on this machine what we publish.",
    """\
Measure the figures that the documentation publishes, on this machine: starts, output through pipes and terminals, the
round trip of a key, and the start of a server. Without --url a server is started for it. Nothing passes or fails.

`--plot` draws them as an SVG. `python tests/benchmarks/bench.py` in the sources compares with other servers.""",
    "bench:bench",
    options=(
        Option(("--rounds", "-r"), "Take the median of so many rounds.", NUMBER, default=3),
        Option(("--plot", "-p"), "Write a plot there, as SVG.", FILE),
        *SERVER,
        *MANNERS,
    ),
    examples=(
        Example("execsrv bench", "a table"),
        Example("execsrv bench --plot bench.svg", "and a plot"),
        Example("execsrv bench --url ssh://build", "through ssh, on another machine"),
    ),
)

COMMANDS = (_DOCTOR, _LIMITS, _BENCH)
