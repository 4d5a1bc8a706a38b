"""A program of which the kernel does not tell for what it waits: whoever asks hangs as long as it lives."""

from __future__ import annotations

import functools
import subprocess
import sys

_SCRIPT = """
import ctypes, fcntl, mmap, os, platform, select, signal, struct, sys, threading
signal.alarm(int(sys.argv[1]))
libc = ctypes.CDLL(None, use_errno=True)
faults = libc.syscall({"x86_64": 323, "aarch64": 282}.get(platform.machine(), -1), os.O_CLOEXEC)
if faults < 0:
    sys.exit(77)
page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
fcntl.ioctl(faults, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))
fcntl.ioctl(faults, 0xC020AA00, struct.pack("QQQQ", address, mmap.PAGESIZE, 1, 0))
if len(sys.argv) < 3:
    sys.exit()

def tell():
    os.read(faults, 32)
    print("hanging", flush=True)

threading.Thread(target=tell).start()
read, write = os.pipe()
os.write(write, b"x")
poll = select.epoll()
poll.register(0, select.EPOLLIN)
poll.register(read, select.EPOLLIN)
libc.epoll_wait(poll.fileno(), ctypes.c_void_p(address), 1, -1)
"""
"""It waits for input, and what comes is to be put where a page is missing that nobody brings (userfaultfd(2)). So the
kernel holds the list of what it waits for, and whoever wants to read it waits too."""

_SECONDS = 60


@functools.cache
def available() -> bool:
    """Whether there can be such a program: root may have one, and others where the machine lets them."""
    return subprocess.run([sys.executable, "-c", _SCRIPT, str(_SECONDS)]).returncode == 0


def argv() -> list[str]:
    """The program. It says "hanging", and ends after a minute by itself."""
    return [sys.executable, "-c", _SCRIPT, str(_SECONDS), "hang"]
