"""A wish for confinement, as the Codex CLI sends it: read as far as it takes to know whether it asks for anything."""

from __future__ import annotations

from msgspec import Struct

from execsrv.protocol.bounds import Name
from execsrv.protocol.messages import Wire


class FileSystem(Struct, frozen=True):
    """The files that a policy leaves: all of them where the type is "unrestricted"."""

    type: Name = ""


class Permissions(Struct, frozen=True):
    """A policy: "disabled", "external" (somebody else confines), or "managed" (the server is to confine)."""

    type: Name = ""
    network: Name | None = None
    file_system: FileSystem | None = None

    @property
    def confine(self) -> bool:
        """True unless the policy leaves everything open."""
        if self.type == "disabled":
            return False
        if self.type == "managed" and (self.file_system is None or self.file_system.type != "unrestricted"):
            return True
        return self.type not in ("external", "managed") or self.network != "enabled"


class Sandbox(Wire, frozen=True):
    """The sandbox that a call asks for. What the policy says beside its permissions is not read."""

    permissions: Permissions = Permissions()


class NetworkWish(Wire, frozen=True):
    """A network of its own that a command is to have. No field of it is read: there is none here."""
