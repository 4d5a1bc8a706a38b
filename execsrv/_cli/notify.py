"""What the service manager is told, as sd_notify(3) has it: that we are ready, reload, end, and are alive.

The loop itself says that it is alive. So a server that stands still is found out by a manager with a watchdog.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import trio

_STATUS_SECONDS = 10.0
_RELOADING = "reading settings again"


class Manager:
    """The service manager, where there is one. Whatever is told to it waits for nobody."""

    def __init__(self) -> None:
        """Take the variables that tell of it out of the environment: commands are not to speak for us."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        self._socket: socket.socket | None = None
        if address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._address = "\0" + address[1:] if address[0] == "@" else address
        self._watchdog = int(usec) / 1e6 if usec.isdecimal() and pid in ("", str(os.getpid())) else 0.0
        self._what = "starting"
        self._said = ""

    def tell(self, what: str, *facts: str) -> None:
        """Tell `what` as the status, and facts such as `READY=1`."""
        self._what = what
        self._said = ""
        self._send(*facts, f"STATUS={what}")

    def ready(self, what: str) -> None:
        """Tell that we serve."""
        self.tell(what, "READY=1")

    def reloading(self) -> str:
        """Tell that we read things again. Return what the status was, for `reloaded`."""
        before, now = self._what, time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.tell(_RELOADING, "RELOADING=1", f"MONOTONIC_USEC={now}")
        return before

    def reloaded(self, before: str) -> None:
        """Tell that we have read them, unless something else has become of us meanwhile."""
        if self._what == _RELOADING and before != _RELOADING:
            self.ready(before)

    def ending(self) -> None:
        """Tell that we end."""
        self.tell("ending", "STOPPING=1")

    async def keep_told(self, running: Callable[[], int]) -> None:
        """Tell that we are alive, in half the time of the watchdog, and how many commands run."""
        if self._socket is None:
            return
        pause = min(self._watchdog / 2, _STATUS_SECONDS) if self._watchdog else _STATUS_SECONDS
        while True:
            facts = ["WATCHDOG=1"] if self._watchdog else []
            if (status := f"STATUS={self._what}; {running()} commands run") != self._said:
                self._said = status
                facts.append(status)
            self._send(*facts)
            await trio.sleep(pause)

    def _send(self, *facts: str) -> None:
        if self._socket is None or not facts:
            return
        try:
            self._socket.sendto("\n".join(facts).encode(errors="backslashreplace"), self._address)
        except OSError:
            pass  # it has no room, or is gone: the next one may arrive
