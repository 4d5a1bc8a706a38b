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
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from execsrv._wire.paths import path_from_wire, uri_from_path
from execsrv.errors import FileError, InvalidParamsError
from execsrv.protocol import (
    CapabilityRoot,
    CapabilityRootFound,
    CapabilityRootsFound,
    EnvironmentConfig,
    EnvironmentConfigRead,
    EnvironmentInfo,
    Shell,
)

if TYPE_CHECKING:
    from execsrv._files.files import Files

_WARNING = "this server does not look for plugins and skills"


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
    """Where Codex would keep its configuration here, and nothing of what is in it. Raises `InvalidParamsError`."""
    path_from_wire(params.cwd, "cwd")
    paths = params.config_paths + params.requirements_paths
    if not paths:
        raise InvalidParamsError("at least one config or requirements path is required", field="configPaths")
    if not all(paths):
        raise InvalidParamsError("TOML paths must contain at least one key segment", field="configPaths")
    home = os.path.expanduser("~")
    codex_home = os.environ.get("CODEX_HOME") or os.path.join(home, ".codex")
    return EnvironmentConfig(uri_from_path(home), uri_from_path(os.path.abspath(codex_home)), socket.gethostname())


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"  # it was removed


def package_version() -> str:
    """The version of execsrv that is installed."""
    try:
        return version("execsrv")
    except PackageNotFoundError:
        return "0"  # run from a source tree that was never installed


def account_shell() -> str:
    """The login shell of the account that the server runs as."""
    try:
        return pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    except KeyError:
        return "/bin/sh"


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
