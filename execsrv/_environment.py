"""The machine that the server runs on: what it tells of it, and how much of its environment a command may see."""

from __future__ import annotations

import os
import pwd
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import execsrv
from execsrv._paths import path_from_wire, uri_from_path
from execsrv.errors import InvalidParams
from execsrv.protocol import EnvironmentConfig, EnvironmentConfigRead, EnvironmentInfo, EnvPolicy, Shell

CORE_VARIABLES = frozenset("HOME LOGNAME PATH SHELL USER TMPDIR TEMP TMP LANG LC_ALL LC_CTYPE".split())
DEFAULT_EXCLUDES = ("*KEY*", "*SECRET*", "*TOKEN*")


def environment_info(capabilities: dict[str, bool]) -> EnvironmentInfo:
    """What `initialize` tells of this machine. `capabilities` is what can be asked of the server."""
    shell = account_shell()
    temporary = os.environ.get("TMPDIR")
    return EnvironmentInfo(
        shell=Shell(os.path.basename(shell), shell),
        executor_version=package_version(),
        cwd=uri_from_path(_working_directory()),
        user_home_dir=uri_from_path(os.path.expanduser("~")),
        platform_os="macos" if sys.platform == "darwin" else sys.platform,
        temp_dir=uri_from_path(tempfile.gettempdir()),
        temporary_directories=[uri_from_path(temporary)] if temporary and os.path.isabs(temporary) else [],
        capabilities=capabilities,
    )


def environment_config(params: EnvironmentConfigRead) -> EnvironmentConfig:
    """Where Codex would keep its configuration here, and nothing of what is in it. Raises `InvalidParams`."""
    path_from_wire(params.cwd, "cwd")
    paths = params.config_paths + params.requirements_paths
    if not paths:
        raise InvalidParams("at least one config or requirements path is required", field="configPaths")
    if not all(paths):
        raise InvalidParams("TOML paths must contain at least one key segment", field="configPaths")
    home = os.path.expanduser("~")
    codex_home = os.environ.get("CODEX_HOME") or os.path.join(home, ".codex")
    return EnvironmentConfig(uri_from_path(home), uri_from_path(os.path.abspath(codex_home)), socket.gethostname())


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"  # it was removed


def package_version() -> str:
    """Return the version of execsrv, read when asked for: the package may not be whole yet."""
    return execsrv.__version__


def account_shell() -> str:
    """The login shell of the account that the server runs as."""
    try:
        return pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    except KeyError:
        return "/bin/sh"


def command_environment(
    policy: EnvPolicy | None, inherited: Mapping[str, str], overlay: Mapping[str, str]
) -> Mapping[str, str]:
    """The environment of a command: exactly `overlay`, or what `policy` keeps of the inherited one below it.

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
