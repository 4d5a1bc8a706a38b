"""Simulate large pools: `python -m tests.benchmarks.pools`, from the root of the repository.

The code of the pool is real, servers and time are simulated (`tests/simulated.py`). A million commands of a second on
average go to a thousand servers of 32 places. Printed are, for several loads, and with servers that die or are slow:
how evenly commands were spread, how much later results came than on an idle server, what became of the commands, and
what each took of this machine's processor.

`--servers 1000`, `--commands 1000000`, `--seed 1`. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from tests.simulated import simulate

CASES: dict[str, dict[str, Any]] = {
    "half full": {"load": 0.5},
    "nearly full": {"load": 0.95},
    "overfull": {"load": 1.5},
    "half full, 5 % of the servers die": {"load": 0.5, "dead": 0.05},
    "nearly full, 5 % die": {"load": 0.95, "dead": 0.05},
    "half full, 5 % are three times slower": {"load": 0.5, "slow": 0.05},
}


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--commands", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("| case | least, most of a server | most at a time | wait: median, 99 %, most | unknown | run twice | µs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        began = time.process_time()
        report = simulate(options.servers, options.commands, seed=options.seed, **case)
        cost = (time.process_time() - began) / options.commands * 1e6
        assert len(report.reported) == options.commands == report.reported.total(), "one is missing, or came twice"
        waits = ", ".join(f"{report.wait(part):.3f} s" for part in (0.5, 0.99, 1))
        most = max(server.most for server in report.servers)
        twice = sum(count > 1 for count in report.begun.values())
        shares = f"{report.shares[0]:.2f}, {report.shares[-1]:.2f}"
        print(f"| {name} | {shares} | {most} | {waits} | {report.unknown} | {twice} | {cost:.0f} |", flush=True)


if __name__ == "__main__":
    main()
