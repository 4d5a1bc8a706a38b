"""Measure execsrv beside another server, and write docs/figures.md and its plots from what was measured.

    python -m tests.benchmarks.figures measure FOLDER "codex=codex exec-server --listen {listen}"
    python -m tests.benchmarks.figures write FOLDER

`measure` fills the folder with the JSON of bench.py: of two runs for the tables, and of one for the plots. It measures
the package of the current directory. `write` reads nothing but that folder, and replaces what is between the markers of
the page. tests/benchmarks/README.md tells how long it takes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from execsrv import __version__
from tests.benchmarks import bench, least, plain
from tests.benchmarks.page import FLOORS, MSGPACK, QUICKACK, RUNS, Document, page_part, plots

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


class Part(NamedTuple):
    """One call of bench.py: its words, and the servers it gets."""

    words: str
    servers: tuple[str, ...] = ("PEER=COMMAND",)


PACKED = f"{MSGPACK}={bench.MSGPACK}EXECSRV"
LEAST = f"{FLOORS['execsrv']}=LEAST", f"{FLOORS[MSGPACK]}={bench.MSGPACK}LEAST"
TABLES = {
    "latency": Part("--only start-up,spawn,in-flight,echo,idle,slow-reader,login-shells"),
    "quickack": Part(
        "--only spawn,in-flight,echo", (f"execsrv={bench.QUICKACK}EXECSRV", f"PEER={bench.QUICKACK}COMMAND")
    ),
    "throughput": Part("--only pipe,lines,terminal,stdin,50-way", ("PEER=COMMAND", PACKED, *LEAST)),
    "stdio": Part("--stdio --only spawn,echo,pipe,stdin,50-way", ("PEER=COMMAND", PACKED)),
}
PLOTS = {
    "sizes": Part("--only sizes --time-limit 180", ("PEER=COMMAND", PACKED)),
    "load": Part("--only load --time-limit 180", ("PEER=COMMAND", f"{QUICKACK}={bench.QUICKACK}COMMAND")),
}


def measure_tables(folder: Path, peer: str, rounds: int) -> None:
    for run in RUNS:
        save(folder / f"{run}-began.json", {"load": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d")})
        for name, part in TABLES.items():
            measure(folder / f"{run}-{name}.json", part, peer, rounds)
        save(folder / f"{run}-floors.json", plain.measured(plain.FLOORS, rounds))


def measure_plots(folder: Path, peer: str, rounds: int) -> None:
    for name, part in PLOTS.items():
        measure(folder / f"{name}.json", part, peer, rounds)
    save(folder / "sizes-floors.json", plain.measured(plain.SIZES, rounds))


def measure(path: Path, part: Part, peer: str, rounds: int) -> None:
    """Have bench.py measure one part, and say how long that took."""
    began = time.monotonic()
    name, command = bench.server_argument(peer)
    floor = shlex.join([sys.executable, least.__file__, "{listen}"])
    terms = {"PEER": name, "COMMAND": command, "EXECSRV": bench.serving(), "LEAST": floor}
    servers = [re.sub("|".join(terms), lambda found: terms[found[0]], server) for server in part.servers]
    words = [*shlex.split(part.words), "--rounds", str(rounds), "--json", str(path), *servers]
    argv = [sys.executable, bench.__file__, *words]
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"cannot measure {path.stem}: {done.stderr}")
    print(f"{path.stem}: {time.monotonic() - began:.0f} s", flush=True)


def versions(peer: str) -> Document:
    """The version of each server, by its name; of the peer the last word of what it says."""
    name, command = bench.server_argument(peer)
    said = subprocess.run([shlex.split(command)[0], "--version"], capture_output=True, text=True, check=True).stdout
    return {"execsrv": __version__, name: said.split()[-1]}


def save(path: Path, document: Document) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n")


def write(folder: Path, docs: Path = DOCS) -> None:
    """Replace what is between the markers of the page, and the plots."""
    measured = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    page = docs / "figures.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{page_part(measured, list(TABLES))}\n\n{END}{after}")
    for name, picture in plots(measured).items():
        (docs / name).write_text(picture)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.figures")
    what = parser.add_subparsers(dest="what", required=True)
    measuring = what.add_parser("measure", help="measure two runs for the tables and one for the plots")
    measuring.add_argument("folder", type=Path, help="gets the JSON of everything")
    measuring.add_argument("peer", metavar="NAME=COMMAND", help="the other server, as for bench.py")
    measuring.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    measuring.add_argument("--only", choices=("tables", "plots"), help="leave the other as it was measured before")
    writing = what.add_parser("write", help="write docs/figures.md and the plots")
    writing.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.what == "write":
        write(options.folder)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    save(options.folder / "versions.json", versions(options.peer))
    if options.only != "plots":
        measure_tables(options.folder, options.peer, options.rounds)
    if options.only != "tables":
        measure_plots(options.folder, options.peer, options.rounds)


if __name__ == "__main__":
    main()
