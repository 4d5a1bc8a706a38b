"""A runner from its first frame on: which version it is of, and its end."""

from __future__ import annotations

from contextlib import suppress

import trio

from execsrv._nursery import open_helpers, owned
from execsrv._processes.supervisor import Supervisor
from execsrv._runner import version_1_messages, version_2_messages
from execsrv._runner.channel import Channel
from execsrv._runner.frames import AS_RUNNER, VERSIONS, FrameReader, UnsupportedVersionError
from execsrv._runner.incoming import Incoming
from execsrv._runner.outgoing import Outgoing
from execsrv._runner.version_1_messages import FAILED
from execsrv.errors import ProtocolError

FIRST_SECONDS = 15
"""So long a runner waits for its first frame."""

_LAST_WORD_SECONDS = 1.0


async def serve_runner(supervisor: Supervisor, channel: Channel) -> int:
    """Serve the one at the other end of a channel, until it hangs up; return the exit status.

    When this is over, nothing is left of what was started. Cancelling ends it at once. Raises `ProtocolError` for one
    that breaks the protocol, and has been told.
    """
    incoming = Incoming(channel, FrameReader(AS_RUNNER))
    outgoing = Outgoing(channel.send_all)
    status = FAILED
    async with open_helpers() as nursery:
        with trio.CancelScope() as talking:
            nursery.start_soon(owned, _write, outgoing, talking)
            try:
                status = await _talk(supervisor, channel, incoming, outgoing)
            except ProtocolError as error:
                if incoming.version != 1:  # which has no words for it
                    await _complain(outgoing, error)
                raise
    return status


async def _write(outgoing: Outgoing, talking: trio.CancelScope) -> None:
    """Send what is to be sent. Where nobody reads it, the talk is over."""
    with suppress(trio.BrokenResourceError):
        await outgoing.run()
    talking.cancel()


async def _talk(supervisor: Supervisor, channel: Channel, incoming: Incoming, outgoing: Outgoing) -> int:
    first = None
    with trio.move_on_after(FIRST_SECONDS) as waiting:
        first = await incoming.next()
    if waiting.cancelled_caught:
        raise ProtocolError(f"no request came within {FIRST_SECONDS} s")
    match first:
        case None:
            raise ProtocolError("pipe closed before spawn_request")
        case version_1_messages.SpawnRequest():
            from execsrv._runner.version_1 import serve_one  # a runner is of one version, and starts fast

            return await serve_one(supervisor, first, incoming, outgoing)
        case version_2_messages.Hello():
            from execsrv._runner.version_2 import serve_many

            await serve_many(supervisor, channel, incoming, outgoing)
            return 0
    expected = "spawn_request" if incoming.version == 1 else "hello"
    raise ProtocolError(f"expected {expected}, got {type(first).__name__}")


async def _complain(outgoing: Outgoing, error: ProtocolError) -> None:
    """Tell the other side why it is over, but do not wait long for it to listen."""
    is_version = isinstance(error, UnsupportedVersionError)
    code, versions = ("unsupported_version", [*VERSIONS]) if is_version else ("protocol", [])
    outgoing.tell(version_2_messages.Error(None, code, str(error), versions=versions))
    with trio.move_on_after(_LAST_WORD_SECONDS):
        await outgoing.wait_sent()
