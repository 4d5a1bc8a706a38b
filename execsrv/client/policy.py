"""What a command may do, for `sandbox`: its files and its network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from execsrv.client.file_paths import sent_path
from execsrv.client.parameters import Path, flag
from execsrv.protocol.sandbox import FileSystem, PathPlace, Permissions, PolicyEntry, Sandbox, Special, SpecialPlace

_ROOT = SpecialPlace(Special("root"))
_OF_THE_COMMAND = ("project_roots", "current_working_directory")
_TEMPORARY = SpecialPlace(Special("slash_tmp")), SpecialPlace(Special("tmpdir"))


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy for a command, which the server keeps or refuses to start the command.

    Of several entries the one with the longest path decides, and nothing may be done where none does. Paths are those
    of the server's machine. Made by `read_only`, `workspace_write` or `everything`, and narrowed by `protect` and
    `hide`; docs/confinement.md says what is promised.
    """

    entries: tuple[PolicyEntry, ...]
    network: bool
    may_lack_view: bool = False

    @classmethod
    def read_only(cls, *, network: bool) -> Policy:
        """A policy to read all files and write none."""
        return cls((PolicyEntry(_ROOT, "read"),), flag("network", network))

    @classmethod
    def workspace_write(cls, *folders: Path, network: bool) -> Policy:
        """A policy to read all files and write those in some folders, by default in the command's directory.

        So may those in `/tmp` and the TMPDIR of the command be written. A `.git` in one of the folders may not.
        """
        inner = [os.path.join(folder, ".git") for folder in folders]
        places: list[PathPlace | SpecialPlace] = [
            PathPlace(sent_path(f"folders[{number}]", folder)) for number, folder in enumerate(folders)
        ]
        parts: list[PathPlace | SpecialPlace] = [PathPlace(sent_path("folders", path)) for path in inner]
        if not folders:
            places, parts = [SpecialPlace(Special("project_roots"))], [SpecialPlace(Special("project_roots", ".git"))]
        entries = [PolicyEntry(_ROOT, "read"), *(PolicyEntry(place, "write") for place in (*places, *_TEMPORARY))]
        entries += [PolicyEntry(part, "read", "skip") for part in parts]
        return cls(tuple(entries), flag("network", network))

    @classmethod
    def everything(cls, *, network: bool) -> Policy:
        """A policy to read and write all files: for one without the network, or with something hidden."""
        return cls((PolicyEntry(_ROOT, "write"),), flag("network", network))

    def protect(self, *paths: Path) -> Policy:
        """Return this policy with files and folders that may be read and not written."""
        return self._with(paths, "read")

    def hide(self, *paths: Path) -> Policy:
        """Return this policy with files and folders whose contents can neither be read nor written."""
        return self._with(paths, "none")

    def write(self, *paths: Path) -> Policy:
        """Return this policy with further files and folders that may be written."""
        return self._with(paths, "write")

    def or_landlock(self) -> Policy:
        """Return this policy for machines without namespaces too, where the server permits it.

        There Landlock alone keeps it, and `Process.confined` tells the `gaps`.
        """
        return replace(self, may_lack_view=True)

    def _with(self, paths: Iterable[Path], access: Literal["read", "write", "none"]) -> Policy:
        places = [PathPlace(sent_path(f"paths[{number}]", path)) for number, path in enumerate(paths)]
        entries = tuple(PolicyEntry(place, access) for place in places)
        return replace(self, entries=self.entries + entries)


def sandbox_of(policy: Policy) -> Sandbox:
    """Return a policy as `process/start` takes it. Raises `TypeError` for anything else."""
    if not isinstance(policy, Policy):
        raise TypeError(f"sandbox must be a Policy, got {type(policy).__name__}")
    network = "enabled" if policy.network else "restricted"
    permissions = Permissions("managed", network, FileSystem("restricted", list(policy.entries)))
    return Sandbox(permissions, at_least="landlock" if policy.may_lack_view else "view")


def around(policy: Policy, folder: str) -> Policy:
    """Return a policy with a folder in place of the command's directory, wherever a command is started."""

    def settled(entry: PolicyEntry) -> PolicyEntry:
        place = entry.path
        if not isinstance(place, SpecialPlace) or place.value.kind not in _OF_THE_COMMAND:
            return entry
        part = place.value.subpath
        return msgspec.structs.replace(entry, path=PathPlace(os.path.join(folder, part) if part else folder))

    return replace(policy, entries=tuple(map(settled, policy.entries)))


def without(policy: Policy, path: str) -> Policy:
    """Return a policy that hides a file or a folder as well, which may be missing."""
    return replace(policy, entries=(*policy.entries, PolicyEntry(PathPlace(path), "none", "skip")))
