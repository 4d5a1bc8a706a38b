"""The C library's `posix_spawn`, with everything that the standard library's does not pass on.

Directory, session, controlling terminal, signals and descriptors are all settled between vfork and exec by the C
library, so that a start costs the same however large the server is, and runs no Python in the child. glibc 2.34 and
later have all of it; `available` is false where a piece is missing.

Constants: <spawn.h> of glibc.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache

from execsrv._processes import carried_limits
from execsrv._processes.command import Command

_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
# Room for the C library's own structures: 336 and 80 bytes in glibc on 64-bit Linux, 128 for a signal set.
_Attributes = ctypes.c_uint64 * 128
_Actions = ctypes.c_uint64 * 64
_SignalSet = ctypes.c_uint64 * 16
_NEEDED = ("addfchdir_np", "adddup2", "addopen", "addclosefrom_np", "init", "destroy")

_libc = ctypes.CDLL(None)
_quick = ctypes.PyDLL(None)
"""The C library again, for what only fills structures: no other thread need have the interpreter meanwhile."""

available = all(hasattr(_libc, f"posix_spawn_file_actions_{name}") for name in _NEEDED)


def _prepare_attributes(*, own_session: bool = True, ignored: Iterable[int] = ()) -> ctypes.Array[ctypes.c_uint64]:
    """Return the attributes of a child: no signal is blocked, and all but the `ignored` are at their default."""
    attributes, default, none = _Attributes(), _SignalSet(), _SignalSet()
    _check(_quick.posix_spawnattr_init(attributes))
    _quick.sigfillset(default)
    for number in ignored:
        _quick.sigdelset(default, number)
    _quick.sigemptyset(none)
    _check(_quick.posix_spawnattr_setsigdefault(attributes, default))
    _check(_quick.posix_spawnattr_setsigmask(attributes, none))
    flags = ctypes.c_short(_SETSIGDEF | _SETSIGMASK | (_SETSID if own_session else 0))
    _check(_quick.posix_spawnattr_setflags(attributes, flags))
    return attributes


@lru_cache(64)
def _strings(count: int) -> type[ctypes.Array[ctypes.c_char_p]]:
    """Return the type of so many strings and their end. To make one takes longer than to fill it."""
    return ctypes.c_char_p * (count + 1)


def _check(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))


_attributes = _prepare_attributes() if available else None
"""Those of every child that inherits nothing, made once."""


def start(
    command: Command,
    directory: int | None,
    stdio: Sequence[int | None] | bytes,
    child: ctypes.c_int,
    *,
    lent: Sequence[int] = (),
) -> None:
    """Start `command` and write its pid into `child`. It leads a new session, unless it has `inherited` ours.

    `directory` is a descriptor of its working directory, None for ours. `stdio` is either the three descriptors that
    become its 0, 1 and 2, None for one that is to be closed, or the name of a terminal that becomes all three and its
    controlling terminal. It inherits no other, but for `pass_fds`. Those that are `lent` become its 3 and above, its
    `named` file the next; they must have higher numbers than that.

    Raises `OSError` when it could not be executed; then nothing was left behind. All given descriptors stay the
    caller's, and must be 3 or above where they get another number.
    """
    attributes, passed = _attributes, list[int]()
    if (inherited := command.inherited) is not None:
        attributes = _prepare_attributes(own_session=isinstance(stdio, bytes), ignored=inherited.ignored)
        passed = sorted(inherited.pass_fds)
    variables = command.env_with(3 + len(lent))
    if command.named is not None:
        lent = (*lent, command.named.file.descriptor)
    actions = _Actions()
    _check(_quick.posix_spawn_file_actions_init(actions))
    try:
        if directory is not None:
            _check(_quick.posix_spawn_file_actions_addfchdir_np(actions, directory))
        if isinstance(stdio, bytes):
            # The first terminal that a session leader opens becomes its controlling terminal: see tty_ioctl(4).
            _check(_quick.posix_spawn_file_actions_addopen(actions, 0, stdio, os.O_RDWR, 0))
            _check(_quick.posix_spawn_file_actions_adddup2(actions, 0, 1))
            _check(_quick.posix_spawn_file_actions_adddup2(actions, 0, 2))
        else:
            for target, descriptor in enumerate(stdio):
                if descriptor is None:
                    _check(_quick.posix_spawn_file_actions_addclose(actions, target))
                else:
                    _check(_quick.posix_spawn_file_actions_adddup2(actions, descriptor, target))
        first = 3 + len(lent)
        for target, descriptor in enumerate(lent, 3):
            _check(_quick.posix_spawn_file_actions_adddup2(actions, descriptor, target))
        for descriptor in passed:
            for between in range(first, descriptor):
                _check(_quick.posix_spawn_file_actions_addclose(actions, between))
            first = max(first, descriptor + 1)
        _check(_quick.posix_spawn_file_actions_addclosefrom_np(actions, first))
        argv = _strings(len(command.argv))(*command.argv)
        env = _strings(len(variables))(*variables)
        # Not before: above the limit, the C library takes no descriptor into its actions.
        carried_limits.carry_limits()
        _check(_libc.posix_spawn(ctypes.byref(child), command.program, actions, attributes, argv, env))
    finally:
        _quick.posix_spawn_file_actions_destroy(actions)
