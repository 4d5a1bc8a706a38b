"""The command that starts commands for a server where that cannot."""

from __future__ import annotations

from execsrv._cli.register.kinds import FILE, NUMBER, USAGE, Command, Example, Kind, Option

_RUNNER = Command(
    "runner",
    "Start commands for a server that cannot enter this place itself.",
    """\
Start commands for a server in a place that it cannot enter itself: as another user, in a container, on another machine.
A server starts its runners itself.

It speaks frames on stdin and stdout, and ends with whoever is at the other end. Then nothing is left of what it has
started. In version 1 of the frames it runs one command, and its exit status is that of
the command; 192 means that its time was over. Any other failure is exit status 1, a wrong command line 2.

Instead of using stdin and stdout, it can open what the server has made for it. That has to belong to this user, to
root, or to a user whom `--peer-uid` names, and nobody else may be allowed to open it.""",
    "runner:runner",
    options=(
        Option(("--pipe",), "A unix socket, for both directions.", FILE),
        Option(("--pipe-in",), "A FIFO to read from. With --pipe-out; then --pipe is passed over.", FILE),
        Option(("--pipe-out",), "A FIFO to write to.", FILE),
        Option(
            ("--request-file",),
            "A file with one request, which is removed and carried out, instead of any channel: the old way.",
            FILE,
        ),
        Option(
            ("--peer-uid",),
            "Take what belongs to this user too, by number. Repeatable.",
            Kind("UID", NUMBER.read, NUMBER.expected),
            many=True,
        ),
    ),
    examples=(Example("sudo -n -u box execsrv runner", "as another user"),),
    failure=1,
    usage=USAGE,
    raw=True,
)

COMMANDS = (_RUNNER,)
