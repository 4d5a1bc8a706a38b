"""`execsrv completion`: a script for a shell, which asks `execsrv _complete` for the words that fit.

What fits is told by the register alone. Only for names of sessions a server is asked, where it answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from execsrv._cli.manners import print_text
from execsrv._cli.register import GROUPS, command, names
from execsrv._cli.register.common import DEFAULT_URL, URL_VARIABLE
from execsrv._cli.register.kinds import Argument, Command, Kind

_ASK_SECONDS = 1.0
"""Time that a server has to say what runs there. Somebody waits for his shell meanwhile."""

_BASH = """\
_execsrv() {
    local IFS=$'\\n' word=${COMP_WORDS[COMP_CWORD]} reply found
    mapfile -t reply < <(execsrv _complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=()
    for found in "${reply[@]:1}"; do
        printf -v "COMPREPLY[${#COMPREPLY[@]}]" %q "$found"  # a name that others choose is no command
    done
    case ${reply[0]} in
        files) COMPREPLY+=($(compgen -f -- "$word")); compopt -o filenames ;;
        directories) COMPREPLY+=($(compgen -d -- "$word")); compopt -o filenames ;;
        commands) COMPREPLY+=($(compgen -c -- "$word")) ;;
        variables) COMPREPLY+=($(compgen -v -- "$word")) ;;
    esac
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace
    return 0
}
complete -F _execsrv execsrv
"""

_ZSH = """\
#compdef execsrv
_execsrv() {
    local -a reply
    reply=("${(@f)$(execsrv _complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -- "${(@)reply[2,-1]:#}"
    case $reply[1] in
        files) _files ;;
        directories) _files -/ ;;
        commands) _command_names -e ;;
        variables) _parameters ;;
    esac
}
compdef _execsrv execsrv
"""

_FISH = """\
function __execsrv_complete
    set -l words (commandline -opc)[2..] (commandline -ct)
    set -l reply (execsrv _complete $words 2>/dev/null)
    test (count $reply) -gt 1; and printf '%s\\n' $reply[2..]
    switch "$reply[1]"
        case files
            __fish_complete_path (commandline -ct)
        case directories
            __fish_complete_directories (commandline -ct)
        case commands
            complete -C (commandline -ct)
        case variables
            set --names
    end
end
complete -c execsrv -f -a '(__execsrv_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(*, shell: str) -> int:
    """Print the script for a shell."""
    print_text(_SCRIPTS[shell])
    return 0


def complete(words: Sequence[str]) -> int:
    """Print what may stand in place of the last word: a kind that the shell itself knows, and a line for each word."""
    kind, found = _fitting(list(words[:-1]), words[-1] if words else "")
    last = words[-1] if words else ""
    print_text("\n".join([kind, *(word for word in found if word.startswith(last))]) + "\n")
    return 0


def _fitting(before: list[str], last: str) -> tuple[str, list[str]]:
    known = names()
    if not before:
        return "", [*dict.fromkeys(name.partition(" ")[0] for name in known), "--help", "--version"]
    if before[0] in GROUPS:
        if len(before) == 1:
            return "", [name.partition(" ")[2] for name in known if name.startswith(f"{before[0]} ")]
        name, rest = " ".join(before[:2]), before[2:]
    else:
        name, rest = before[0], before[1:]
    return _of_command(command(name), rest, last) if name in known else ("", [])


def _of_command(found: Command, before: list[str], last: str) -> tuple[str, list[str]]:
    by_name = found.by_name
    place, options_over, waiting = 0, False, None
    for word in before:
        if waiting is not None:
            waiting = None
        elif not options_over and word == "--":
            options_over = True
        elif not options_over and word.startswith("-") and word != "-":
            option = by_name.get(word.partition("=")[0])
            waiting = option if option is not None and option.kind is not None and "=" not in word else None
        else:
            place += 1
            options_over |= not found.mixed
    if waiting is not None:
        return _of_kind(waiting.kind)
    if last.startswith("-") and not options_over:
        name, equals, _ = last.partition("=")
        option = by_name.get(name)
        if equals and option is not None and option.kind is not None:
            return "", [f"{name}={word}" for word in _of_kind(option.kind)[1]]
        return "", sorted([*by_name, "--help"])
    if (argument := _argument_at(found, place)) is None:
        return "", []
    if found.name == "run":
        return ("commands" if place == 0 else "files"), []
    if argument.kind.complete == "sessions":
        return "", _sessions(before)
    return _of_kind(argument.kind)


def _sessions(before: list[str]) -> list[str]:
    """Return the names of what runs on the server that the words before name."""
    given = {"--url": os.environ.get(URL_VARIABLE) or DEFAULT_URL, "--token-file": None}
    for word, following in pairwise([*before, ""]):
        name, equals, value = word.partition("=")
        name = {"-u": "--url"}.get(name, name)
        if name in given:
            given[name] = value if equals else following
    if not (given["--url"] or "").startswith(("unix:", "ws:", "wss:")):
        return []  # the way to it may take longer, and ask for a password
    import trio

    from execsrv._cli.finding import listing
    from execsrv._cli.reach import Reach
    from execsrv.errors import ExecsrvError

    async def ask() -> list[str]:
        with trio.move_on_after(_ASK_SECONDS):
            async with Reach(given["--url"], given["--token-file"]).connect() as client:
                return [name for name in (await listing(client)).by_name if name.isprintable()]
        return []

    with suppress(ExecsrvError, OSError):
        return trio.run(ask)
    return []


def _argument_at(found: Command, place: int) -> Argument | None:
    for number, argument in enumerate(found.arguments):
        if number == place or (argument.many and place >= number):
            return argument
    return None


def _of_kind(kind: Kind | None) -> tuple[str, list[str]]:
    if kind is None:
        return "", []
    if kind.complete in ("files", "directories", "variables"):
        return kind.complete, []
    return "", kind.complete.split()
