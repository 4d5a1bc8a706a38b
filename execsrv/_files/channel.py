"""Entrance to the file methods of one channel. They are loaded at the first call: most servers only start commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from execsrv._budget.allowance import Allowance
from execsrv._files import AnswersLeft, Tell
from execsrv._nursery import open_helpers
from execsrv.limits import ServerConfig

if TYPE_CHECKING:
    from execsrv._files.files import Files
    from execsrv._files.threads import RulesOf


def file_capabilities(config: ServerConfig) -> dict[str, bool]:
    """Return the capabilities that a client is told of, by the names that the Codex exec-server has for them."""
    return {"fsWatchMissing": True, "fileWriteStreaming": True} if config.allow_files else {}


@asynccontextmanager
async def open_files(
    config: ServerConfig,
    allowance: Callable[[], Allowance],
    tell: Tell,
    answers_left: AnswersLeft,
    rules_of: RulesOf,
) -> AsyncIterator[tuple[Callable[[], Files], Callable[[], bool]]]:
    """Open the file side of a channel, and give functions that return its file methods, and whether it has a watch.

    `allowance` is the peer's. Leaving closes its files and ends its watch. A large answer is made only after
    `answers_left`, so that large answers cannot pile up for a slow peer. `rules_of` finds the rules for a call with a
    policy.
    """
    files: Files | None = None

    def get_files() -> Files:
        nonlocal files
        if files is None:
            from execsrv._files.files import Files

            files = Files(config, nursery, tell, answers_left, allowance(), rules_of)
        return files

    async with open_helpers() as nursery:
        try:
            yield get_files, lambda: bool(nursery.child_tasks)
        finally:
            if files is not None:
                await files.aclose()
