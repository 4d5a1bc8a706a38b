"""Facts that a copy keeps of its file: the permissions, and of a file that is moved also owner, attributes and times.

Permissions are the bits of the mode together with the ACL: where there is one, its mask stands in the bits of the
group, and those alone would give the group what the ACL denies it.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import suppress
from typing import NamedTuple

_ACL = "system.posix_acl_access"
_GROUP = 0x04
"""The tag of an ACL's entry for the group of the file, see `linux/posix_acl_xattr.h`."""

_PERMISSIONS = 0o777
"""The bits of a mode that pass on to another file by themselves: none that gives the rights of its owner."""


class Permissions(NamedTuple):
    """The bits of a mode, as they are without the ACL, and the ACL, if there is one."""

    bits: int
    acl: bytes | None


def permissions_of(descriptor: int) -> Permissions:
    """Return the permissions of what is open, with `O_PATH` or not."""
    bits = os.fstat(descriptor).st_mode & _PERMISSIONS
    try:
        acl = os.getxattr(f"/proc/self/fd/{descriptor}", _ACL)
    except OSError:
        return Permissions(bits, None)
    group = next((access for tag, access, _ in struct.iter_unpack("<HHI", acl[4:]) if tag == _GROUP), 0)
    return Permissions(bits & (0o707 | group << 3), acl)


def set_permissions(descriptor: int, permissions: Permissions) -> None:
    """Give an open file these permissions. Without an ACL, the one that it has inherited stays."""
    os.fchmod(descriptor, permissions.bits)
    if permissions.acl is not None:
        with suppress(OSError):  # of a file system without: the bits are no more than it gave
            os.setxattr(descriptor, _ACL, permissions.acl)


def keep_permissions(descriptor: int, permissions: Permissions) -> None:
    """Give an open file exactly these permissions."""
    with suppress(OSError):
        os.removexattr(descriptor, _ACL)
    set_permissions(descriptor, permissions)


def keep_owner(descriptor: int, owner: os.stat_result) -> None:
    """Give an open file this owner, where the system lets us give files away."""
    with suppress(OSError):
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def keep_all(descriptor: int, source: int) -> None:
    """Give what was copied all that its source has, as far as the system lets us: for good, as the source will be gone.

    It runs with its owner's rights only where it has that owner.
    """
    before = os.fstat(source)
    keep_owner(descriptor, before)
    keep_permissions(descriptor, permissions_of(source))
    with suppress(OSError):
        for name in os.listxattr(source):
            if name != _ACL:
                with suppress(OSError):
                    os.setxattr(descriptor, name, os.getxattr(source, name))
    now = os.fstat(descriptor)
    special = 0o7000 if (now.st_uid, now.st_gid) == (before.st_uid, before.st_gid) else stat.S_ISVTX
    os.fchmod(descriptor, now.st_mode & _PERMISSIONS | before.st_mode & special)
    os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))
