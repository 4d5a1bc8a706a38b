"""`execsrv run --detach`: a command that is left running on a server, under a name by which others find it."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import count

import trio

from execsrv._cli.connection_name import connected_as, is_taken
from execsrv._cli.job import RunOptions
from execsrv._cli.manners import print_json, print_text
from execsrv._cli.reach import Reach
from execsrv._cli.register.common import DEFAULT_URL
from execsrv._cli.remote_start import reach_of, surroundings
from execsrv._cli.streams import say
from execsrv.client import Client
from execsrv.errors import ConnectionFailedError, ExecsrvError
from execsrv.protocol.sharing import MOST_NAME_CHARACTERS

_MOST_TRIES = 100
_END_SECONDS = 10.0
"""Time that there is for ending what was not left running after all."""

_NOT_OF_NAMES = re.compile(r"\A[^a-zA-Z]+|[^\w.-]+", re.A)


async def start_detached(options: RunOptions) -> None:
    """Start a command, leave it running, and print its name. Raises `ExecsrvError`."""
    url = options.url or DEFAULT_URL
    reach = reach_of(options, url)
    async with _connected(reach, options) as (name, client):
        try:
            async with client.start(
                options.argv,
                **surroundings(client, options),
                id=name,
                stdin=options.interactive,
                grace=options.grace,
                timeout=options.timeout,
                idle_timeout=options.idle_timeout,
            ) as process:
                process.leave_running()
                # In a thread: an interrupt that came just before the write would not be heard while nobody reads.
                if options.as_json:
                    facts = {"name": name, "connectionId": client.shared_id, "pid": process.pid}
                    printing = partial(print_json, facts)
                else:
                    printing = partial(print_text, f"{name}\n")
                await trio.to_thread.run_sync(printing, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
                if options.verbose:
                    say(f"execsrv: it runs at {url} as pid {process.pid}; `execsrv attach {name}` comes back to it")
        except BaseException:
            if client.shared_id is not None:
                await _end(reach, client.shared_id)
            raise


async def _end(reach: Reach, connection: str) -> None:
    """End a connection with what runs there, over another one: its own may be what has failed."""
    with trio.move_on_after(_END_SECONDS, shield=True), suppress(ExecsrvError):
        async with reach.connect() as client:
            await client.end_connection(connection)


@asynccontextmanager
async def _connected(reach: Reach, options: RunOptions) -> AsyncIterator[tuple[str, Client]]:
    """Connect under the name that was asked for, or one made of the program's, with a number where that is taken."""
    async with AsyncExitStack() as stack:
        for number in count(1):
            name = options.name or _name(options.argv[0], number)
            connection = connected_as(reach, name, keep="untilIdle", size_policy="latest")
            try:
                client = await stack.enter_async_context(connection)
            except ConnectionFailedError as error:
                if options.name is not None or not is_taken(error) or number == _MOST_TRIES:
                    raise
            else:
                yield name, client
                return


def _name(program: str, number: int) -> str:
    end = "" if number == 1 else f"-{number}"
    name = _NOT_OF_NAMES.sub("", os.path.basename(program))[: MOST_NAME_CHARACTERS - len(end)] or "run"
    return f"{name}{end}"
