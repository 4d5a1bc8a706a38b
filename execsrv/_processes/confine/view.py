"""A view of the file system of its own: read-only but for the places that may be written, with devices of its own.

It is the first layer against writing, and the only one that can take a part out of a place: a folder in it that is
read-only, or hidden. The places are opened while the whole is still as it was, and put back once it is read-only, the
outermost first. Neither way is followed through a link, so that one that somebody puts there meanwhile leads nowhere.
"""

from __future__ import annotations

import os
import stat
import struct

from execsrv._processes.confine.places import Confinement, Place, between
from execsrv._processes.confine.table import AT_FDCWD, Table

_REC, _PRIVATE, _NOSUID, _NODEV, _NOEXEC, _READ_ONLY = 16384, 1 << 18, 2, 4, 8, 1
_ATTR_READ_ONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_EMPTY_PATH, _AT_RECURSIVE, _CLONE, _CLOEXEC = 0x1000, 0x8000, 1, os.O_CLOEXEC
_FROM_EMPTY, _TO_EMPTY = 4, 0x40
_NO_SYMLINKS = 4  # RESOLVE_NO_SYMLINKS of openat2(2)

DEVICES = b"full null random tty urandom zero".split()
_LINKS = {
    b"fd": b"/proc/self/fd",
    b"ptmx": b"pts/ptmx",
    b"stdin": b"/proc/self/fd/0",
    b"stdout": b"/proc/self/fd/1",
    b"stderr": b"/proc/self/fd/2",
}
OWN = b"/dev", b"/proc"
"""Folders that a view has its own of."""


def add(table: Table, confinement: Confinement, terminal: bytes | None, *, own_processes: bool) -> None:
    """Add the rows that make it. With `own_processes` there is a `/proc` of the new pid namespace."""
    table.call("mount private", "mount", 0, table.text(b"/"), 0, _REC | _PRIVATE, 0)
    binds = [(place, _clone(table, place)) for place in _bound(confinement)]
    devices = [(name, _clone_device(table, b"/dev/" + name)) for name in DEVICES]
    if terminal is not None:
        devices.append((b"console", _clone_device(table, terminal)))
    root = confinement.at(b"/")
    all_written = root is not None and root.access == "write"
    _set(table, "mount read-only", AT_FDCWD, b"/", 0 if all_written else _ATTR_READ_ONLY)
    _add_devices(table, devices)
    for place, descriptor in binds:
        _place(table, place, descriptor)
    table.call("unlink", "unlinkat", AT_FDCWD, table.text(b"/dev/.hidden"), 0)
    for name, content in _LINKS.items():
        table.call("link /dev", "symlinkat", table.text(content), AT_FDCWD, table.text(b"/dev/" + name))
    _set(table, "mount /dev read-only", AT_FDCWD, b"/dev", _ATTR_READ_ONLY, flags=0)
    if own_processes:
        kind, path = table.text(b"proc"), table.text(b"/proc")
        table.call("mount /proc", "mount", kind, path, kind, _NOSUID | _NODEV | _NOEXEC | _READ_ONLY, 0)


def _bound(confinement: Confinement) -> list[Place]:
    """Return the places that need a mount of their own, in the order in which they are put there.

    Where a part of a written place is not, the folders between the two become mounts as well: only a mount cannot be
    renamed, and the part with it.
    """
    found: dict[bytes, Place] = {}
    for place in confinement.places:
        above = confinement.above(place)
        before = "none" if above is None else above.access
        if above is not None and before == "write" and place.access != "write":
            for folder in between(above.path, place.path):
                found.setdefault(folder, Place(folder, "write"))
        needs = place.access == "write" or before == "write" or place.is_hidden
        if needs and place.path != b"/":
            found[place.path] = place
    return sorted(found.values(), key=lambda place: place.depth)


def _clone(table: Table, place: Place) -> int:
    """Add the rows that open a copy of a mount, to be put in its place. Return its descriptor, -1 for a hidden one."""
    if place.access == "none":
        return -1
    name = f"bind {os.fsdecode(place.path)}"
    found = open_path(table, name, place.path)
    empty = table.text(b"")
    copy = table.open(name, "open_tree", found, empty, _CLONE | _CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE)
    table.close(found)
    _set(table, name, copy, b"", _ATTR_READ_ONLY if place.access == "read" else 0)
    return copy


def _clone_device(table: Table, path: bytes) -> int:
    """Add the rows for a copy of a device. Read-only is its inode, which is that of all: its mode, owner and times."""
    name = f"bind {os.fsdecode(path)}"
    copy = table.open(name, "open_tree", AT_FDCWD, table.text(path), _CLONE | _CLOEXEC)
    changes = table.data(struct.pack("<4Q", _ATTR_READ_ONLY | _ATTR_NOSUID, 0, 0, 0))
    table.call(name, "mount_setattr", copy, table.text(b""), _AT_EMPTY_PATH, changes, 32)
    return copy


def open_path(table: Table, name: str, path: bytes) -> int:
    """Add the row that opens a path in which there is no link, and return its descriptor."""
    how = table.data(struct.pack("<3Q", os.O_PATH | os.O_CLOEXEC, 0, _NO_SYMLINKS))
    return table.open(name, "openat2", AT_FDCWD, table.text(path), how, 24)


def _set(table: Table, name: str, folder: int, path: bytes, attributes: int, flags: int = _AT_RECURSIVE) -> None:
    attributes |= _ATTR_NOSUID | (0 if path == b"/dev" else _ATTR_NODEV)
    changes = table.data(struct.pack("<4Q", attributes, 0, 0, 0))
    flags |= 0 if path else _AT_EMPTY_PATH
    table.call(name, "mount_setattr", folder, table.text(path), flags, changes, 32)


def _place(table: Table, place: Place, descriptor: int) -> None:
    shown = os.fsdecode(place.path)
    target = open_path(table, f"bind {shown}", place.path)
    if place.access != "none":
        empty = table.text(b"")
        table.call(f"bind {shown}", "move_mount", descriptor, empty, target, empty, _FROM_EMPTY | _TO_EMPTY)
        table.close(descriptor)
    else:
        if place.is_folder:
            path = table.text(b"/proc/self/fd/%d" % target)
            kind, options = table.text(b"tmpfs"), table.text(b"mode=000,size=4k")
            flags = _READ_ONLY | _NOSUID | _NODEV | _NOEXEC
            table.call(f"hide {shown}", "mount", kind, path, kind, flags, options)
        else:
            copy, empty = _clone_device(table, b"/dev/.hidden"), table.text(b"")
            table.call(f"hide {shown}", "move_mount", copy, empty, target, empty, _FROM_EMPTY | _TO_EMPTY)
            table.close(copy)
    table.close(target)


def _add_devices(table: Table, devices: list[tuple[bytes, int]]) -> None:
    """Add the rows that make a `/dev` with a few devices, terminals of its own, and memory to be shared inside."""
    memory = table.text(b"tmpfs")
    table.call("mount /dev", "mount", memory, table.text(b"/dev"), memory, _NOSUID, table.text(b"mode=755,size=64k"))
    for name, descriptor in devices:
        path = table.text(b"/dev/" + name)
        table.call("make device", "mknodat", AT_FDCWD, path, stat.S_IFREG | 0o666, 0)
        empty = table.text(b"")
        table.call("move device", "move_mount", descriptor, empty, AT_FDCWD, path, _FROM_EMPTY)
        table.close(descriptor)
    table.call("make hidden", "mknodat", AT_FDCWD, table.text(b"/dev/.hidden"), stat.S_IFREG, 0)
    terminals, shared = table.text(b"/dev/pts"), table.text(b"/dev/shm")
    for path in (terminals, shared):
        table.call("make folder", "mkdirat", AT_FDCWD, path, 0o755)
    kind, options = table.text(b"devpts"), table.text(b"newinstance,ptmxmode=0666,mode=620")
    table.call("mount /dev/pts", "mount", kind, terminals, kind, _NOSUID | _NOEXEC, options)
    table.call("mount /dev/shm", "mount", memory, shared, memory, _NOSUID | _NODEV, table.text(b"mode=1777"))
