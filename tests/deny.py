"""`deny ERRNO NUMBER[:FIRST] COMMAND...`: runs a command to which the kernel answers one system call with an error.

So do container engines and sandboxes. With FIRST, only calls with that first argument are denied.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x50000
NUMBER_AT, FIRST_ARGUMENT_AT = 0, 16


class Program(ctypes.Structure):
    """The kernel's `sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def main(errno: int, call: str, argv: list[str]) -> None:
    """Deny the call, and become the command."""
    number, _, first = call.partition(":")
    rules = [(LOAD, 0, 0, NUMBER_AT), (EQUAL, 0, 3 if first else 1, int(number))]
    if first:
        rules += [(LOAD, 0, 0, FIRST_ARGUMENT_AT), (EQUAL, 0, 1, int(first))]
    rules += [(RETURN, 0, 0, FAIL | errno), (RETURN, 0, 0, ALLOW)]
    code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, ctypes.byref(Program(len(rules), ctypes.addressof(buffer)))):  # PR_SET_SECCOMP
        sys.exit(f"deny: cannot set a filter: {os.strerror(ctypes.get_errno())}")
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
