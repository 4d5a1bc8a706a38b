"""The start of a command over a runner: what `Attempt` is for a command of this machine.

Where nothing relays between server and runner, the command gets ends of pipes of ours, and no byte of it passes through
the runner. We keep the other ends, which no runner ever had: it could make them block. Otherwise, and always on a
terminal, the bytes come in frames.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from execsrv._budget.budget import Budget
from execsrv._lent import Lent
from execsrv._processes.command import spawn_error
from execsrv._processes.own_streams import OwnInput
from execsrv._runner.remote import WINDOW_BYTES, RemoteCommand
from execsrv._runner.tree import RunnerInput, RunnerLimits, RunnerSpawned, RunnerStreams, RunnerTree
from execsrv._runner.version_2_messages import STDIN_WINDOW_BYTES, Error, SpawnRequest
from execsrv._server.runners import Launched, Runners
from execsrv._threads import SharedThreads, run_briefly
from execsrv.errors import (
    BusyError,
    InvalidParamsError,
    LimitUnavailableError,
    ProtocolError,
    RequestError,
    SandboxUnavailableError,
    SpawnError,
)
from execsrv.protocol import Stream
from execsrv.protocol.sandbox import Confined

FRAMED_BYTES = 2 * WINDOW_BYTES + STDIN_WINDOW_BYTES
"""The cost of a framed session beside that of any: what may be on its way from the runner, and to it."""

_MESSAGE_CHARACTERS = 2000


class RunnerAttempt:
    """One start. Whoever makes it calls `end` in the end, whatever happened."""

    usage = None
    """Nobody here has waited for the command's end."""

    def __init__(self, runners: Runners, words: Sequence[str], budget: Budget) -> None:
        """`words` launch the runner, unless it is there."""
        self._runners = runners
        self._words = words
        self._launched: Launched | None = None
        self._budget = budget
        self._taken = 0
        self._command: RemoteCommand | None = None
        self._ours: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<RunnerAttempt {self._launched!r} {self._command!r}>"

    async def start(self, settle: Callable[[], SpawnRequest], threads: SharedThreads) -> RunnerSpawned:
        """Settle the request in a thread, and have it done. Its `id`, and what is passed, are decided here.

        Raises what `settle` does, `SpawnError`, and `BusyError` where the machine gives no thread. Cancelling gives it
        up.
        """
        launched = self._launched = self._runners.acquire(self._words)
        request = await run_briefly(settle, threads, 0)
        link = await launched.ready()
        while not link.has_room:  # requests may be large
            await link.wait_room()
            link = await launched.ready()
        passes = link.passes and not request.tty
        pipes = {
            "stdin": request.stdin_open,
            "stdout": request.stdout == "pipe",
            "stderr": request.stderr == "pipe",
        }
        lent: list[Lent] = []
        if passes:
            names = [name for name, wanted in pipes.items() if wanted]
            lent = self._open_pipes(names)
            request = replace(request, stdin_passed="stdin" in names, **dict.fromkeys(set(names) - {"stdin"}, "passed"))
        else:
            self._budget.take(FRAMED_BYTES)
            self._taken = FRAMED_BYTES
        framed: list[Stream] = []
        if not passes:
            framed = ["pty"] if request.tty else [name for name in ("stdout", "stderr") if pipes[name]]
        try:
            self._command = command = RemoteCommand(link, framed, passes=passes)
            command.request(request, lent)
        except OSError as error:
            raise spawn_error("resources", error.errno or 0, "start") from error
        except UnicodeEncodeError:
            raise spawn_error("arguments", errno.EILSEQ, "start over a runner, with a name that is no text") from None
        except ProtocolError:  # it is too large
            raise spawn_error("arguments", errno.E2BIG, "start over a runner") from None
        del lent  # so that the end of the command's own is an end
        await command.started.wait()
        if command.error is not None:
            raise error_of(command.error)
        if command.facts is None:
            raise launched.cannot(link.why or "it has ended")
        return self._spawned(request, command, passes=passes)

    def _open_pipes(self, names: list[str]) -> list[Lent]:
        """Open pipes, keep our ends, and return those of the command."""
        lent = []
        for name in names:
            try:
                read, write = os.pipe()
            except OSError as error:
                raise spawn_error("resources", error.errno or 0, "start") from error
            self._ours[name], its = (write, read) if name == "stdin" else (read, write)
            lent.append(Lent(its))
            os.fchmod(its, 0o666)  # whoever the command is, it may open /dev/stdout; nobody else has a way to it
            os.set_blocking(self._ours[name], False)
        return lent

    def _spawned(self, request: SpawnRequest, command: RemoteCommand, *, passes: bool) -> RunnerSpawned:
        tree = RunnerTree(command)
        its_input: OwnInput | RunnerInput | None = None
        if "stdin" in self._ours:
            its_input = OwnInput(self._ours["stdin"], is_terminal=False)
        elif request.stdin_open or request.tty:
            its_input = RunnerInput(command, is_terminal=request.tty)
        outputs: dict[Stream, int] | None = None
        if passes:
            outputs = {name: self._ours[name] for name in ("stdout", "stderr") if name in self._ours}
        streams = RunnerStreams(tree, command, outputs, its_input, request.size if request.tty else None)
        facts = command.facts
        confined = None
        if facts is not None and request.sandbox is not None:
            confined = Confined([*map(_printable, facts.layers)], [*map(_printable, facts.gaps)])
        limits = None if request.limits is None else RunnerLimits(request.limits, command)
        return RunnerSpawned(os.path.basename(request.command[0]), tree, streams, confined, limits)

    def pass_streams(self) -> None:
        """Leave the streams to whoever holds what was spawned. The command still ends with this."""
        self._ours.clear()

    async def end(self) -> None:
        """End what was started, and what still is being started. Cannot be cancelled."""
        try:
            if self._command is not None:
                if self._command.facts is None or self._command.is_over:
                    self._command.forget()
                else:
                    await RunnerTree(self._command).end()
        finally:
            self._budget.give(self._taken)
            self._taken = 0
            for descriptor in self._ours.values():
                os.close(descriptor)
            self._ours.clear()
            launched, self._launched = self._launched, None
            if launched is not None:
                self._runners.release(launched)


_KINDS: dict[str | None, type[RequestError]] = {
    error.kind: error for error in (InvalidParamsError, LimitUnavailableError, SandboxUnavailableError)
}


def error_of(error: Error) -> RequestError:
    """Return the error of a start as the runner tells it, without letters that a terminal would obey."""
    text = _printable(error.message)
    if error.code == "busy":
        return BusyError(text)
    told = {"step": error.step, "field": error.field, "need": error.need}
    facts: dict[str, Any] = {name: _printable(fact) for name, fact in told.items() if fact is not None}
    if error.errno is not None:
        facts["errno"] = error.errno
    if (kind := _KINDS.get(error.kind)) is not None:
        return kind(text, **facts)
    return SpawnError(text, stage=_printable(error.stage or "runner"), **({"errno": 0} | facts))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:_MESSAGE_CHARACTERS])
