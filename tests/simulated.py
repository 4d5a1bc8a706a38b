"""A pool of simulated servers: the code of the pool is real, connections and time are not.

A server runs a command for as long as that says, loses all that it runs when it dies, and is there again after a while,
with nothing of it. A command is `["job", NUMBER, SECONDS]`.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing

from execsrv import ConnectionFailedError, ConnectionLostError, Endpoint, Pool, Result, Unknown
from execsrv.pool.member import Line


class SimulatedServer:
    """One server. `slowness` is how many times longer a command takes there than elsewhere."""

    def __init__(self, url: str, slowness: float = 1) -> None:
        self.url = url
        self.slowness = slowness
        self.begun: Counter[str] = Counter()
        """How often each command was begun there."""
        self.most = 0
        """The most commands that it had at a time."""
        self.running = 0
        self._death: trio.Event | None = trio.Event()

    async def die(self, seconds: float) -> None:
        """Be gone, and be there again after so many seconds."""
        assert self._death is not None
        self._death.set()
        self._death = None
        await trio.sleep(seconds)
        self._death = trio.Event()

    def connect(self) -> SimulatedLine:
        if self._death is None:
            raise ConnectionFailedError(f"cannot connect to {self.url}: refused")
        return SimulatedLine(self, self._death)


class SimulatedLine:
    """A connection to a server, which is lost with it."""

    is_ending = False

    def __init__(self, server: SimulatedServer, death: trio.Event) -> None:
        self._server = server
        self._death = death

    async def run(self, argv: list[str], **options: Any) -> Result[bytes]:
        server, number, seconds = self._server, *argv[1:]
        if self._death.is_set():
            raise ConnectionLostError("the server is dead")
        server.begun[number] += 1
        server.running += 1
        server.most = max(server.most, server.running)
        try:
            with trio.move_on_after(float(seconds) * server.slowness):
                await self._death.wait()
                lost = ConnectionLostError("the server has died")
                lost.process = number
                raise lost
        finally:
            server.running -= 1
        return Result(argv=argv, exit_code=0, signal=None, reason="exited", stdout=b"", stderr=b"")

    async def ask(self) -> None:
        if self._death.is_set():
            raise ConnectionLostError("the server is dead")

    @property
    def is_lost(self) -> bool:
        return self._death.is_set()

    async def wait_lost(self) -> str:
        await self._death.wait()
        return "the server has died"

    async def wait_interrupted(self, wanted: bool) -> None:
        if wanted:
            await trio.sleep_forever()


class SimulatedPool(Pool):
    """A pool whose connections lead to simulated servers."""

    def __init__(self, servers: list[SimulatedServer], **options: Any) -> None:
        super().__init__([Endpoint(server.url) for server in servers], **options)
        self._by_url = {server.url: server for server in servers}

    @asynccontextmanager
    async def _dial(self, endpoint: Endpoint) -> AsyncIterator[Line]:
        await trio.sleep(0.005)
        yield self._by_url[endpoint.url].connect()


@dataclass
class Report:
    """What came of a simulation."""

    servers: list[SimulatedServer]
    commands: int
    seconds: float = 0
    """Of the simulated time."""
    waits: list[float] = field(default_factory=list)
    """For each result, how much later than it was asked for it was there, beyond what it takes on an idle server."""
    unknown: int = 0
    reported: Counter[str] = field(default_factory=Counter)
    """How often each command was reported."""

    @property
    def begun(self) -> Counter[str]:
        """How often each command was begun, on all servers together."""
        begun: Counter[str] = Counter()
        for server in self.servers:
            begun.update(server.begun)
        return begun

    @property
    def shares(self) -> list[float]:
        """The commands of each server, as a part of what each would have if all had the same, in order."""
        mean = sum(server.begun.total() for server in self.servers) / len(self.servers)
        return sorted(server.begun.total() / mean for server in self.servers)

    def wait(self, part: float) -> float:
        """Return the wait that this part of the results does not exceed."""
        waits = sorted(self.waits)
        return waits[min(len(waits) - 1, math.ceil(part * len(waits)))]


def simulate(
    servers: int, commands: int, *, load: float, dead: float = 0, slow: float = 0, per_server: int = 32, seed: int = 1
) -> Report:
    """Run commands of one second on average, at a `load` of the places that there are, and report.

    While they run, the `dead` part of the servers die, and come back after a minute; the `slow` part takes three times
    as long for everything.
    """
    random.seed(seed)
    made = [SimulatedServer(f"ws://{number}", 3 if number < slow * servers else 1) for number in range(servers)]
    report = Report(made, commands)

    def jobs() -> Iterator[list[str]]:
        for number in range(commands):
            yield ["job", str(number), f"{random.expovariate(1):.6f}"]

    async def main() -> None:
        limit = round(load * servers * per_server)
        length = commands / limit
        async with SimulatedPool(made, per_server=per_server) as pool, trio.open_nursery() as nursery:
            await trio.sleep(5)  # until all are connected
            for server in random.sample(made, round(dead * servers)):
                nursery.start_soon(_die, server, random.uniform(0.1, 0.9) * length)
            began = trio.current_time()
            async for outcome in pool.map(_timed(jobs()), limit=limit, return_errors=True):
                number, seconds = outcome.argv[1:]
                report.reported[number] += 1
                if isinstance(outcome, Unknown):
                    report.unknown += 1
                else:
                    asked = _asked.pop(number)
                    report.waits.append(trio.current_time() - asked - float(seconds))
            report.seconds = trio.current_time() - began
            nursery.cancel_scope.cancel()

    _asked: dict[str, float] = {}

    def _timed(commands: Iterator[list[str]]) -> Iterator[list[str]]:
        for command in commands:
            _asked[command[1]] = trio.current_time()
            yield command

    async def _die(server: SimulatedServer, after: float) -> None:
        await trio.sleep(after)
        await server.die(60)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return report
