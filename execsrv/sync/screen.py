# Written by tests/facades.py from execsrv.client.screen: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client in plain code. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from collections.abc import Callable

from execsrv._portal.blocking import Held
from execsrv.client.screen import Screen
from execsrv.client.screen import WatchedScreen as TrioWatchedScreen


class WatchedScreen(Held, of=TrioWatchedScreen):
    """A screen that is kept up to date. Made by `Process.watch_screen`."""

    @property
    def now(self) -> Screen:
        """The screen as far as it is drawn."""
        return self._get("now")

    def wait_for(self, wanted: str | Callable[[Screen], bool], *, timeout: float | None = None) -> Screen:
        """Wait until that text is on it, or until a function of the screen is true of it, and return the screen.

        Raises `WaitTimeoutError` after `timeout` seconds, with the screen in its text, `EOFError` at the end of all,
        and `trio.ClosedResourceError` after its block. An interrupt loses nothing.
        """
        return self._take("wait_for", wanted, timeout=timeout)

    def keep(self, answers: bool) -> None:
        """Draw what comes, until the end."""
        return self._wait("keep", answers)
