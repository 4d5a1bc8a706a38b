"""Things that a running server reads again when it is told to: its settings, its tokens, its certificates.

Whatever cannot be read again leaves the server with what it had, and a line in the log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from execsrv.errors import ExecsrvError
from execsrv.limits import ServerConfig

logger = logging.getLogger(__name__)

Reload = Callable[[], Awaitable[object]]
"""Reads one thing again, in a thread where that may take time. Raises `ExecsrvError`, `OSError` or `ValueError`.

It is cancelled where a disk does not answer: what a thread does that it leaves behind must change nothing.
"""

_PATIENCE_SECONDS = 10.0
"""The time that one thing may take: one that hangs must not keep a token that was revoked."""


class Reloads:
    """All that one server can read again, by name, in the order in which it was added."""

    def __init__(self) -> None:
        self._by_name: dict[str, Reload] = {}
        self._runs = self._again = False
        self.configure: Callable[[ServerConfig], None] = lambda config: None
        """Takes settings for the connections that come from now on. The server sets it, once it listens."""

    def __repr__(self) -> str:
        return f"<Reloads {', '.join(self._by_name) or 'nothing'}>"

    def add(self, name: str, reload: Reload) -> None:
        """Call `reload` from now on, whenever the server is told to read things again. The log calls it by `name`."""
        self._by_name[name] = reload

    async def run(self) -> None:
        """Read everything again, one thing after the other. Nothing that goes wrong is raised.

        While that is done already, it is done once more behind it, and this returns.
        """
        self._again = True
        if self._runs:
            return
        self._runs = True
        try:
            while self._again:
                self._again = False
                await self._run()
        finally:
            self._runs = False

    async def _run(self) -> None:
        if not self._by_name:
            logger.warning("there is nothing to reload")
        for name, reload in list(self._by_name.items()):
            try:
                with trio.fail_after(_PATIENCE_SECONDS):
                    await reload()
            except trio.TooSlowError:
                late = "cannot reload %s, so nothing of it has changed: it is not read within %g s"
                logger.error(late, name, _PATIENCE_SECONDS)
            except (ExecsrvError, OSError, ValueError) as error:
                logger.error("cannot reload %s, so nothing of it has changed: %s", name, error)
            except Exception:
                logger.exception("cannot reload %s, so nothing of it has changed", name)
            else:
                logger.info("reloaded %s", name)
