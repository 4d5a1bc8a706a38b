"""The commands for files of a server, and for recordings."""

from __future__ import annotations

from execsrv._cli.register.common import MANNERS, SERVER, coming_back
from execsrv._cli.register.kinds import FACTOR, FILE, NUMBER, SOME_TIME, TEXT, Argument, Command, Example, Option, named

DEFAULT_RECONNECT_SECONDS = 60.0
"""Time to come back to a server that is lost, before a copy is given up."""

_PATH = named("PATH", TEXT, "files")

_CP = Command(
    "cp",
    "Copy files and trees to a server, or from it.",
    """\
Copy files and trees between this machine and a server.

A path on the server is written NAME:PATH, or :PATH. NAME is a session of yours that `execsrv ps` lists, and PATH counts
from its directory; :PATH counts from the server's own. One side of a copy is on the server. For a local name with a
colon, write `./a:b`.

A directory is copied with all that is in it; modes, times and links go along. If DESTINATION is a directory, the
sources are copied into it. Each file appears whole or not at all.

Files that are there already with the same size, time and mode are skipped. So a copy that was cut off continues: by
itself, within the time of --reconnect, or by the same command. A large file goes on where it stopped. If DESTINATION
was to be the copy of a directory, and exists by now, repeat the command with -T.""",
    "copying:copy",
    arguments=(
        Argument("SOURCE", named("SOURCE", TEXT, "files"), many=True, dest="sources"),
        Argument("DESTINATION", named("DESTINATION", TEXT, "files"), dest="destination"),
    ),
    options=(
        Option(("--no-target-directory", "-T"), "DESTINATION is the copy itself, also if it is a directory."),
        Option(("--again", "-f"), "Copy also what is there already, and continue nothing."),
        Option(("--jobs", "-j"), "That many files at a time.", NUMBER, default=8),
        *coming_back(SERVER, "Try for that time to come back to a server that is lost.", DEFAULT_RECONNECT_SECONDS),
        *MANNERS,
    ),
    examples=(
        Example("execsrv cp app.tar.gz :/srv/", "into a directory of the server"),
        Example("execsrv cp build:out/app .", "out of the directory of the session `build`"),
        Example("execsrv cp -u ssh://build -T src :work/src", "a tree, over ssh"),
    ),
)

_LS = Command(
    "files ls",
    "List a directory of a server.",
    "List directories and files of a server. A relative path counts from the server's own directory.",
    "files:ls",
    arguments=(Argument("PATH", _PATH, many=True, needed=False, dest="paths"),),
    options=(
        Option(("--long", "-l"), "With mode, size and time."),
        Option(("--all", "-a"), "Also those whose names begin with a dot.", dest="hidden"),
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

It is written as a whole, with the mode that it had. If it was changed there in the meantime, it is not overwritten.
Then, or if it cannot be written, your text is kept here, and its path is printed. A file that is not there is made.""",
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
Ctrl-C ends. The questions that the recorded program asked its terminal are not repeated, and yours is left as it was.
If stdout is no terminal, the output is written at once, without the pauses.""",
    "play:play",
    arguments=(Argument("FILE", FILE, dest="path"),),
    options=(
        Option(("--speed", "-s"), "That many times as fast.", FACTOR, default=1.0),
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

COMMANDS = (_CP, _LS, _CAT, _EDIT, _PLAY)
