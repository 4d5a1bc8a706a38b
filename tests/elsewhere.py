"""Another network in which this machine has an address of its own: for what only happens to peers elsewhere."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from trio._core import _thread_cache

ADDRESS = "192.0.2.1"
"""An address for documentation (RFC 5737), which nobody else has."""

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _SIOCSIFADDR = 0x8914, 0x8916
_UP = 1


@contextmanager
def own_network() -> Iterator[str]:
    """Have this thread, and what it starts, in a network namespace of its own, and give an address there.

    Raises `OSError` where that is not allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot make a network namespace")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP))
                address = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(ADDRESS))
                fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s", b"lo:0", address))
            with _own_threads():
                yield ADDRESS
        finally:
            if libc.setns(before, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot return to the network")
    finally:
        os.close(before)


@contextmanager
def _own_threads() -> Iterator[None]:
    """Have trio use no idle thread that began before the block, nor use one of the block's after it.

    A thread stays in the network in which it began, and there the kernel knows of no connection of another.
    """
    before = _thread_cache.THREAD_CACHE
    _thread_cache.THREAD_CACHE = _thread_cache.ThreadCache()
    try:
        yield
    finally:
        _thread_cache.THREAD_CACHE = before
