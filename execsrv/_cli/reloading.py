"""SIGHUP: the settings of a running daemon are read again, and what of them cannot change is told."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import trio

from execsrv._cli.config import Loaded
from execsrv._cli.daemon_log import set_level
from execsrv._cli.settings import SETTINGS
from execsrv._doors.reloads import Reload, Reloads

logger = logging.getLogger(__name__)


def has_terminal() -> bool:
    """Return True where this process was started on a terminal: there, SIGHUP says that the terminal is gone."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def reload_of_settings(running: Loaded, read: Callable[[], Loaded], reloads: Reloads) -> Reload:
    """Return what reads the settings again, and has connections that come from then on served by them."""

    async def reload() -> None:
        nonlocal running
        read_now = await trio.to_thread.run_sync(read, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
        kept: dict[str, Any] = {}
        for name, (old, new) in _changes(running, read_now):
            setting = SETTINGS[name]
            words = setting.show(old), setting.show(new)
            if setting.needs_restart:
                logger.warning("%s stays %s: to make it %s, start the server again", name, *words)
                kept[name] = old
            else:
                logger.info("%s was %s, and is %s for connections that come from now on", name, *words)
                if name == "log_level":
                    set_level(new)
        kept.pop("listen", None)
        config = replace(read_now.config, **kept)
        reloads.configure(config)
        running = Loaded(running.listen, config, read_now.sources)

    return reload


def _changes(before: Loaded, after: Loaded) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield each setting that has changed, with both values."""
    if before.listen != after.listen:
        yield "listen", (before.listen, after.listen)
    for name in SETTINGS.keys() - {"listen"}:
        values = getattr(before.config, name), getattr(after.config, name)
        if values[0] != values[1]:
            yield name, values
