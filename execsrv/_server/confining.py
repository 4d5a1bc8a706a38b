"""The policy of a start, from its wire form to what a command may do; and what is told of it.

How a command is confined is imported by the first that is to be: a server that confines nothing pays nothing for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from execsrv._log.log import OutputLog
from execsrv._processes.leader import ExitStatus
from execsrv._wire.paths import path_from_wire
from execsrv.errors import SandboxUnavailableError
from execsrv.protocol.sandbox import (
    Confined,
    Denial,
    FileSystem,
    GlobPlace,
    PathPlace,
    PolicyEntry,
    Sandbox,
    Special,
    SpecialPlace,
)

if TYPE_CHECKING:
    from execsrv._processes.confine.places import Access, Confinement

_WORDS = (
    "operation not permitted",
    "permission denied",
    "read-only file system",
    "seccomp",
    "sandbox",
    "landlock",
    "failed to write file",
)
_KILLED_FOR_A_CALL = 159
_LOOKED_AT_BYTES = 64 * 1024


def asked(sandbox: Sandbox | None) -> Sandbox | None:
    """Return a policy that asks for anything, None for one that does not.

    Raises `SandboxUnavailableError` for one whose form is not known, or that no server here keeps.
    """
    if sandbox is None or sandbox.permissions.type in ("disabled", "external"):
        return None
    permissions = sandbox.permissions
    files = permissions.file_system
    if permissions.type != "managed":
        raise _refused(f"permissions of type {permissions.type!r} are not known here")
    if files is None or files.type not in ("restricted", "unrestricted"):
        raise _refused("its file_system is neither restricted nor unrestricted")
    if files.type == "unrestricted" and files.entries:
        raise _refused("its file_system is unrestricted, and has entries")
    for entry in files.entries:
        if isinstance(entry.path, SpecialPlace):
            _check_special(entry.path.value, entry)
    if permissions.network not in ("restricted", "enabled", None):
        raise _refused(f"a network that is {permissions.network!r} is not known here")
    if sandbox.use_legacy_landlock:
        raise _refused("useLegacyLandlock is not known here")
    if files.type == "unrestricted" and permissions.network == "enabled":
        return None
    return sandbox


def _check_special(special: Special, entry: PolicyEntry) -> None:
    """Refuse a place by its use of which something would be passed over that takes rights away."""
    if special.kind == "unknown" and entry.access in ("none", "deny"):
        raise _refused("a place that is not known here cannot be denied")
    if special.kind not in ("project_roots", "unknown") and special.subpath is not None:
        raise _refused(f"a part of {special.kind} is not known here")


def _refused(why: str) -> SandboxUnavailableError:
    return SandboxUnavailableError(f"this policy cannot be kept: {why}", field="sandbox")


class Policy:
    """A policy with its paths read, which can be resolved once the command's directory and environment are known."""

    def __init__(self, sandbox: Sandbox, cwd: str | None) -> None:
        """Raises `InvalidParamsError` for a path that is none."""
        self._sandbox = sandbox
        self._cwd = cwd if sandbox.cwd is None else path_from_wire(sandbox.cwd, "sandbox.cwd")
        self._roots = [path_from_wire(root, "sandbox.workspaceRoots") for root in sandbox.workspace_roots]
        temporary = sandbox.temporary_directories
        self._temporary = (
            None if temporary is None else [path_from_wire(path, "sandbox.temporaryDirectories") for path in temporary]
        )
        self._files = sandbox.permissions.file_system or FileSystem()
        self._paths = {
            entry.path.path: path_from_wire(entry.path.path, "sandbox.permissions.file_system.entries")
            for entry in self._files.entries
            if isinstance(entry.path, PathPlace)
        }

    def resolve(self, tmpdir: str | None) -> Confinement:
        """Return what the command may do. `tmpdir` is its TMPDIR.

        Raises `SandboxUnavailableError`. Blocks as long as the file systems do.
        """
        from execsrv._processes.confine import policy
        from execsrv._processes.confine.policy import Wish
        from execsrv._processes.confine.start import needed_means

        needed_means()
        network = self._sandbox.permissions.network == "enabled"
        if self._files.type == "unrestricted":
            return policy.resolve([Wish("/", "write")], network=network)
        self._tmpdir = tmpdir
        wishes = [
            Wish(path, "none" if entry.access == "deny" else entry.access, entry.missing_path_behavior == "skip")
            for entry in self._files.entries
            for path in self._paths_of(entry)
        ]
        return policy.resolve(wishes, network=network)

    def _paths_of(self, entry: PolicyEntry) -> Iterator[str]:
        place = entry.path
        if isinstance(place, PathPlace):
            yield self._paths[place.path]
        elif isinstance(place, GlobPlace):
            pattern = os.path.join(self._cwd or os.getcwd(), place.pattern)
            from execsrv._processes.confine import policy

            yield from policy.matches(pattern, self._files.glob_scan_max_depth)
        else:
            yield from self._special(place.value, "read" if entry.access == "read" else "write")

    def _special(self, special: Special, access: Access) -> Iterator[str]:
        cwd = self._cwd or os.getcwd()
        match special.kind:
            case "root":
                yield "/"
            case "minimal":
                from execsrv._processes.confine.policy import MINIMAL

                yield from MINIMAL
            case "current_working_directory":
                yield cwd
            case "project_roots":
                for root in self._roots or [cwd]:
                    yield os.path.normpath(os.path.join(root, special.subpath or ""))
            case "tmpdir":
                if self._temporary is not None:
                    yield from self._temporary
                elif self._tmpdir and self._tmpdir.startswith("/"):
                    yield self._tmpdir
            case "slash_tmp":
                yield "/tmp"
            case "unknown":
                pass


def told(confinement: Confinement) -> Confined:
    """Return what a command's client hears of its confinement."""
    from execsrv._processes.confine.start import needed_means

    means = needed_means()
    gaps = list(confinement.notes)
    if not means.has("processes"):
        gaps.append("processes of the same user outside can be given other priorities and processors")
    return Confined(sorted([*means.layers, "no-new-privs"]), gaps)


def denial(status: ExitStatus, log: OutputLog) -> Denial | None:
    """Return why a failure of a confined command looks like the work of its confinement, None if it does not.

    It goes by the rule of the Codex exec-server.
    """
    if status.code == _KILLED_FOR_A_CALL:
        return Denial("signal", "SIGSYS")
    if status.code == 0:
        return None
    for ends in log.streams.values():
        printed = (bytes(ends.head)[:_LOOKED_AT_BYTES] + b"\n" + bytes(ends.tail)[-_LOOKED_AT_BYTES:]).lower()
        for word in _WORDS:
            if word.encode() in printed:
                return Denial("output", word)
    return None
