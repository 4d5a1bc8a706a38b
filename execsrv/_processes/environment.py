"""The environment of a command: the one that was asked for, and how much of the server's lies below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from execsrv.protocol import EnvPolicy

CORE_VARIABLES = frozenset("HOME LOGNAME PATH SHELL USER TMPDIR TEMP TMP LANG LC_ALL LC_CTYPE".split())
DEFAULT_EXCLUDES = ("*KEY*", "*SECRET*", "*TOKEN*")


def command_environment(
    policy: EnvPolicy | None, inherited: Mapping[str, str], overlay: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the environment of a command: exactly `overlay`, or with what `policy` keeps of `inherited` below it.

    The order of the steps is the Codex exec-server's.
    """
    if policy is None:
        return overlay
    excludes = [*([] if policy.ignore_default_excludes else DEFAULT_EXCLUDES), *policy.exclude]
    kept = {
        name: value
        for name, value in inherited.items()
        if (policy.inherit == "all" or (policy.inherit == "core" and name in CORE_VARIABLES))
        and not _matches(name, excludes)
    }
    kept.update(policy.set)
    if policy.include_only:
        kept = {name: value for name, value in kept.items() if _matches(name, policy.include_only)}
    return {**kept, **overlay}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)
