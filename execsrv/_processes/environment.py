"""The environment of a command: the one that was asked for, and how much of the server's lies below it.

The server's is the one that it was started with. It is fitted to the command: to its directory, and to its terminal.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from execsrv._processes.withheld import NOTHING, OWN_TOKEN, Withheld, is_secret, matches
from execsrv.errors import InvalidParamsError
from execsrv.protocol import EnvPolicy

CORE_VARIABLES = frozenset("HOME LOGNAME PATH SHELL USER TMPDIR TEMP TMP LANG LC_ALL LC_CTYPE".split())

_MOST_PATTERNS = 1000
"""So many patterns a policy may have: each is compared with each variable."""


def _made_by_python() -> frozenset[str]:
    """Return the variables that the interpreter has set for itself (PEP 538), so that no command sees them."""
    try:
        with open("/proc/self/environ", "rb") as file:
            given = file.read()
    except OSError:
        return frozenset()
    coerced = "LC_CTYPE" in os.environ and not any(entry.startswith(b"LC_CTYPE=") for entry in given.split(b"\0"))
    return frozenset({"LC_CTYPE"} if coerced else ())


_NOT_INHERITED = _made_by_python() | {OWN_TOKEN}


class _Inherited:
    """The environment that commands inherit, and what this process's own looked like when it was made."""

    def __init__(self) -> None:
        self.raw = _raw_environment()
        self.variables = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        self._kept: dict[Withheld, Mapping[str, str]] = {}

    def kept(self, withheld: Withheld) -> Mapping[str, str]:
        """Return the variables without those that are withheld; it is worked out once."""
        if withheld not in self._kept:
            self._kept = {withheld: withheld.kept(self.variables)}
        return self._kept[withheld]


def _raw_environment() -> dict[bytes, bytes] | None:
    """Return a copy of what `os.environ` holds, None for an interpreter that holds it in another way."""
    held = getattr(os.environ, "_data", None)
    return dict(held) if isinstance(held, dict) else None


_last: _Inherited | None = None


def inherited_environment(withheld: Withheld = NOTHING) -> Mapping[str, str]:
    """Return the environment that commands of this process inherit, where the server withholds some of it.

    It is decoded again only when it has changed: to compare it takes a hundredth of the time.
    """
    global _last
    last = _last
    if last is None or last.raw is None or last.raw != _raw_environment():
        _last = last = _Inherited()
    return last.kept(withheld)


def command_environment(
    policy: EnvPolicy | None,
    inherited: Mapping[str, str],
    overlay: Mapping[str, str],
    *,
    cwd: str | None = None,
    tty: bool = False,
    remove: Collection[str] = (),
) -> Mapping[str, str]:
    """Return the environment of a command: exactly `overlay`, or with what `policy` keeps of `inherited` below it.

    What is inherited is fitted to a command with this directory, where it has one of its own, and on a terminal.
    The order of the steps is the Codex exec-server's; what is to `remove` is taken out last.

    Raises `InvalidParamsError` for a name that is none, and for too many patterns.
    """
    check_names(overlay, "env")
    check_names(remove, "envRemove")
    if policy is not None:
        check_names(policy.set, "envPolicy.set")
        overlay = {**_kept(policy, _fitted(inherited, cwd, tty)), **overlay}
    if remove := frozenset(remove):
        overlay = {name: value for name, value in overlay.items() if name not in remove}
    return overlay


def check_names(names: Collection[str], field: str) -> None:
    """Raise `InvalidParamsError` for a name of a variable that is empty, or holds `=` or NUL."""
    for name in names:
        if not name or "=" in name or "\0" in name:
            problem = f"{name[:100]!r} is no name of a variable: it is empty, or holds `=` or NUL"
            raise InvalidParamsError(f"{field}: {problem}", field=field)


def _fitted(inherited: Mapping[str, str], cwd: str | None, tty: bool) -> dict[str, str]:
    fitted = dict(inherited)
    if cwd is not None:
        fitted.pop("OLDPWD", None)
        if "PWD" in fitted:
            fitted["PWD"] = cwd
    if tty:
        fitted.pop("COLUMNS", None)
        fitted.pop("LINES", None)
    return fitted


def _kept(policy: EnvPolicy, inherited: Mapping[str, str]) -> dict[str, str]:
    if (count := len(policy.exclude) + len(policy.include_only)) > _MOST_PATTERNS:
        raise InvalidParamsError(f"envPolicy has {count} patterns: at most {_MOST_PATTERNS}", field="envPolicy")
    if policy.inherit == "all":
        kept = dict(inherited)
    else:
        kept = {name: value for name, value in inherited.items() if policy.inherit == "core" and name in CORE_VARIABLES}
    if not policy.ignore_default_excludes:
        kept = {name: value for name, value in kept.items() if not is_secret(name, value)}
    if policy.exclude:
        kept = {name: value for name, value in kept.items() if not matches(name, policy.exclude)}
    kept.update(policy.set)
    if policy.include_only:
        kept = {name: value for name, value in kept.items() if matches(name, policy.include_only)}
    return kept
