"""inotify(7) by ctypes: the kernel tells of changes in directories. Constants and layout: <linux/inotify.h>."""

from __future__ import annotations

import ctypes
import os
import struct
from enum import IntFlag
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")


class Change(IntFlag):
    """What inotify tells."""

    MODIFY = 0x2
    ATTRIB = 0x4
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    UNMOUNT = 0x2000
    OVERFLOW = 0x4000
    IGNORED = 0x8000


_MASK_ADD = 0x20000000


class Event(NamedTuple):
    """Something in the watched directory `watch` has changed; the name is empty for the directory itself."""

    watch: int
    change: int
    name: bytes


class Inotify:
    """One inotify descriptor, non-blocking. Closed with the last reference: a thread may still be adding to it."""

    def __init__(self) -> None:
        self.descriptor = -1
        self.descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def add(self, directory: int, changes: int) -> int:
        """Tell these changes of what is in an open directory too; the watch that they will carry. Raises `OSError`."""
        path = b"/proc/self/fd/%d" % directory
        watch = int(_libc.inotify_add_watch(self.descriptor, path, ctypes.c_uint32(changes | _MASK_ADD)))
        if watch < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return watch

    def read(self) -> list[Event]:
        """The events that are there. Raises `BlockingIOError` when there is none."""
        data = os.read(self.descriptor, 64 * 1024)
        events: list[Event] = []
        offset = 0
        while offset < len(data):
            watch, change, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            events.append(Event(watch, change, data[offset : offset + length].rstrip(b"\0")))
            offset += length
        return events
