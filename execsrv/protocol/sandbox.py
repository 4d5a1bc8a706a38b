"""A policy for a command that is to have fewer rights than the server: its files and its network.

Its inner parts are written as the Codex CLI sends them, in snake case.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from execsrv.protocol.bounds import Name, PathText
from execsrv.protocol.messages import Told, Wire

Places = Annotated[list[PathText], Meta(max_length=256)]


class PathPlace(Struct, frozen=True, tag_field="type", tag="path"):
    """A file or a folder with all that is in it. `path` is absolute, or a `file:` URI."""

    path: PathText


class GlobPlace(Struct, frozen=True, tag_field="type", tag="glob_pattern"):
    """All that is there at the start and has a path of that form: `*` and `?` are for one name, `**` for any folders.

    One that is relative counts from the directory of the policy.
    """

    pattern: PathText


class Special(Struct, frozen=True):
    """A place by its use. "minimal" is what programs need to run; "unknown" ones are passed over."""

    kind: Literal["root", "minimal", "current_working_directory", "project_roots", "tmpdir", "slash_tmp", "unknown"]
    subpath: PathText | None = None
    """A path in it, for "project_roots"."""
    path: PathText | None = None


class SpecialPlace(Struct, frozen=True, tag_field="type", tag="special"):
    """A place by its use."""

    value: Special


class PolicyEntry(Struct, frozen=True):
    """A place and what may be done there. "deny" and "none" are the same.

    The longest path decides; of entries for the same path, denying does, and then writing.
    """

    path: PathPlace | GlobPlace | SpecialPlace
    access: Literal["read", "write", "deny", "none"]
    missing_path_behavior: Name | None = None
    """With "skip", a path that is missing needs no protection."""


class FileSystem(Struct, frozen=True):
    """The files that a policy leaves: all of them where the type is "unrestricted", else what its entries say."""

    type: Name = ""
    entries: Annotated[list[PolicyEntry], Meta(max_length=1024)] = []
    glob_scan_max_depth: Annotated[int, Meta(ge=0, le=256)] | None = None
    """Folders that a pattern looks into, below its fixed part."""


class Permissions(Struct, frozen=True):
    """A policy: "disabled", "external" (somebody else confines), or "managed" (the server is to confine)."""

    type: Name = ""
    network: Name | None = None
    """"enabled" leaves the network open."""
    file_system: FileSystem | None = None


class Sandbox(Wire, frozen=True):
    """The sandbox that a call asks for. What else a policy says is for other systems, and is not read."""

    permissions: Permissions = Permissions()
    cwd: PathText | None = None
    """The directory that its relative parts count from. None: that of the command."""
    workspace_roots: Places = []
    """Its project roots. None: its directory."""
    temporary_directories: Places | None = None
    """Its tmpdir. None: what TMPDIR is for the command."""
    use_legacy_landlock: bool = False
    at_least: Literal["view", "landlock"] = "view"
    """"landlock": where no view can be made, Landlock alone is enough to its caller."""


class NetworkWish(Wire, frozen=True):
    """A network of its own that a command is to have. No field of it is read: there is none here."""


class Confined(Wire, frozen=True):
    """The confinement that a command really has. `gaps` are what its policy names and does not get, in words."""

    layers: list[str]
    gaps: list[str]


class Denial(Wire, frozen=True):
    """The evidence by which a failure is taken for the work of the confinement.

    "signal": it was killed for a system call. "output": its last lines have the `text`, which is a guess.
    """

    evidence: Told[Literal["signal", "output"]]
    text: str
