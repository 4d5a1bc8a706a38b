"""The commands for the file of tokens."""

from __future__ import annotations

from execsrv._cli.register.kinds import FILE, TEXT, USAGE, Argument, Command, Example, Option, choice, named

_VARIABLE = "EXECSRV_SERVER_TOKEN_FILE"

_FILE = Option(
    ("--file", "-f"),
    f"The file of tokens. Default: that which {_VARIABLE} names.",
    FILE,
    variable=_VARIABLE,
    dest="path",
)
_NAME = Argument("NAME", TEXT, dest="name")
_ABOUT = """\


A server that is started with `--token-file FILE` takes the tokens in it. The file has only their hashes: a token is
shown once, when it is made. After a change, send SIGHUP to a running server."""

_NEW = Command(
    "token new",
    "Make a token, and print it.",
    f"Make a token, add it to a file, and print it.{_ABOUT}",
    "token:new",
    arguments=(_NAME,),
    options=(
        _FILE,
        Option(("--role",), "What it may be used for.", choice("owner", "writer", "viewer", "health"), default="owner"),
        Option(("--expires",), "Until when: 12h, 30d, or 2027-01-31T12:00. Default: for ever.", named("TIME", TEXT)),
        Option(("--out",), "Write the token there, for its user alone, and not to stdout.", FILE),
    ),
    examples=(
        Example("execsrv token new -f tokens alice", "for everything, for ever"),
        Example("execsrv token new -f tokens --role viewer --expires 30d bob", "to look on, for a month"),
    ),
    failure=1,
    usage=USAGE,
)

_LIST = Command(
    "token list",
    "List the tokens of a file.",
    f"List the tokens of a file: their names, roles and expiry.{_ABOUT}",
    "token:list_all",
    options=(_FILE, Option(("--json",), "Print JSON.", dest="as_json")),
    examples=(Example("execsrv token list -f tokens", "for people"),),
    failure=1,
    usage=USAGE,
)

_REVOKE = Command(
    "token revoke",
    "Take a token out of a file.",
    f"Take a token out of a file.{_ABOUT}",
    "token:revoke",
    arguments=(_NAME,),
    options=(_FILE,),
    examples=(Example("execsrv token revoke -f tokens bob", "takes effect once the server gets SIGHUP"),),
    failure=1,
    usage=USAGE,
)

COMMANDS = (_NEW, _LIST, _REVOKE)
