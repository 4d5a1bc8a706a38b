"""The signals that `execsrv run` is sent, each with its sender, for the command to hear of them."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import trio

_OWN = frozenset(
    signal.Signals[f"SIG{name}"]
    for name in "KILL STOP CHLD TSTP TTIN TTOU PIPE XCPU XFSZ SEGV BUS FPE ILL TRAP ABRT SYS PROF VTALRM".split()
)
"""Signals that concern this process alone: its own stops, its children, its faults and its limits."""

_RECORD = struct.Struct("IiiI112x")  # `struct signalfd_siginfo`: number, errno, code, pid
_SI_KERNEL = 0x80  # <asm-generic/siginfo.h>
_libc = ctypes.CDLL(None, use_errno=True)


class Heard(NamedTuple):
    """One signal that this process was sent, by the kernel or by a process."""

    number: int
    by_kernel: bool
    sender: int


def ignored_signals() -> frozenset[int]:
    """Return the signals that our parent told us to ignore, by `nohup` or as a background job of a script.

    SIGPIPE and SIGXFSZ are not among them: Python ignores them itself.
    """
    ignored = {number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN}
    return frozenset(ignored - _OWN)


class Signals:
    """The signals that this process is sent, in the order in which they are taken."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def next(self) -> list[Heard]:
        """Wait for signals and return them. Cancelling loses none."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            try:
                data = os.read(self._descriptor, 64 * _RECORD.size)
            except BlockingIOError:
                continue
            return [
                Heard(number, code == _SI_KERNEL, 0 if code == _SI_KERNEL else pid)
                for number, _, code, pid in _RECORD.iter_unpack(data)
            ]


@contextmanager
def heard_signals(*, stops: bool) -> Iterator[Signals]:
    """Keep the signals that are for the command as long as this lasts; those that we were told to ignore stay ignored.

    With `stops`, SIGTSTP is one of them. `stop_self` stops this process then.

    They are blocked, for all threads that are made in the block, so that not one of them ends this process between the
    command's start and the moment that somebody listens. To be used in the main thread. Raises `OSError`.
    """
    wanted = signal.valid_signals() - _OWN - ignored_signals()
    if stops and signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
        wanted.add(signal.SIGTSTP)
    numbers = (ctypes.c_uint64 * 16)()
    _libc.sigemptyset(numbers)
    for number in wanted:
        _libc.sigaddset(numbers, number)
    descriptor = _libc.signalfd(-1, numbers, os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "cannot hear signals: " + os.strerror(ctypes.get_errno()))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OWN - wanted)  # what our parent had blocked would keep us from hearing
    try:
        yield Signals(descriptor)
    finally:
        while signal.sigtimedwait(wanted, 0) is not None:
            pass  # what the command sent to all of our group in its last moment is no reason for us to die
        signal.pthread_sigmask(signal.SIG_SETMASK, before - wanted)
        os.close(descriptor)


def stop_self() -> bool:
    """Stop this process as Ctrl-Z does, until it is continued. Return False where nobody heard of being continued.

    That is so where the kernel lets no SIGTSTP stop us, since no shell of our session would continue us.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    signal.raise_signal(signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
    return signal.SIGCONT in signal.sigpending()


def die_of(number: int) -> None:
    """End this process by a signal, without a core file. Returns only where the kernel lets no signal end it: PID 1."""
    _libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
