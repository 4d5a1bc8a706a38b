"""The C library's `posix_spawn`, with everything that the standard library's does not pass on.

Directory, session, controlling terminal, signals and descriptors are all settled between vfork and exec by the C
library, so that a start costs the same however large the server is, and runs no Python in the child. glibc 2.34 and
later have all of it; `available` is false where a piece is missing.

Constants: <spawn.h> of glibc.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from execsrv._processes import carry
from execsrv._processes.command import Command

_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
# Room for the C library's own structures: 336 and 80 bytes in glibc on 64-bit Linux, 128 for a signal set.
_Attributes = ctypes.c_uint64 * 128
_Actions = ctypes.c_uint64 * 64
_SignalSet = ctypes.c_uint64 * 16
_NEEDED = ("addfchdir_np", "adddup2", "addopen", "addclosefrom_np", "init", "destroy")

_libc = ctypes.CDLL(None)
available = all(hasattr(_libc, f"posix_spawn_file_actions_{name}") for name in _NEEDED)


def _prepare_attributes() -> ctypes.Array[ctypes.c_uint64]:
    """Return the attributes of every child: a session of its own, all signals at their default, none blocked."""
    attributes, every, none = _Attributes(), _SignalSet(), _SignalSet()
    _check(_libc.posix_spawnattr_init(attributes))
    _libc.sigfillset(every)
    _libc.sigemptyset(none)
    _check(_libc.posix_spawnattr_setsigdefault(attributes, every))
    _check(_libc.posix_spawnattr_setsigmask(attributes, none))
    flags = ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID)
    _check(_libc.posix_spawnattr_setflags(attributes, flags))
    return attributes


def _check(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))


_attributes = _prepare_attributes() if available else None


def start(command: Command, directory: int | None, stdio: Sequence[int] | bytes, child: ctypes.c_int) -> None:
    """Start `command` as the leader of a new session and write its pid into `child`.

    `directory` is a descriptor of its working directory, None for ours. `stdio` is either the three descriptors that
    become its 0, 1 and 2, or the name of a terminal that becomes all three and its controlling terminal. It inherits no
    other.

    Raises `OSError` when it could not be executed; then nothing was left behind. All given descriptors stay the
    caller's and must be 3 or above.
    """
    actions = _Actions()
    _check(_libc.posix_spawn_file_actions_init(actions))
    try:
        if directory is not None:
            _check(_libc.posix_spawn_file_actions_addfchdir_np(actions, directory))
        if isinstance(stdio, bytes):
            # The first terminal that a session leader opens becomes its controlling terminal: see tty_ioctl(4).
            _check(_libc.posix_spawn_file_actions_addopen(actions, 0, stdio, os.O_RDWR, 0))
            _check(_libc.posix_spawn_file_actions_adddup2(actions, 0, 1))
            _check(_libc.posix_spawn_file_actions_adddup2(actions, 0, 2))
        else:
            for target, descriptor in enumerate(stdio):
                _check(_libc.posix_spawn_file_actions_adddup2(actions, descriptor, target))
        _check(_libc.posix_spawn_file_actions_addclosefrom_np(actions, 3))
        argv = (ctypes.c_char_p * (len(command.argv) + 1))(*command.argv)
        env = (ctypes.c_char_p * (len(command.env) + 1))(*command.env)
        carry.carry_limits()  # not before: above the limit, the C library takes no descriptor into its actions
        _check(_libc.posix_spawn(ctypes.byref(child), command.program, actions, _attributes, argv, env))
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)
