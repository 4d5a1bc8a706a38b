"""The snapshots of one connection: login files are run once, and the shells after that are given what they have made.

A snapshot is taken by a command like any other, with the environment and the directory of the start that needs it, and
then tried: it is kept only if a shell that it is restored in prints the very same state. So whatever cannot be restored
is found out here, and such login files are run each time, as they were asked for.

It holds for its scope, its shell and its whole environment, and as long as the files that bash reads first have not
changed. It lies in memory, in a file without a name that its shells inherit, and ends with the connection.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import trio
from msgspec.structs import replace

from execsrv._budget.budget import Budget
from execsrv._lent import Lent
from execsrv._login_shells import script
from execsrv._nursery import owned
from execsrv._processes.attempt import Attempt
from execsrv._processes.command import Command, Named
from execsrv._threads import SharedThreads, run_briefly

TAKING_SECONDS = 10.0
"""So long the login files may take for a snapshot. Those that take longer are run each time."""

MOST_BYTES = 1024 * 1024
"""So much they and the snapshot may print."""

MOST_SNAPSHOTS = 8
"""So many one connection keeps, the latest used."""

_MOST_UNUSED = 16
"""So many are taken one after the other without one that is used again. A client whose starts all differ has none."""

_BRIEF_SECONDS = 0.002

_LOGIN_FILES = ("/etc/profile", "/etc/profile.d", "/etc/bash.bashrc", "/etc/bashrc")
_OWN_LOGIN_FILES = (".bash_profile", ".bash_login", ".profile", ".bashrc")

_LOWEST_DESCRIPTOR = 16
"""The command gets it as a lower one."""


class Snapshot(NamedTuple):
    """A script that restores a shell, in a file without a name."""

    file: Lent
    size: int

    def restored(self, command: Command) -> Command:
        """Return a command whose shell reads this instead of its login files."""
        argv = command.argv[0], b"--noprofile", *command.argv[1:]
        return replace(command, argv=argv, named=Named(b"BASH_ENV", self.file))


class Snapshots:
    """What the login files of one connection's shells have made."""

    def __init__(
        self, new_attempt: Callable[[], Attempt], threads: SharedThreads, budget: Budget, files: Budget
    ) -> None:
        """Each snapshot takes its bytes of the budget, and one of the open files."""
        self._new_attempt = new_attempt
        self._threads = threads
        self._budget = budget
        self._files = files
        self._kept: dict[bytes, Snapshot | None] = {}
        """The latest used last. None for login files that have to be run each time."""
        self._taking: dict[bytes, trio.Event] = {}
        self._unused = 0
        """So many have been taken since one was used again."""
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Snapshots {len(self._kept)} taking={len(self._taking)}>"

    def close(self) -> None:
        """Forget them all, and keep none from now on."""
        self._is_closed = True
        while self._kept:
            self._forget_oldest()

    async def settle(self, scope: str, settle: Callable[[], Command], deadline: float) -> Command:
        """Return the command that `settle` decides in a thread, as a shell that is restored where that can be.

        Taking a snapshot leaves it half of the time until its deadline. Raises what `settle` does, and the errors of a
        start.
        """

        def settled() -> tuple[Command, bytes]:
            command = settle()
            return command, _key(scope, command)

        patience = _BRIEF_SECONDS if self._threads.are_few else 0
        command, key = await run_briefly(settled, self._threads, patience)
        if command.account is not None:  # it may read no file of ours
            return command
        seconds = min(TAKING_SECONDS, max(0, deadline - trio.current_time()) / 2)
        snapshot = await self._find(key, command, seconds)
        return command if snapshot is None else snapshot.restored(command)

    async def _find(self, key: bytes, command: Command, seconds: float) -> Snapshot | None:
        """Return the snapshot for a command. Who comes first takes it, and the others wait for that."""
        while key in self._taking:
            await self._taking[key].wait()
        if key in self._kept:
            self._kept[key] = self._kept.pop(key)
            self._unused = 0
            return self._kept[key]
        if self._unused >= _MOST_UNUSED or self._budget.try_take(MOST_BYTES) is not None:
            return None
        self._unused += 1
        taken = self._taking[key] = trio.Event()
        try:
            snapshot = None
            with trio.move_on_after(seconds) as patience:
                snapshot = await self._take(command)
            if patience.cancelled_caught and seconds < TAKING_SECONDS:
                return None  # that was the fault of this command, not of its login files
            return self._keep(key, snapshot)
        finally:
            self._budget.give(MOST_BYTES)
            del self._taking[key]
            taken.set()

    def _keep(self, key: bytes, snapshot: Snapshot | None) -> Snapshot | None:
        """Keep what was taken, or that nothing could be. Return it, None without the room."""
        if self._is_closed:
            return snapshot
        while len(self._kept) >= MOST_SNAPSHOTS:
            self._forget_oldest()
        if snapshot is not None and not self._pay_for(snapshot):
            snapshot = None
        self._kept[key] = snapshot
        return snapshot

    def _pay_for(self, snapshot: Snapshot) -> bool:
        """Take what a snapshot costs, and return whether there was so much."""
        if self._files.try_take(1) is not None:
            return False
        if self._budget.try_take(snapshot.size) is not None:
            self._files.give()
            return False
        return True

    def _forget_oldest(self) -> None:
        snapshot = self._kept.pop(next(iter(self._kept)))
        if snapshot is not None:
            self._budget.give(snapshot.size)
            self._files.give()

    async def _take(self, command: Command) -> Snapshot | None:
        """Run the login files, and return what they have made, None where a new shell cannot be given it."""
        token = secrets.token_hex(16)
        printing = script.capturing(token, (os.fsdecode(entry).partition("=")[0] for entry in command.env))
        argv = command.argv[0], command.argv[1], printing
        asking = replace(command, argv=argv, stdout="pipe", stderr="null", stdin=None)
        state = await self._state_of(asking, token)
        if state is None or script.sees_each_command(state):
            return None
        snapshot = _in_memory(script.restoring(state))
        again = await self._state_of(snapshot.restored(asking), token)
        return snapshot if again is not None and script.is_same(state, again) else None

    async def _state_of(self, command: Command, token: str) -> script.State | None:
        """Return the state that a shell prints, None where it does not, or leaves somebody behind."""
        attempt = self._new_attempt()
        try:
            spawned = await attempt.start(lambda: command, self._threads, size=None, pipe_stdin=False)
            attempt.pass_streams()
            printed = bytearray()
            async with trio.lowlevel.FdStream(spawned.outputs["stdout"]) as output:
                while not script.is_whole(printed, token):
                    piece = await output.receive_some()
                    printed += piece
                    if not piece or len(printed) > MOST_BYTES:
                        return None
            await spawned.tree.leader.wait_exited()
            return None if await spawned.tree.remaining() else script.read(printed, token)
        finally:
            await owned(attempt.end)


def _key(scope: str, command: Command) -> bytes:
    """Return what a snapshot holds for, as a digest: variables may be secrets. Blocks as long as the home does."""
    digest = blake2b(digest_size=32)
    env = dict(entry.partition(b"=")[::2] for entry in command.env)
    for name in script.OF_EACH_START:
        env.pop(name.encode(), None)
    files = [*_LOGIN_FILES, os.fsdecode(env.get(b"BASH_ENV", b""))]
    home = os.fsdecode(env.get(b"HOME", b""))
    files += [os.path.join(home, name) for name in _OWN_LOGIN_FILES]
    parts = scope, command.program, command.argv[0], command.umask, command.nice, sorted(env.items())
    digest.update(repr((parts, command.limits, [_version(file) for file in files])).encode())
    return digest.digest()


def _version(path: str) -> tuple[int, int, int] | None:
    """Return what changes with a file, None for none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _in_memory(text: bytes) -> Snapshot:
    """Return a snapshot that only who inherits it can read, and nobody can change."""
    made = os.memfd_create("login-shell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(made, 0o400)
        with open(made, "wb", closefd=False) as file:
            file.write(text)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
        return Snapshot(Lent(fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR)), len(text))
    finally:
        os.close(made)
