"""The policy of a start, from its wire form to what a command may do; and what is told of that.

It is imported by the first start that asks for confinement: a server that confines nothing pays nothing for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec.structs import replace

from execsrv._files.rules import Rules
from execsrv._processes.confine import policy
from execsrv._processes.confine.places import Access, Confinement
from execsrv._processes.confine.policy import Wish
from execsrv._processes.confine.start import WITHOUT_VIEW, needed_means
from execsrv._wire.paths import path_from_wire
from execsrv.errors import SandboxUnavailableError
from execsrv.protocol.sandbox import Confined, FileSystem, GlobPlace, PathPlace, PolicyEntry, Sandbox, Special


class Resolver:
    """A policy with its paths read, to be resolved once the command's directory and environment are known."""

    def __init__(self, sandbox: Sandbox, cwd: str | None, *, may_lack_view: bool = False) -> None:
        """With `may_lack_view`, a policy whose caller takes less may be kept by Landlock alone.

        Raises `InvalidParamsError` for a path that is none.
        """
        self._sandbox = sandbox
        self._may_lack_view = may_lack_view and sandbox.at_least == "landlock"
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
        try:
            needed_means(may_lack_view=self._may_lack_view)
        except SandboxUnavailableError as error:
            if self._sandbox.at_least == "landlock" and not self._may_lack_view:
                why = "less, as its caller would take, is not allowed here: allow_landlock_only is off"
                raise SandboxUnavailableError(f"{error.message}; {why}", **error.facts) from None
            raise
        return replace(self._resolve(tmpdir), may_lack_view=self._may_lack_view)

    def rules(self) -> Rules:
        """Return what a call about files may do. It is this server that keeps it, so no machine refuses that.

        Raises `SandboxUnavailableError`. Blocks as long as the file systems do.
        """
        return Rules({os.fsdecode(place.path): place.access for place in self._resolve(None).places})

    def _resolve(self, tmpdir: str | None) -> Confinement:
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
            yield from policy.matches(pattern, self._files.glob_scan_max_depth)
        else:
            yield from self._special(place.value, "read" if entry.access == "read" else "write")

    def _special(self, special: Special, access: Access) -> Iterator[str]:
        cwd = self._cwd or os.getcwd()
        match special.kind:
            case "root":
                yield "/"
            case "minimal":
                yield from policy.MINIMAL
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
    means = needed_means(may_lack_view=confinement.may_lack_view)
    gaps = list(confinement.notes)
    if not means.has("view"):
        gaps += WITHOUT_VIEW
    elif not means.has("processes"):
        gaps.append("processes of the same user outside can be given other priorities and processors")
    return Confined(sorted([*means.layers, "no-new-privs"]), gaps)
