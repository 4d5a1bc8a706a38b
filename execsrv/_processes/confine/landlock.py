"""Landlock: what a command may open, by rules that no mount and no descriptor of a folder gets around. See landlock(7).

It also keeps FIFOs and devices shut, which a read-only mount leaves writable, keeps the memory of processes outside
unreadable, and, from its sixth version on, keeps signals in.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Iterator

from execsrv._processes.confine import view
from execsrv._processes.confine.places import Confinement, Place
from execsrv._processes.confine.syscalls import NUMBERS
from execsrv._processes.confine.table import Table
from execsrv._wire.quoting import shown
from execsrv.errors import SandboxUnavailableError

SIGNALS_VERSION = 6
"""The first one that keeps signals in. Linux 6.12."""

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _MAKE_CHAR, _MAKE_BLOCK = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 11
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
_VERSION, _PATH_BENEATH = 1, 1


@functools.cache
def version() -> int:
    """Return the version that this kernel has, 0 where it has none or refuses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(
        0, int(libc.syscall(ctypes.c_long(NUMBERS["landlock_create_ruleset"]), None, ctypes.c_size_t(0), _VERSION))
    )


def _all(version: int) -> int:
    """Return all rights that a version knows."""
    return (1 << 13 + (version >= 2) + (version >= 3) + (version >= 5)) - 1


def check_alone(confinement: Confinement) -> None:
    """Raise `SandboxUnavailableError` for what Landlock cannot keep without a view: its rules only ever add rights."""
    for place in confinement.places:
        above = confinement.above(place)
        if above is not None and place.access != "write":
            why = f"{os.fsdecode(place.path)} takes away from what is allowed around it"
        elif place.path == b"/" and place.access == "write":
            why = "everything is to be written, devices among it"
        else:
            continue
        raise SandboxUnavailableError(f"Landlock alone cannot keep this policy: {shown(why)}", field="sandbox")


def add(table: Table, confinement: Confinement, version: int, terminal: bool, *, in_view: bool) -> None:
    """Add the rows that put it on. All mounts must be there: rules are by inode."""
    known = _all(version)
    scope = _SIGNALS if confinement.network else _SIGNALS | _ABSTRACT_SOCKETS
    attributes = struct.pack("<3Q", known, 0, scope)[: 24 if version >= SIGNALS_VERSION else 8]
    name = "landlock"
    rules = table.open(name, "landlock_create_ruleset", table.data(attributes), len(attributes), 0)
    write = known & ~(_MAKE_CHAR | _MAKE_BLOCK)

    def allow(path: bytes, rights: int) -> None:
        place = view.open_path(table, f"{name} {os.fsdecode(path)}", path)
        rule = table.data(struct.pack("<Qi", rights, place))
        table.call(f"{name} {os.fsdecode(path)}", "landlock_add_rule", rules, _PATH_BENEATH, rule, 0)
        table.close(place)

    for place in confinement.places if in_view else _without_devices(confinement):
        if place.access != "none":
            rights = _READ if place.access == "read" else write
            allow(place.path, rights if place.is_folder else rights & _OF_FILES)
    of_devices = _WRITE_FILE | _TRUNCATE & known | _IOCTL & known
    if in_view:
        allow(b"/dev", _READ | of_devices)
        allow(b"/dev/shm", write)
    else:
        for device in view.DEVICES:
            allow(b"/dev/" + device, _READ_FILE | of_devices)
    allow(b"/proc", _READ)
    if terminal:
        rule = table.data(struct.pack("<Qi", _OF_FILES & known & ~_EXECUTE, 0))
        table.call(f"{name} terminal", "landlock_add_rule", rules, _PATH_BENEATH, rule, 0)
    table.call(name, "landlock_restrict_self", rules, 0)
    table.close(rules)


def _without_devices(confinement: Confinement) -> Iterator[Place]:
    """Yield the places, with all that is in `/` in its own place: but for the devices, which are the machine's."""
    for place in confinement.places:
        if place.path != b"/":
            yield place
            continue
        with os.scandir(b"/") as entries:
            for entry in entries:
                if entry.path not in view.OWN and not entry.is_symlink():
                    yield Place(entry.path, place.access, entry.is_dir())
