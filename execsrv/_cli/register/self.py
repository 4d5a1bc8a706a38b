"""The commands about the command line itself, and the one that it runs by itself elsewhere."""

from __future__ import annotations

from execsrv._cli.register.kinds import TEXT, USAGE, Argument, Command, Example, Kind, Option

_SHELLS = ("bash", "zsh", "fish")


def _shell(text: str) -> str:
    if text not in _SHELLS:
        raise ValueError
    return text


_COMPLETION = Command(
    "completion",
    "Print what completes the command line in your shell.",
    """\
Print a script for bash, zsh or fish, which completes commands, options, files, and the names of what runs on the
server.""",
    "completion:completion",
    arguments=(Argument("SHELL", Kind("SHELL", _shell, "`bash`, `zsh` or `fish`", " ".join(_SHELLS)), dest="shell"),),
    examples=(
        Example('eval "$(execsrv completion bash)"', "in ~/.bashrc"),
        Example("execsrv completion zsh > ~/.zfunc/_execsrv", "in a directory of `fpath`"),
        Example("execsrv completion fish > ~/.config/fish/completions/execsrv.fish", "for fish"),
    ),
    usage=USAGE,
)

_MAN = Command(
    "man",
    "Show the manual page.",
    "Show the manual page of all commands on a terminal; elsewhere print its source, for man(1).",
    "man:man",
    options=(Option(("--source",), "Print the source on a terminal too."),),
    examples=(
        Example("execsrv man", "read it"),
        Example("execsrv man > ~/.local/share/man/man1/execsrv.1", "install it"),
    ),
    usage=USAGE,
)

_BRIDGE = Command(
    "bridge",
    "Act as the far end of a connection that may be cut.",
    """\
Join stdin and stdout to the server called NAME, which keeps a lost connection for GRACE seconds.

The first bridge starts the server. It is for one client, and ends with it. `run --reconnect` has a bridge at the far
end of `ssh://` and the like; with `exec:COMMAND` the command may be one.""",
    "bridge:bridge",
    arguments=(Argument("NAME", TEXT, dest="name"), Argument("GRACE", TEXT, dest="grace")),
    examples=(Example("ssh build execsrv bridge mine 600", "kept for ten minutes"),),
    failure=1,
    usage=USAGE,
)

COMMANDS = (_COMPLETION, _MAN, _BRIDGE)
