"""The state of a bash as text: the script that prints it, and the one that restores it. Pure: nothing is run here.

Everything that later commands can see is in it: variables with their attributes, functions, aliases, options, traps,
the umask. So is what no script gives back to a new shell (another directory, other limits, open descriptors, positional
parameters): it shows when the state of the new shell is printed too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import NamedTuple

_CAPTURE = r"""__execsrv_status=$?
\builtin printf '\0%s\0%s\0' TOKEN "$__execsrv_status"
\builtin set +o; \builtin printf '\0'
\builtin trap -p; \builtin printf '\0'
\builtin trap - DEBUG ERR RETURN EXIT; \builtin set +efuxvC
\builtin shopt -p; \builtin printf '\0'
\builtin umask -p; \builtin printf '\0'
\builtin declare -f; \builtin printf '\0'
\builtin declare -F; \builtin printf '\0'
\builtin enable -n; \builtin printf '\0'
\builtin declare -p IFS 2>/dev/null || \builtin printf 'unset -v IFS\n'
IFS=$'\n'
for __execsrv_name in $(\builtin compgen -v); do
  case $__execsrv_name in
    EACH|__execsrv_*|IFS|BASH|BASHOPTS|BASHPID|BASH_ALIASES|BASH_ARG[CV]|BASH_ARGV0|BASH_CMDS) ;;
    BASH_COMMAND|BASH_EXECUTION_STRING|BASH_LINENO|BASH_MONOSECONDS|BASH_REMATCH|BASH_SOURCE|BASH_SUBSHELL) ;;
    BASH_TRAPSIG|BASH_VERSINFO|BASH_VERSION|COMP_WORDBREAKS|DIRSTACK|EPOCHREALTIME|EPOCHSECONDS|EUID|FUNCNAME) ;;
    GROUPS|HISTCMD|LINENO|PIPESTATUS|PPID|RANDOM|SECONDS|SHELLOPTS|SRANDOM|UID) ;;
    *) \builtin declare -p "$__execsrv_name" ;;
  esac
done
for __execsrv_name in NAMES; do
  \builtin declare -p "$__execsrv_name" >/dev/null 2>&1 || \builtin printf 'unset -v %s\n' "$__execsrv_name"
done
\builtin printf '\0'
\builtin alias -p; \builtin printf '\0'
__execsrv_open=(/proc/$$/fd/*)
[[ /proc/$$/fd/0 -ef /dev/null && /proc/$$/fd/2 -ef /dev/null ]]
\builtin printf '%s ' $? $# ${#__execsrv_open[@]} ${OLDPWD+moved}; \builtin printf '\0'
\builtin printf '%s' "$(</proc/$$/limits)"
\builtin printf '\0%s' TOKEN
"""

OF_EACH_START = ("_", "PWD", "OLDPWD", "SHLVL", "TRACEPARENT", "TRACESTATE", "CODEX_TOOL_CALL_ID")
"""Variables that each shell, or each start, has for itself. They are in no state."""

_OWN_NAMES = "PATH TERM SHELL HOSTNAME HOSTTYPE MACHTYPE OSTYPE OPTIND OPTERR PS4".split()
"""Variables that bash makes for itself."""

_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_NEVER_UNSET = frozenset("IFS BASHOPTS SHELLOPTS UID EUID PPID BASH_VERSINFO".split())
_ON_BY_DEFAULT = frozenset((b"braceexpand", b"hashall", b"interactive-comments"))
_OTHER_SHOPTS = (b" login_shell", b" restricted_shell", b" expand_aliases")
"""Two that nobody can set, and one that is set at the end."""

_TRACING = frozenset((b"set -o xtrace", b"set -o verbose"))


class State(NamedTuple):
    """The parts of what the capturing script prints, in its order."""

    status: bytes
    options: bytes
    traps: bytes
    shopts: bytes
    umask: bytes
    functions: bytes
    function_attributes: bytes
    disabled: bytes
    variables: bytes
    aliases: bytes
    facts: bytes
    limits: bytes


def capturing(token: str, names: Iterable[str]) -> bytes:
    """Return the script that prints the state of its shell, between two of the `token`.

    `names` are the variables that it was started with: those which are gone are in the state too.
    """
    wanted = {*_OWN_NAMES, *filter(_IDENTIFIER.fullmatch, names)} - _NEVER_UNSET - {*OF_EACH_START}
    words = {"TOKEN": shlex.quote(token), "NAMES": " ".join(sorted(wanted)), "EACH": "|".join(OF_EACH_START)}
    return re.sub("TOKEN|NAMES|EACH", lambda found: words[found[0]], _CAPTURE).encode()


def is_whole(printed: bytes | bytearray, token: str) -> bool:
    """Return whether all has been printed."""
    mark = b"\0" + token.encode()
    return printed.endswith(mark) and printed.count(mark) >= 2


def read(printed: bytes | bytearray, token: str) -> State | None:
    """Return the state that was printed, None for another number of parts. Login files have printed before it."""
    parts = bytes(printed).split(b"\0" + token.encode())[-2].split(b"\0")[1:]
    return State(*parts) if len(parts) == len(State._fields) else None


def is_same(state: State, other: State) -> bool:
    """Return whether two shells cannot be told apart. Each command has a mark of its own among its limits."""
    return state._replace(limits=_unmarked(state.limits)) == other._replace(limits=_unmarked(other.limits))


def _unmarked(limits: bytes) -> bytes:
    return b"\n".join(line for line in limits.splitlines() if not line.startswith(b"Max realtime timeout"))


def sees_each_command(state: State) -> bool:
    """Return whether a trap would see how the rest is restored."""
    return re.search(rb" DEBUG$", state.traps, re.MULTILINE) is not None


def restoring(state: State) -> bytes:
    """Return the script that restores a state in a new shell, which reads it as its BASH_ENV.

    Options that change how text is read come before the functions, and what would change the script itself at its end,
    in one piece that is read before it has an effect.
    """
    shopts = [line for line in state.shopts.splitlines() if not line.endswith(_OTHER_SHOPTS)]
    shopts = [line for line in shopts if not line.startswith(b"shopt -u compat")]  # it would set BASH_COMPAT
    attributes = [line for line in state.function_attributes.splitlines() if not line.startswith(b"declare -f ")]
    options = [line for line in state.options.splitlines() if _differs(line)]
    options.sort(key=_TRACING.__contains__)
    aliases_on = [line for line in state.shopts.splitlines() if line.endswith(b" expand_aliases")]
    parts = [
        b'eval "exec ${BASH_ENV#/dev/fd/}<&-"\nunset -v BASH_ENV',
        b"\n".join(shopts),
        state.functions,
        b"\n".join(attributes),
        state.disabled,
        state.variables,
        state.aliases,
        state.umask,
        b"{",
        *aliases_on,
        state.traps,
        *options,
        b"true" if state.status == b"0" else b"(exit %s)" % state.status,
        b"}\n",
    ]
    return b"\n".join(parts)


def _differs(option: bytes) -> bool:
    """Return whether a line of `set +o` is not what a new shell has."""
    _, sign, name = option.split()
    return (sign == b"+o") == (name in _ON_BY_DEFAULT)
