"""The machine that the server runs on: what it tells of it, and of directories in which a client hopes for more.

This server looks into none of those: a client reads what it wants with `fs/*`. It only tells whether a root is there,
and that nothing was looked for. The methods exist because clients fail without an answer; no capability announces
them.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from execsrv._files.channel import file_capabilities
from execsrv._http.channel import http_capabilities
from execsrv._threads import Threads, run_briefly
from execsrv._version import __version__
from execsrv._wire.paths import path_from_wire, uri_from_path
from execsrv.errors import BusyError, FileError, InvalidParamsError
from execsrv.limits import ServerConfig
from execsrv.protocol import (
    CapabilityRoot,
    CapabilityRootFound,
    CapabilityRootsFound,
    EnvironmentConfig,
    EnvironmentConfigRead,
    EnvironmentInfo,
    Shell,
)
from execsrv.protocol.connection import PASS_STREAMS

if TYPE_CHECKING:
    from execsrv._files.files import Files

_WARNING = "this server does not look for plugins and skills"

_ACCOUNT_SECONDS = 0.5
"""So long an `initialize` waits for the name service."""

_BRIEF_SECONDS = 0.002
"""So long the loop waits for it: most ask a file."""

_account: pwd.struct_passwd | None = None
"""The entry of our account, once it was found."""


def environment_info(config: ServerConfig, *, passes: bool) -> EnvironmentInfo:
    """Return the facts that `initialize` tells of this machine, and what can be asked of the server.

    `passes`: descriptors go along over this channel. Succeeds on every machine, and writes nothing to find out;
    `look_up_account` is called before.
    """
    passing = {PASS_STREAMS: True} if passes else {}
    own = {"environmentConfigRead": True} | _shell_capabilities()
    shell = _account_shell()
    cwd = _working_directory()
    temporary = os.environ.get("TMPDIR")
    return EnvironmentInfo(
        shell=Shell(os.path.basename(shell), shell),
        executor_version=__version__,
        cwd=None if cwd is None else uri_from_path(cwd),
        user_home_dir=uri_from_path(_home()),
        platform_os="linux",
        temp_dir=uri_from_path(_temporary_directory()),
        temporary_directories=[uri_from_path(temporary)] if temporary and os.path.isabs(temporary) else [],
        capabilities=own | http_capabilities(config) | file_capabilities(config) | passing,
    )


def _shell_capabilities() -> dict[str, bool]:
    """Return the capability of snapshots: this machine has files without a name, and lets a shell open one."""
    return {"shellSnapshotV2": hasattr(os, "memfd_create") and os.path.exists("/dev/fd")}


def environment_config(params: EnvironmentConfigRead) -> EnvironmentConfig:
    """Return where Codex would keep its configuration here, and nothing of it. Raises `InvalidParamsError`."""
    path_from_wire(params.cwd, "cwd")
    paths = params.config_paths + params.requirements_paths
    if not paths:
        raise InvalidParamsError("at least one config or requirements path is required", field="configPaths")
    if not all(paths):
        raise InvalidParamsError("TOML paths must contain at least one key segment", field="configPaths")
    return EnvironmentConfig(uri_from_path(_home()), uri_from_path(_codex_home()), _host_name())


def _working_directory() -> str | None:
    """Return where this process runs, None where that was removed or cannot be told."""
    try:
        return _absolute(os.getcwd())
    except OSError:
        return None


def _home() -> str:
    """Return the home of the account, or the root where it has none."""
    return _absolute(os.environ.get("HOME")) or _absolute(_account and _account.pw_dir) or "/"


def _codex_home() -> str:
    given, cwd = os.environ.get("CODEX_HOME"), _working_directory()
    if given and (os.path.isabs(given) or cwd):
        return os.path.normpath(os.path.join(cwd or "/", given))
    return os.path.join(_home(), ".codex")


def _temporary_directory() -> str:
    """Return where temporary files belong. That is not tried out: `tempfile` would write one."""
    given = (_absolute(os.environ.get(name)) for name in ("TMPDIR", "TEMP", "TMP"))
    return next((path for path in given if path), "/tmp")


def _host_name() -> str:
    """Return the name of this machine, empty where the system does not tell."""
    try:
        return os.fsencode(socket.gethostname()).decode(errors="replace")
    except OSError:
        return ""


def _account_shell() -> str:
    """Return the login shell of the account that the server runs as, or `/bin/sh`."""
    shell = _absolute(_account and _account.pw_shell)
    # A path that is no text cannot be told.
    return shell if shell and shell.isprintable() else "/bin/sh"


def _absolute(path: str | None) -> str | None:
    return path if path and os.path.isabs(path) else None


async def look_up_account(threads: Threads) -> None:
    """Have the entry of our account known, unless it is; this server goes on without where there is none in time.

    The name service is asked in one of the `threads`, which is left behind then: what it still finds is known from then
    on. Cancelling waits for nothing.
    """
    if _account is None:
        with trio.move_on_after(_ACCOUNT_SECONDS), suppress(BusyError):
            await run_briefly(_ask_account, threads, _BRIEF_SECONDS)


def _ask_account() -> None:
    global _account
    if _account is None:  # another connection may have waited for it
        with suppress(KeyError, OSError):
            _account = pwd.getpwuid(os.getuid())


async def discover_roots(files: Files, roots: Sequence[tuple[CapabilityRoot, str]]) -> CapabilityRootsFound:
    """Return an answer for each root, looked at by its path within the bounds of the file methods.

    Cancelling waits for no disk.
    """
    return CapabilityRootsFound([await _look_at(files, root, path) for root, path in roots])


async def _look_at(files: Files, root: CapabilityRoot, path: str) -> CapabilityRootFound:
    try:
        await files.check_directory(path)
    except FileError as error:
        if error.facts.get("errno") == errno.ENOTDIR:
            why = f"capability root {root.path} is not a directory"
        else:
            why = f"failed to inspect capability root {root.path}: {error}"
        return CapabilityRootFound(root.id, root.path, error=why)
    return CapabilityRootFound(root.id, root.path, warnings=[_WARNING])
