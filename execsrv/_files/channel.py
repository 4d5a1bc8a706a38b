"""The file methods of one channel, loaded when it calls the first of them: most servers start commands and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from execsrv._files import AnswersLeft, Tell
from execsrv._nursery import open_helpers
from execsrv.limits import ServerConfig

if TYPE_CHECKING:
    from execsrv._files.files import Files


def file_capabilities(config: ServerConfig) -> dict[str, bool]:
    """What a client may be told it can do, under the names of the Codex exec-server."""
    return {"fsWatchMissing": True, "fileWriteStreaming": True} if config.allow_files else {}


@asynccontextmanager
async def open_files(config: ServerConfig, tell: Tell, answers_left: AnswersLeft) -> AsyncIterator[Callable[[], Files]]:
    """What gives the file methods of one channel; leaving closes its files and ends its watch.

    What is large is read only when the `answers_left`, so that a slow peer cannot make it pile up here.
    """
    files: Files | None = None

    def get_files() -> Files:
        nonlocal files
        if files is None:
            from execsrv._files.files import Files

            files = Files(config, nursery, tell, answers_left)
        return files

    async with open_helpers() as nursery:
        try:
            yield get_files
        finally:
            if files is not None:
                await files.aclose()
