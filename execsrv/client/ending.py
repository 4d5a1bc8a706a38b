"""The end of a process when its block is left: it is asked, then killed, and waited for until nothing of it lives.

An interrupted connection, and a server that does not answer, hold nobody up: the kill follows as soon as it can.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from execsrv.client.mirror import Mirror
from execsrv.client.parameters import grace_milliseconds
from execsrv.errors import BadAnswerError, ConnectionLostError, RequestError, UnknownProcessError
from execsrv.protocol import (
    Grace,
    Graceful,
    ProcessOutputRead,
    ProcessRead,
    ProcessSignal,
    ProcessSignaled,
    ProcessTerminate,
    Running,
)

_ASK_AGAIN_SECONDS = 0.02


async def end(mirror: Mirror, grace: float, patience: float) -> None:
    """End everything of a process, and wait until that is done, for `grace` and `patience` seconds at most.

    It is asked first, and killed when the grace is over. What it still prints is thrown away. Cancelled before the
    answer to its start, it may have started all the same.
    """
    if mirror.is_over or mirror.start is None or mirror.was_refused:
        return
    for tap in mirror.taps:
        tap.leaving()
    mirror.abandon()
    if mirror.calls.is_interrupted and mirror.reader.lost is None:
        _end_when_back(mirror)
        return
    with trio.move_on_after(grace + patience, shield=True) as waiting:
        try:
            await _end(mirror, grace)
        except (ConnectionLostError, BadAnswerError, UnknownProcessError):
            return  # the server ends it with the connection, or knows it no more
    if waiting.cancelled_caught:
        _end_when_back(mirror)


async def _end(mirror: Mirror, grace: float) -> None:
    calls = mirror.calls
    await calls.call("process/terminate", termination(mirror.id, grace), Running)
    if mirror.is_unsure or mirror.was_refused:
        return  # it never started, so nothing will come
    if mirror.hearing == "awaits its log":
        mirror.resumed(await calls.call("process/read", ProcessRead(mirror.id), ProcessOutputRead))
    await mirror.reader.drain()
    await wait_alone(mirror)


def _end_when_back(mirror: Mirror) -> None:
    """Have everything of a process killed as soon as the server can be asked to, on this channel or the next."""
    mirror.calls.ask_overdue("process/terminate", ProcessTerminate(mirror.id))


async def end_for_readers(mirror: Mirror, why: ConnectionLostError, grace: float, patience: float) -> None:
    """End everything of a process as `end` does, though its block goes on: whoever reads it hears why."""
    if mirror.is_over or mirror.start is None or mirror.was_refused:
        return
    mirror.abandon()
    mirror.lose(why)
    with (
        trio.move_on_after(grace + patience, shield=True),
        suppress(ConnectionLostError, BadAnswerError, RequestError),
    ):
        await mirror.calls.call("process/terminate", termination(mirror.id, grace), Running)
        await _until_nobody(mirror)


async def wait_alone(mirror: Mirror) -> None:
    """Wait until nothing lives of what had lived on after the close. A server that cannot tell is not asked again.

    Nothing is told after the close, so it is asked for how many there are to be woken.
    """
    if mirror.closed is not None and mirror.closed.remaining:
        with suppress(RequestError):
            await _until_nobody(mirror)


async def _until_nobody(mirror: Mirror) -> None:
    while True:
        if not (await mirror.calls.call("process/signal", _anybody(mirror.id), ProcessSignaled)).received:
            return
        await trio.sleep(_ASK_AGAIN_SECONDS)


def termination(id: str, grace: float) -> ProcessTerminate:
    """Return the order to end everything of a process: politely with a grace, in seconds, else by force."""
    if grace == 0:
        return ProcessTerminate(id)
    return ProcessTerminate(id, Graceful(Grace(grace_milliseconds(grace))))


def _anybody(id: str) -> ProcessSignal:
    """Return SIGCONT: a stopped process needs it to end when asked to, and one that runs does not notice."""
    return ProcessSignal(id, "SIGCONT", "tree")
