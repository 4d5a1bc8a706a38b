"""Policies that a start or a call about files may ask for: which are known here, and which rules they make.

`resolver` has the rest, from the wire to what may be done. It knows the wire's words and what confines, and no session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from execsrv.errors import SandboxUnavailableError
from execsrv.protocol.sandbox import PolicyEntry, Sandbox, Special, SpecialPlace

if TYPE_CHECKING:
    from execsrv._files.rules import Rules


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


def rules_of(sandbox: Sandbox) -> Callable[[], Rules] | None:
    """Return what makes the rules that a policy has for a call about files, None for one that asks for none.

    Raises `SandboxUnavailableError` and `InvalidParamsError`.
    """
    wanted = asked(sandbox)
    if wanted is None:
        return None
    from execsrv._policies.resolver import Resolver

    return Resolver(wanted, None).rules


def _check_special(special: Special, entry: PolicyEntry) -> None:
    """Refuse a place by its use of which something would be passed over that takes rights away."""
    if special.kind == "unknown" and entry.access in ("none", "deny"):
        raise _refused("a place that is not known here cannot be denied")
    if special.kind not in ("project_roots", "unknown") and special.subpath is not None:
        raise _refused(f"a part of {special.kind} is not known here")


def _refused(why: str) -> SandboxUnavailableError:
    return SandboxUnavailableError(f"this policy cannot be kept: {why}", field="sandbox")
