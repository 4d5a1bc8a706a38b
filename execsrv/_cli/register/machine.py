"""The commands that say what a machine and a server can do."""

from __future__ import annotations

from execsrv._cli.register.common import MANNERS, SERVER
from execsrv._cli.register.kinds import USAGE, Command, Example, Option

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

COMMANDS = (_DOCTOR, _LIMITS)
