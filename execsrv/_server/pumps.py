"""The way of the output of one session: by what its streams are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execsrv._log.log import OutputLog
from execsrv._processes.own_streams import OwnStreams
from execsrv._server.ending import Ending
from execsrv._server.feed import Feed
from execsrv._server.pump import Pump

if TYPE_CHECKING:
    from execsrv._processes.contract import AnyLeader, Streams
    from execsrv._server.framed_pump import FramedPump
    from execsrv._server.onward_pump import OnwardPump


def pump_of(
    streams: Streams, leader: AnyLeader, log: OutputLog, feed: Feed, ending: Ending
) -> Pump | FramedPump | OnwardPump:
    """Return the pump of these streams; `close` must follow. Raises `SpawnError`."""
    if streams.arrivals is not None:
        from execsrv._server.framed_pump import FramedPump

        return FramedPump(streams.arrivals, log, feed, ending)
    if isinstance(streams, OwnStreams) and streams.onward:
        from execsrv._server.onward_pump import OnwardPump

        return OnwardPump(streams, leader, log)
    return Pump(streams.outputs, leader, log, feed, ending)
