"""The lines of threads that a child of `os.fork()` does not have: it lets go of them.

It has every descriptor of its parent, and nobody in it could use these. While it held them, a server, or a command,
would hear nothing of the end of the program.
"""

from __future__ import annotations

import os
import threading
from weakref import WeakKeyDictionary

import trio

Line = trio.SocketStream | trio.lowlevel.FdStream

_threads: WeakKeyDictionary[Line, int] = WeakKeyDictionary()


def keep_from_forks(line: Line) -> None:
    """Have a line of this thread closed in the children that other threads fork."""
    _threads[line] = threading.get_ident()


def _let_go() -> None:
    """Put something idle in the place of each: whoever closes it in the child later must not close another's."""
    own = threading.get_ident()
    lines = [line for line, thread in _threads.items() if thread != own]
    if not lines:
        return
    idle = os.eventfd(0, os.EFD_CLOEXEC)
    for line in lines:
        descriptor = line.socket.fileno() if isinstance(line, trio.SocketStream) else line.fileno()
        if descriptor >= 0:
            os.dup2(idle, descriptor, inheritable=False)
    os.close(idle)


os.register_at_fork(after_in_child=_let_go)
