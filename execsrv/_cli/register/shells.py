"""The command for a shell elsewhere."""

from __future__ import annotations

from execsrv._cli.register.common import REACHING, SERVER, coming_back, url_option
from execsrv._cli.register.kinds import DIRECTORY, TEXT, Argument, Command, Example, Option, named

DEFAULT_RECONNECT_SECONDS = 60.0
"""Time to come back in after a network that is lost: a laptop has been carried elsewhere."""

ESCAPE = Option(
    ("--escape",),
    "The key that, at the start of a line, gives commands to execsrv: a character, ^], or none.",
    named("KEY"),
    default="~",
)


_COMES_BACK = "Try for that time to take a lost connection up again."

PATIENT_SERVER = coming_back(SERVER, _COMES_BACK, DEFAULT_RECONNECT_SECONDS)
"""The options of a command that asks a server, and that somebody sits at."""

_SHELL = Command(
    "shell",
    "Open a login shell on a server.",
    """\
Open a login shell on a server, or run another command there, as over ssh.

At the start of a line, `~.` ends it, `~^Z` suspends, `~r` repaints the screen, and `~?` lists these keys. With
`--name` there is `~d`, which leaves it running.""",
    "shell:shell",
    arguments=(
        Argument("URL", named("URL"), needed=False, dest="place"),
        Argument("COMMAND", TEXT, many=True, needed=False, dest="argv"),
    ),
    options=(
        Option(("--cwd",), "Its directory. Default: the user's home.", DIRECTORY),
        Option(
            ("--env", "-e"),
            "Set a variable, on top of all of the server's. NAME alone takes your value along.",
            named("NAME[=VALUE]", complete="variables"),
            many=True,
        ),
        ESCAPE,
        Option(
            ("--name",),
            "Keep it under that name when ~d leaves it, or its terminal is gone. `execsrv attach NAME` brings it back.",
            named("NAME"),
        ),
        url_option("the socket of this user. URL in front of the command goes before it"),
        *coming_back(REACHING, _COMES_BACK, DEFAULT_RECONNECT_SECONDS),
        Option(
            ("--json",), "Say at the end, in a line of JSON on stderr, how it ended.", dest="as_json", title="Output"
        ),
        Option(("--quiet", "-q"), "Say nothing about lost connections, or about what is left running.", title="Output"),
        Option(("--verbose", "-v"), "Say where it runs, as what, and how it ended.", title="Output"),
    ),
    examples=(
        Example("execsrv shell", "on the server of this user"),
        Example("execsrv shell ssh://build", "on another machine"),
        Example("execsrv shell ws://127.0.0.1:8765 top", "another program"),
        Example("execsrv shell --name work", "one that can be left and found again"),
    ),
    mixed=False,
    raw=True,
)

COMMANDS = (_SHELL,)
