"""The commands for files of a server, and for recordings."""

from __future__ import annotations

from execsrv._cli.register.common import MANNERS, SERVER
from execsrv._cli.register.kinds import FACTOR, FILE, SOME_TIME, TEXT, Argument, Command, Example, Option, named

_PATH = named("PATH", TEXT, "files")

_LS = Command(
    "files ls",
    "List a directory of a server.",
    "List directories and files of a server. A relative path counts from the server's own directory.",
    "files:ls",
    arguments=(Argument("PATH", _PATH, many=True, needed=False, dest="paths"),),
    options=(
        Option(("--long", "-l"), "With mode, size and time."),
        Option(("--all", "-a"), "Those whose names begin with a dot too.", dest="hidden"),
        *SERVER,
        *MANNERS,
    ),
    examples=(
        Example("execsrv files ls -l /srv", "with mode, size and time"),
        Example("execsrv files ls --json", "every fact of every entry"),
    ),
)

_CAT = Command(
    "files cat",
    "Print files of a server.",
    "Write files of a server to stdout, one after the other, as they are.",
    "files:cat",
    arguments=(Argument("PATH", _PATH, many=True, dest="paths"),),
    options=(*SERVER, *MANNERS),
    examples=(Example("execsrv files cat /etc/os-release", "one file"),),
)

_EDIT = Command(
    "files edit",
    "Edit a file of a server in your editor.",
    """\
Fetch a file of a server, open it in VISUAL, EDITOR or vi here, and put it back if it was changed.

It is written as a whole, with the mode that it had. Where it was changed there in the meantime, it is not overwritten:
yours is kept here, and its path is said. A file that is not there is made.""",
    "files:edit",
    arguments=(Argument("PATH", _PATH, dest="path"),),
    options=(
        Option(("--force", "-f"), "Overwrite what was changed there in the meantime."),
        *SERVER,
        *MANNERS,
    ),
    examples=(Example("execsrv files edit /etc/hosts", "in the editor that EDITOR names"),),
)

_PLAY = Command(
    "play",
    "Play a recording in the terminal.",
    """\
Play an asciicast, version 3 or 2, in this terminal: what `execsrv run --record` and `client.record` have made.

Space pauses and goes on, `.` steps while paused, `]` goes to the next marker, `+` and `-` change the speed, `q` or
Ctrl-C ends. Where stdout is no terminal the output is written at once, without the pauses.""",
    "play:play",
    arguments=(Argument("FILE", FILE, dest="path"),),
    options=(
        Option(("--speed", "-s"), "So many times as fast.", FACTOR, default=1.0),
        Option(
            ("--idle-limit", "-i"),
            "Shorten every silence to that time. Default: what the recording says.",
            SOME_TIME,
            dest="idle_limit",
        ),
        Option(("--all-at-once",), "Write all of it at once."),
        *MANNERS,
    ),
    examples=(
        Example("execsrv play demo.cast", "as it was"),
        Example("execsrv play -s 4 -i 1s demo.cast", "four times as fast, no silence above a second"),
        Example("execsrv play --json demo.cast", "its header, its length and how it ended"),
    ),
)

COMMANDS = (_LS, _CAT, _EDIT, _PLAY)
