"""The command that starts commands for a server where that cannot."""

from __future__ import annotations

from execsrv._cli.register.kinds import USAGE, Command, Example

_RUNNER = Command(
    "runner",
    "Start commands for a server that cannot enter this place itself.",
    """\
Start commands for a server in a place that it cannot enter itself: as another user, in a container, on another machine.
A server starts its runners by itself.

It speaks frames on stdin and stdout, as `docs/runner.md` has them, and ends with whoever is at the other end. Then
nothing is left of what it has started. In version 1 of the frames it runs one command, and its exit status is that of
the command; 192 says that its time was over. Any other failure is exit status 1, a wrong command line 2.""",
    "runner:runner",
    examples=(Example("sudo -n -u box execsrv runner", "as another user"),),
    failure=1,
    usage=USAGE,
    raw=True,
)

COMMANDS = (_RUNNER,)
