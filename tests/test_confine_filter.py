"""The filter of system calls, carried out as the kernel would: every call, and arguments on both sides of each rule."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import termios

import pytest

from execsrv._processes.confine import seccomp
from execsrv._processes.confine.syscalls import BY_MACHINE
from execsrv._processes.rlimit_mark import LOCKS, RTTIME

X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
PASSED, KILLED = 0x7FFF0000, 0x80000000


def answer(program: bytes, number: int, *arguments: int, architecture: int = X86_64) -> str:
    """Return what the filter says to a call: the name of an error, "pass" or "kill"."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("<HBBI", program))
    at, value = 0, 0
    while True:
        kind, if_true, if_false, operand = code[at]
        at += 1
        match kind:
            case 0x20:
                [value] = struct.unpack_from("<I", data, operand)
            case 0x54:
                value &= operand
            case 0x05:
                at += operand
            case 0x15 | 0x35 | 0x45:
                holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[kind]
                at += if_true if holds else if_false
            case 0x06:
                return {PASSED: "pass", KILLED: "kill"}.get(operand) or errno.errorcode[operand & 0xFFFF]


@pytest.mark.parametrize("machine", BY_MACHINE)
@pytest.mark.parametrize("network", [False, True])
def test_every_call_is_answered_as_it_is_listed(machine: str, network: bool) -> None:
    program, numbers = seccomp.program(network=network, machine=machine), BY_MACHINE[machine]
    ours, other = (X86_64, AARCH64) if machine == "x86_64" else (AARCH64, X86_64)
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096  # BPF_MAXINSNS
    denied = {numbers[name] for name in seccomp.DENIED if name in numbers}
    if not network:
        denied |= {numbers[name] for name in seccomp.DENIED_NETWORK}
    for number in range(600):
        expected = "EPERM" if number in denied else "ENOSYS" if number == numbers["clone3"] else "pass"
        if network or number not in {numbers["socket"], numbers["socketpair"]}:
            assert answer(program, number, architecture=ours) == expected, number
        for architecture in (other, I386):
            assert answer(program, number, architecture=architecture) == "kill"
        assert answer(program, 0x40000000 + number, architecture=ours) == "ENOSYS"
    assert answer(program, 0xFFFFFFFF, architecture=ours) == "ENOSYS"


HIGH = 1 << 32
INET, UNIX = socket.AF_INET, socket.AF_UNIX
STREAM, DATAGRAM, RAW, PACKETS = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET
NAMED = [
    ("clone", (17,), "pass"),
    ("clone", (0x10000000 | 17,), "EPERM"),
    ("clone", (0x80,), "EPERM"),
    ("clone", (0x8000 | 17,), "EPERM"),
    ("clone", (0x4111,), "pass"),
    ("unshare", (0x400,), "pass"),
    ("unshare", (0x20000,), "EPERM"),
    ("ioctl", (0, termios.TIOCGWINSZ), "pass"),
    ("ioctl", (0, termios.TIOCSTI), "EPERM"),
    ("ioctl", (0, HIGH | termios.TIOCSTI), "EPERM"),
    ("ioctl", (0, 0x541C), "EPERM"),
    ("fcntl", (3, fcntl.F_SETFL), "pass"),
    ("fcntl", (3, fcntl.F_SETLEASE), "EPERM"),
    ("fcntl", (3, HIGH | fcntl.F_SETLEASE), "EPERM"),
    ("fcntl", (3, 1040), "EPERM"),
    ("setrlimit", (RTTIME, 1), "EPERM"),
    ("setrlimit", (LOCKS, 1), "EPERM"),
    ("setrlimit", (7, 1), "pass"),
    ("prlimit64", (0, RTTIME, 0), "pass"),
    ("prlimit64", (0, RTTIME, 1), "EPERM"),
    ("prlimit64", (0, LOCKS, HIGH), "EPERM"),
    ("prlimit64", (0, 7, HIGH), "pass"),
    ("prlimit64", (5, 7, 0), "pass"),
    ("prlimit64", (5, 7, 1), "EPERM"),
]
OF_NETWORK = [
    ("socket", (UNIX, STREAM), "pass"),
    ("socket", (UNIX, PACKETS | socket.SOCK_CLOEXEC), "pass"),
    ("socket", (UNIX, DATAGRAM), "EPERM"),
    ("socket", (UNIX, RAW), "EPERM"),
    ("socket", (INET, STREAM), "EPERM"),
    ("socketpair", (UNIX, STREAM), "pass"),
    ("socketpair", (UNIX, DATAGRAM | socket.SOCK_NONBLOCK), "EPERM"),
    ("sendto", (3, 1, 1, 0, 0), "pass"),
    ("sendto", (3, 1, 1, 0, 1), "EPERM"),
    ("sendto", (3, 1, 1, 0, HIGH), "EPERM"),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), NAMED + OF_NETWORK)
def test_arguments_are_looked_at(name: str, arguments: tuple[int, ...], expected: str) -> None:
    with_network = expected if (name, arguments, expected) in NAMED else "pass"
    for machine, architecture in {"x86_64": X86_64, "aarch64": AARCH64}.items():
        number = BY_MACHINE[machine][name]
        closed, opened = (seccomp.program(network=network, machine=machine) for network in (False, True))
        assert answer(closed, number, *arguments, architecture=architecture) == expected
        assert answer(opened, number, *arguments, architecture=architecture) == with_network
