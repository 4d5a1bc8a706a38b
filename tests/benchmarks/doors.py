"""What each way to let somebody in costs: a connection, and a MiB of output.

$ python tests/benchmarks/doors.py

Each door is a server of its own; they take turns. Time is the client's, from `connect` until `initialize` is answered.
Processor time is the server's alone, all its threads. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import trio

import execsrv
from execsrv import ClientConfig

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.certificates import Authority

MIB = 1024 * 1024


class Door:
    """A server, and how a client comes in there."""

    def __init__(self, name: str, listen: str, options: list[str], config: ClientConfig, token: str | None) -> None:
        self.name, self.config, self.token = name, config, token
        self.process = subprocess.Popen(
            [sys.executable, "-m", "execsrv", "serve", "--listen", listen, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.connects: list[float] = []
        self.connect_cpus: list[float] = []
        self.mib_cpus: list[float] = []
        self.rates: list[float] = []

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    async def round(self, connections: int, mib: int) -> None:
        """Connect so often, and then have so much printed."""
        before = self.cpu()
        times = []
        for _ in range(connections):
            begun = time.perf_counter()
            async with execsrv.connect(self.url, token=self.token, config=self.config):
                times.append(time.perf_counter() - begun)
        self.connects.append(statistics.median(times))
        self.connect_cpus.append((self.cpu() - before) / connections)
        async with execsrv.connect(self.url, token=self.token, config=self.config) as client:
            await client.run(["true"])
            before, begun = self.cpu(), time.perf_counter()
            argv = ["head", "-c", f"{mib * MIB}", "/dev/zero"]
            async with client.start(argv, stdout=execsrv.PIPE) as process:
                async for _ in process.stdout:
                    pass
            self.rates.append(mib / (time.perf_counter() - begun))
            self.mib_cpus.append((self.cpu() - before) / mib)


def doors(folder: Path) -> list[Door]:
    authority = Authority(folder)
    token = subprocess.run(
        [sys.executable, "-m", "execsrv", "token", "new", "--file", f"{folder}/tokens", "bench"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    tokens = ["--token-file", f"{folder}/tokens"]
    tls = ["--tls-certificate-file", authority.server()]
    trusting = ClientConfig(tls_ca_file=authority.file)
    certified = ClientConfig(tls_ca_file=authority.file, tls_certificate_file=authority.client("bench"))
    plain, ws, wss = ClientConfig(), "ws://127.0.0.1:0", "wss://127.0.0.1:0"
    return [
        Door("unix, same user", f"unix://{folder}/socket", [], plain, None),
        Door("ws, same user", ws, [], plain, None),
        Door("ws, token", ws, tokens, plain, token),
        Door("ws, same user, metrics", ws, ["--metrics-listen", "http://127.0.0.1:0"], plain, None),
        Door("wss, same user", wss, tls, trusting, None),
        Door("wss, certificate", wss, [*tls, "--tls-client-ca-file", authority.file], certified, None),
    ]


async def measure(each: list[Door], rounds: int, connections: int, mib: int) -> None:
    for number in range(rounds):
        for door in each[:: -1 if number % 2 else 1]:
            await door.round(connections, mib)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=50, help="a round")
    parser.add_argument("--mib", type=int, default=128, help="a round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        each = [stack.enter_context(door) for door in doors(Path(folder))]
        trio.run(measure, each, arguments.rounds, arguments.connections, arguments.mib)
        print(f"{'':26}{'connect ms':>12}{'server cpu ms':>15}{'MiB/s':>9}{'server cpu ms/MiB':>19}")
        for door in each:
            wall, cpu, rate, mib = map(statistics.median, (door.connects, door.connect_cpus, door.rates, door.mib_cpus))
            print(f"{door.name:26}{1000 * wall:12.2f}{1000 * cpu:15.2f}{rate:9.0f}{1000 * mib:19.2f}")


if __name__ == "__main__":
    main()
