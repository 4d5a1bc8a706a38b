"""The program between spawn and exec in Python, for machines that execute no file of ours.

It is run by `python -I -S -c`, as a process of its own, and imports nothing of ours: `starter` says what it does.
"""

import ctypes
import os
import signal

BASE, MAPPED_BYTES, REPORT, IMAGE = 0x10000000, 1 << 24, 3, 4
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.syscall.restype = ctypes.c_long


def run(address: int) -> None:
    """Carry out the table, beginning with the row at that address. Returns only upon an error that ends it."""
    while True:
        row = (ctypes.c_uint64 * 12).from_address(address)
        result = libc.syscall(*(ctypes.c_uint64(cell) for cell in row[:7]))
        if result == -1:
            result = -ctypes.get_errno()
        ctypes.c_int64.from_address(row[10]).value = result
        following = row[9] if result > 0 else row[8] if result == 0 else row[7]
        if not following:
            os.write(REPORT, address.to_bytes(8, "little") + result.to_bytes(8, "little", signed=True))
            os._exit(127)
        address = following


for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
    signal.signal(number, signal.SIG_DFL)
if libc.mmap(ctypes.c_void_p(BASE), ctypes.c_size_t(MAPPED_BYTES), 3, 0x100012, IMAGE, ctypes.c_long(0)) == BASE:
    run(BASE)
os._exit(127)
