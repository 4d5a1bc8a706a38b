"""Collecting the output of a process whose streams were passed: read from its pipes, to the end of both."""

from __future__ import annotations

from typing import Any

import trio

from execsrv._nursery import happened, open_helpers
from execsrv.client.inbox import Part
from execsrv.client.parameters import Data
from execsrv.client.result import Collected, Result, feed
from execsrv.protocol import Chunk


class PassedCollected(Collected):
    """The output so far, as `Collected` has it."""

    async def communicate(self, input: Data | None) -> Result[Any]:
        """Write the input, collect the output to its end and return the result. Cancelling leaves here what came."""
        async with open_helpers() as helpers:
            if input is not None:
                helpers.start_soon(feed, self._process, input)
            await self._collect()
        return self._result()

    async def run(self, input: Data | None, patience: float, grace: float, leave_timeout: float) -> Result[Any]:
        """Do so in that time. Raises `CommandTimeoutError` with the last words of a command that takes longer.

        The server ends what lives on after the leader, and the streams end with it.
        """
        with trio.CancelScope(deadline=trio.current_time() + patience):
            return await self.communicate(input)
        in_time = self._process.exit_code is not None
        self._may_cut = self._may_cut or not in_time  # that it took too long is the greater news
        with trio.move_on_after(grace + leave_timeout):
            await self._process.terminate(grace)
            await self._collect()
        if not in_time:
            raise self._late(patience)
        return self._result()

    async def _collect(self) -> None:
        """Read both streams to their end, and wait for the end of the process."""
        has_errors = trio.Event()

        async def collect_errors() -> None:
            await self._collect_one("stderr")
            has_errors.set()

        async with open_helpers() as helpers:
            helpers.start_soon(collect_errors)
            await self._collect_one("stdout")
            await happened(has_errors)
            await self._mirror.reader.wait_closed()

    async def _collect_one(self, part: Part) -> None:
        output = self._process.stdout if part == "stdout" else self._process.stderr
        while data := await output.receive_some():
            self._take(Chunk(0, part, data))
