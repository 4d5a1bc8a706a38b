"""The policy of a request of version 1, as the sandbox that our own wire has: a preset by its name, or JSON.

As in the founding runner, only what confines is taken: a policy that leaves everything, or leaves the confining to
somebody else, is for those who need no runner for it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from execsrv.errors import InvalidParamsError, SandboxUnavailableError
from execsrv.protocol.bounds import PathText
from execsrv.protocol.sandbox import (
    FileSystem,
    PathPlace,
    Permissions,
    PolicyEntry,
    Sandbox,
    Special,
    SpecialPlace,
)

_PROTECTED = (".git", ".codex", ".agents", ".aws")
"""Parts of a writable root that stay as they are."""


_Least = Literal["view", "landlock"]
"""What is enough to a caller: in a request of version 1 only all of it."""


class ReadOnly(Struct, frozen=True, tag_field="type", tag="read-only"):
    """Everything may be read, and nothing written."""

    access: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    at_least: _Least = field(default="view", name="atLeast")


class WorkspaceWrite(Struct, frozen=True, tag_field="type", tag="workspace-write"):
    """Everything may be read, and the directory of the policy written, with further roots and folders for scratch."""

    writable_roots: Annotated[list[PathText], Meta(max_length=256)] = []
    read_only_access: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    network_access: bool = False
    exclude_tmpdir_env_var: bool = False
    exclude_slash_tmp: bool = False
    at_least: _Least = field(default="view", name="atLeast")


class FullAccess(Struct, frozen=True, tag_field="type", tag="danger-full-access"):
    """Everything may be done."""


class ExternalSandbox(Struct, frozen=True, tag_field="type", tag="external-sandbox"):
    """Somebody else confines."""


class _Access(Struct, frozen=True):
    type: str


Preset = ReadOnly | WorkspaceWrite | FullAccess | ExternalSandbox
_presets = msgspec.json.Decoder(Preset)
_accesses = msgspec.json.Decoder(_Access)
_NAMED: dict[str, Preset] = {
    "read-only": ReadOnly(),
    "workspace-write": WorkspaceWrite(),
    "danger-full-access": FullAccess(),
    "external-sandbox": ExternalSandbox(),
}


def sandbox_of(policy: str, cwd: str) -> Sandbox:
    """Return a policy that is named, or written as JSON, for the directory that it counts from.

    Raises `InvalidParamsError` for one that is none, and `SandboxUnavailableError` for one that a runner does not take.
    """
    preset = _NAMED.get(policy.strip())
    if preset is None:
        try:
            preset = _presets.decode(policy)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise InvalidParamsError("parse policy_json_or_preset", field="policy_json_or_preset") from None
    if isinstance(preset, FullAccess | ExternalSandbox):
        raise _refused("a runner of version 1 confines what it starts, and this policy does not")
    if preset.at_least != "view":  # version 1 has no words for what is missing then
        raise _refused(f"version 1 knows no `atLeast` of `{preset.at_least}`; version 2 does")
    access = preset.access if isinstance(preset, ReadOnly) else preset.read_only_access
    if not isinstance(access, msgspec.UnsetType) and not _is_full(access):
        raise _refused("restricted read-only access is not supported")
    entries = [_special("root", "read")]
    network: Literal["enabled", "restricted"] = "restricted"
    if isinstance(preset, WorkspaceWrite):
        network = "enabled" if preset.network_access else "restricted"
        roots = [cwd, *preset.writable_roots]
        entries += [PolicyEntry(PathPlace(root), "write") for root in roots]
        entries += [PolicyEntry(PathPlace(f"{root}/{name}"), "read", "skip") for root in roots for name in _PROTECTED]
        if not preset.exclude_slash_tmp:
            entries.append(_special("slash_tmp", "write"))
        if not preset.exclude_tmpdir_env_var:
            entries.append(_special("tmpdir", "write"))
    return Sandbox(Permissions("managed", network, FileSystem("restricted", entries)), cwd=cwd)


def _is_full(access: msgspec.Raw) -> bool:
    try:
        return _accesses.decode(access).type == "full-access"
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def _special(kind: Literal["root", "slash_tmp", "tmpdir"], access: Literal["read", "write"]) -> PolicyEntry:
    return PolicyEntry(SpecialPlace(Special(kind)), access)


def _refused(why: str) -> SandboxUnavailableError:
    return SandboxUnavailableError(f"this policy cannot be kept: {why}", field="policy_json_or_preset")
