"""inotify(7) by ctypes: the kernel tells of changes in directories. Constants and layout: <linux/inotify.h>.

Whoever makes an `Inotify` closes it, and not while another thread is using it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from enum import IntFlag
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")


class Change(IntFlag):
    """Kinds of change that inotify tells."""

    MODIFY = 0x2
    ATTRIB = 0x4
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    OVERFLOW = 0x4000
    IGNORED = 0x8000
    ISDIR = 0x40000000


_MASK_ADD = 0x20000000


class Event(NamedTuple):
    """A change in the directory that `watch` stands for. The name is empty when it is about the directory itself."""

    watch: int
    change: int
    name: bytes


class Inotify:
    """One inotify descriptor, non-blocking."""

    def __init__(self) -> None:
        """Raises `OSError` when the system has no more of them."""
        self.descriptor = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self.descriptor < 0:
            raise _last_error()

    def close(self) -> None:
        """Close the descriptor, and with it every watch."""
        os.close(self.descriptor)

    def add(self, directory: int, changes: int) -> int:
        """Watch an open directory for these changes too, and return the watch that their events carry.

        Raises `OSError`.
        """
        path = b"/proc/self/fd/%d" % directory
        watch = int(_libc.inotify_add_watch(self.descriptor, path, ctypes.c_uint32(changes | _MASK_ADD)))
        if watch < 0:
            raise _last_error()
        return watch

    def remove(self, watch: int) -> None:
        """Stop a watch; one that is gone already is no error."""
        _libc.inotify_rm_watch(self.descriptor, watch)

    def read(self) -> list[Event]:
        """Return the events that are there. Raises `BlockingIOError` when there is none."""
        data = os.read(self.descriptor, 64 * 1024)
        events: list[Event] = []
        offset = 0
        while offset < len(data):
            watch, change, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            events.append(Event(watch, change, data[offset : offset + length].rstrip(b"\0")))
            offset += length
        return events


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
