"""The command that says what a machine can do."""

from __future__ import annotations

from execsrv._cli.register.common import MANNERS
from execsrv._cli.register.kinds import USAGE, Command, Example

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

COMMANDS = (_DOCTOR,)
