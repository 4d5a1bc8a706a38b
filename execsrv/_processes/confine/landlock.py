"""Landlock: what a command may open, by rules that no mount and no descriptor of a folder gets around. See landlock(7).

It also keeps FIFOs and devices shut, which a read-only mount leaves writable, keeps the memory of processes outside
unreadable, and, from its sixth version on, keeps signals in.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct

from execsrv._processes.confine import view
from execsrv._processes.confine.calls import NUMBERS
from execsrv._processes.confine.places import Confinement
from execsrv._processes.confine.table import Table

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


def add(table: Table, confinement: Confinement, version: int, terminal: bool) -> None:
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

    for place in confinement.places:
        if place.access != "none":
            rights = _READ if place.access == "read" else write
            allow(place.path, rights if place.is_folder else rights & _OF_FILES)
    allow(b"/dev", _READ | _WRITE_FILE | _TRUNCATE & known | _IOCTL & known)
    allow(b"/dev/shm", write)
    allow(b"/proc", _READ)
    if terminal:
        rule = table.data(struct.pack("<Qi", _OF_FILES & known & ~_EXECUTE, 0))
        table.call(f"{name} terminal", "landlock_add_rule", rules, _PATH_BENEATH, rule, 0)
    table.call(name, "landlock_restrict_self", rules, 0)
    table.close(rules)
