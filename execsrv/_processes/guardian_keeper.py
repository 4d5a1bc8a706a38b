"""The server's side of its guardian: starting it, hearing that it is there, replacing it, and letting it go.

A guardian that was killed is replaced, one that is stopped is continued or replaced, and one that cannot be started is
tried again, whatever the error.

The beat is sent by a task of the server's loop, so a guardian that has patience with the loop hears when that stands.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress

import trio

from execsrv._processes import guardian, proc, spawn
from execsrv._processes.command import Command
from execsrv._processes.leader import Leader
from execsrv._processes.membership import Register
from execsrv._processes.rlimit_mark import ServerMark
from execsrv.errors import SpawnError

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5, 30.0
"""Time from its start after which a guardian that did not live is replaced: at first, and after doubling, at last."""

LEAVE_SECONDS = 2.0
"""Time that a guardian has to make sure that nothing is left, at an orderly end. Then it goes on alone."""

READY_SECONDS = 2.0
"""The most time that a start waits for a guardian that is coming up."""

BEAT_SECONDS = 1.0
"""Time from an answer until the guardian is asked again whether it is there."""

SILENT_SECONDS = 2.0
"""Time that it has to answer, before somebody looks whether it is stopped."""

_DEAF = 10
"""After so many of these times it is replaced, though it is not stopped."""


def possible() -> bool:
    """Tell whether there is an interpreter to run a guardian: not so in a program that was frozen into one file."""
    return bool(sys.executable) and not hasattr(sys, "frozen")


class Guard:
    """Keeps a guardian for one server, as long as `run` does."""

    def __init__(self, register: Register, mark: ServerMark, *, cgroups: bool, patience: float) -> None:
        """With `cgroups` the guardian moves this process into a control group, if there is one to be had.

        Unless `patience` is 0, it ends our sessions when our loop has stood still for that long.
        """
        self._register = register
        self._mark = mark
        self._cgroups = cgroups
        self._patience = patience
        self._is_ready = False
        self._has_failed = False
        self._changed = trio.Event()
        self.begun = trio.Event()
        """Set when there is a guardian that would hear of our end, ready or not, or when one cannot be had."""

    def __repr__(self) -> str:
        return f"<Guard {'ready' if self._is_ready else 'without a guardian' if self._has_failed else 'not ready'}>"

    @property
    def is_settled(self) -> bool:
        """True when there is a guardian, or one cannot be had: nobody need wait for it."""
        return self._is_ready or self._has_failed

    async def wait_ready(self) -> None:
        """Wait until there is a guardian, or one cannot be had, or for `READY_SECONDS`."""
        if self.is_settled:
            return
        with trio.move_on_after(READY_SECONDS):
            while not self.is_settled:
                await self._changed.wait()
            return
        logger.warning("the guardian is not ready after %g s: starting a command without it", READY_SECONDS)

    def _say(self, *, ready: bool, failed: bool = False) -> None:
        self.begun.set()
        self._is_ready, self._has_failed = ready, failed
        self._changed.set()
        self._changed = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Keep a guardian running, from when it is first wanted until cancelled; then let it finish, and reap it."""
        await self._register.used.wait()
        shortest, longest = RETRY_SECONDS
        pause = shortest
        while True:
            began = trio.current_time()
            try:
                with self._register.reserve.lent():
                    leader, stdin, stdout = self._start()
                self._say(ready=False)
                await self._watch(leader, stdin, stdout)
                logger.warning("the guardian (pid %d) was killed; starting another", leader.pid)
            except (SpawnError, OSError) as error:
                self._fail(error, quiet=pause > shortest)
            except Exception as error:  # a fault of ours, which is to end no server
                self._fail(error, quiet=False, exc_info=error)
            if trio.current_time() - began >= shortest:
                pause = shortest
            else:
                await trio.sleep_until(began + pause)
                pause = min(2 * pause, longest)

    def _fail(self, error: Exception, *, quiet: bool, exc_info: Exception | None = None) -> None:
        if not quiet:
            logger.error("cannot start the guardian, trying on: %s", error, exc_info=exc_info)
        self._say(ready=False, failed=True)

    def _start(self) -> tuple[Leader, int, int]:
        """Start one, in a session of its own, with nothing of ours but its streams. Return it and our ends of them."""
        mark = self._mark
        silence = self._patience and BEAT_SECONDS + self._patience  # the loop may stand when a beat is nearly due
        words = [sys.executable, "-I", "-S", guardian.__file__, os.getpid(), mark.slot, mark.server]
        words += [int(self._cgroups), silence]
        # Some interpreters find their own library by it.
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        env = tuple(os.fsencode(f"{name}={value}") for name, value in kept.items())
        command = Command(os.fsencode(sys.executable), tuple(os.fsencode(str(word)) for word in words), env, b"/")
        started = spawn.spawn(command, None, True, None, carries=False)
        os.close(started.outputs["stderr"])
        assert started.stdin is not None
        return Leader(started.pid, started.pidfd), started.stdin, started.outputs["stdout"]

    async def _watch(self, leader: Leader, stdin: int, stdout: int) -> None:
        """Wait until a guardian has ended. On cancellation let it finish, by the end of its stdin."""
        self._register.helpers.add(leader.pid)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat, leader, stdin, stdout)
                await leader.wait_ended()
                nursery.cancel_scope.cancel()
        except Exception:  # of a beat: the sessions go on, and are the next guardian's
            _send(leader, signal.SIGKILL)
            raise
        finally:
            self._say(ready=False)
            os.close(stdin)
            os.close(stdout)
            _send(leader, signal.SIGCONT)
            with trio.move_on_after(LEAVE_SECONDS, shield=True):
                await leader.wait_ended()
            leader.close()
            self._register.let_go(leader)

    @trio.lowlevel.enable_ki_protection
    async def _beat(self, leader: Leader, stdin: int, stdout: int) -> None:
        """Ask a guardian again and again whether it is there. Who does not answer is continued, and then killed."""
        silent, patience = 0, self._patience
        while True:
            if said := await _hears(stdout):
                silent = 0
                if guardian.SILENCE in said:
                    logger.error(
                        "stood still for more than guardian_patience (%g s): all sessions were ended", patience
                    )
                if not self._is_ready:
                    self._say(ready=True)
                await trio.sleep(BEAT_SECONDS)
                with suppress(OSError):
                    os.write(stdin, b"\n")
                continue
            silent += 1
            if stopped := proc.state(leader.pid) in ("T", "t"):
                self._say(ready=False)
            if silent >= (2 if stopped else _DEAF):
                logger.warning("the guardian (pid %d) does not answer; replacing it", leader.pid)
                _send(leader, signal.SIGKILL)
            elif stopped:
                logger.warning("the guardian (pid %d) was stopped; continuing it", leader.pid)
                _send(leader, signal.SIGCONT)


async def _hears(stdout: int) -> bytes:
    """Return a guardian's answer, nothing when none came in `SILENT_SECONDS`."""
    with trio.move_on_after(SILENT_SECONDS):
        await trio.lowlevel.wait_readable(stdout)
    try:
        if said := os.read(stdout, 4096):  # also when the time was over because this process was stopped itself
            return said
    except BlockingIOError:
        return b""
    await trio.sleep_forever()  # it has ended, which is heard elsewhere
    return b""


def _send(leader: Leader, number: int) -> None:
    """Send a signal to a guardian. It is our child, and not reaped: so its pid is its own."""
    with suppress(OSError):
        os.kill(leader.pid, number)
