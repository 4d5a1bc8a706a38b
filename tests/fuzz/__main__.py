"""Fuzz the wire: `python -m tests.fuzz --minutes 10`, or replay what was found: `python -m tests.fuzz --replay FILE`.

Scripts of a seed are said to real daemons on every door, some at once, beside a neighbour whose answers have to be
exact. After each batch all has to be as it was before; `house.py` says what is allowed, `speaking.py` what is wrong.
What is found is said once more, alone, made as small as it goes, and written to a file in `--found`. Such a file can
be replayed, and belongs into `tests/fuzz/corpus` once it is mended.

Everything runs as a user of its own and in a network of its own, where that is allowed; elsewhere without HTTP.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.elsewhere import own_network
from tests.faults.daemon import kill
from tests.faults.soak import ALLOWED, judge
from tests.fuzz.house import COMMAND, House, first, open_house, restrict
from tests.fuzz.making import Maker
from tests.fuzz.record import pages
from tests.fuzz.scripts import DOORS, Door, Script, load
from tests.fuzz.shrinking import smaller
from tests.web import open_web

AT_ONCE = 6
BATCH = 40
MOST_FOUND = 8
SHRINK_SECONDS = 120.0
FOUND = "found"
UNREACHABLE = 77
"""The exit status where root finds no interpreter, or no checkout, that an ordinary user can read."""
_INSIDE = "--inside"


class Run:
    """One run of the fuzzer: where it works, and what it has found."""

    def __init__(self, folder: Path, web: str | None, command: Sequence[str]) -> None:
        self.folder = folder
        self.web = web
        self.command = command
        self.said = 0
        self._found = folder / FOUND
        self._complaints: list[str] = []

    @property
    def complaints(self) -> list[str]:
        """What was found, each in a few words."""
        return self._complaints

    @asynccontextmanager
    async def house(self, doors: Sequence[Door] = DOORS) -> AsyncIterator[House]:
        """Open fresh doors for the block."""
        async with open_house(self.folder, self.web, doors, self.command) as house:
            yield house

    async def batch(self, house: House, scripts: dict[str, Script]) -> tuple[str, dict[str, Script]] | None:
        """Say scripts, some at once. Return a complaint, and the scripts that may have given cause to it."""
        wrong: dict[str, str] = {}
        waiting = list(scripts.items())

        async def say_some() -> None:
            while waiting and not wrong:
                name, script = waiting.pop()
                try:
                    await house.say(script)
                except AssertionError as error:
                    wrong[name] = str(error)
                self.said += 1

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(say_some)
        try:
            await house.check()
        except AssertionError as error:
            return str(error), scripts
        house.tidy()
        for name, text in wrong.items():
            return text, {name: scripts[name]}
        return None

    async def is_bad(self, script: Script) -> str:
        """Say a script alone, in a house of its own; the complaint, or nothing."""
        doors = (script.door,) if script.door else DOORS
        try:
            async with self.house(doors) as house:
                found = await self.batch(house, {"alone": script})
                return found[0] if found else ""
        except BaseExceptionGroup as group:
            return _text_of(group)
        except AssertionError as error:
            return str(error)

    async def report(self, complaint: str, scripts: dict[str, Script]) -> None:
        """Find out which script it was, make it small, and write it down."""
        sign = _sign_of(complaint)
        print(f"found: {sign}", flush=True)
        is_known = _alike(sign) in map(_alike, self._complaints)
        self._complaints.append(sign)
        if is_known:
            return
        self._found.mkdir(exist_ok=True)
        for name, script in scripts.items():
            if not (alone := await self.is_bad(script)):
                continue
            small = await smaller(script, self.is_bad, SHRINK_SECONDS)
            path = self._found / f"{name}.jsonl"
            path.write_bytes(small.to_bytes())
            path.with_suffix(".txt").write_text(alone + "\n")
            print(f"  it is {name}, made small: {len(small.steps)} steps, {len(small.to_bytes())} bytes", flush=True)
            return
        name = f"batch-{next(iter(scripts))}"
        (self._found / f"{name}.txt").write_text(complaint + "\n")
        folder = self._found / name
        folder.mkdir(exist_ok=True)
        for name, script in scripts.items():
            (folder / f"{name}.jsonl").write_bytes(script.to_bytes())
        print(f"  none of {len(scripts)} does it alone: {folder.name}", flush=True)


def _sign_of(complaint: str) -> str:
    """Return the line of a complaint by which two of them are known to be about one fault."""
    lines = complaint.strip().splitlines() or ["nothing said"]
    return next((line for line in reversed(lines) if re.match(r"[ |]*[\w.]+(Error|Exception)\b", line)), lines[-1])[
        :200
    ]


def _alike(sign: str) -> str:
    """Return a sign without its numbers, which are those of one conversation."""
    return re.sub(r"\d+", "N", sign)


def _text_of(group: BaseExceptionGroup[BaseException]) -> str:
    error = first(group)
    if isinstance(error, AssertionError | trio.TooSlowError):
        return str(error) or type(error).__name__
    raise error


async def fuzz(run: Run, maker: Maker, start: int, count: float, deadline: float) -> None:
    """Say scripts of a seed until so many are said, or until that time."""
    number = start
    while number < start + count and time.monotonic() < deadline and len(run.complaints) < MOST_FOUND:
        found: tuple[str, dict[str, Script]] | None = None
        scripts: dict[str, Script] = {}
        began = time.monotonic()
        try:
            async with run.house() as house:
                while found is None and number < start + count and time.monotonic() < deadline:
                    size = int(min(BATCH, start + count - number))
                    scripts = {f"{maker.seed}-{each}": maker.make(each) for each in range(number, number + size)}
                    number += size
                    found = await run.batch(house, scripts)
                if found is None:
                    found = await _end(house, time.monotonic() - began)
        except BaseExceptionGroup as group:
            found = found or (_text_of(group), scripts)
        if found is not None:
            await run.report(*found)


async def _end(house: House, seconds: float) -> tuple[str, dict[str, Script]] | None:
    """See at the end of a long run that threads have ended, and that memory has come to a plateau."""
    for door, room in house.rooms.items():
        if not room.can_be_judged:
            continue
        try:
            await room.check_threads()
        except AssertionError as error:
            return str(error), {}
        verdict = judge(room.memory, ALLOWED.memory, seconds)
        floors = " ".join(f"{floor / 2**20:.0f}" for floor in verdict.floors)
        print(f"{door}: memory {verdict.per_minute / 2**20:+.2f} MiB a minute; floors {floors}", flush=True)
        if not verdict.is_plateau:
            return f"memory: no plateau: {floors} MiB", {}
    return None


async def replay(run: Run, scripts: dict[str, Script]) -> None:
    """Say scripts that were written down."""
    try:
        async with run.house() as house:
            names = list(scripts)
            for at in range(0, len(names), BATCH):
                some = {name: scripts[name] for name in names[at : at + BATCH]}
                if found := await run.batch(house, some):
                    run.complaints.append(found[0])
                    print(f"{', '.join(found[1])}: {found[0]}")
                    return
    except BaseExceptionGroup as group:
        run.complaints.append(_text_of(group))
        print(f"{', '.join(scripts)}: {_text_of(group)}")


async def main(options: argparse.Namespace, folder: Path) -> int:
    """Do what the options say; the exit status."""
    restrict()
    command = [sys.executable, "-m", *options.daemon.split()] if options.daemon else COMMAND
    began = time.monotonic()
    async with open_web() as web:
        pages(web)
        run = Run(folder, web.url if options.http else None, command)
        if options.replay:
            await replay(
                run, {name: script for path in options.replay for name, script in load(folder / path.name).items()}
            )
        else:
            deadline = began + 60 * options.minutes if options.minutes else float("inf")
            await fuzz(run, Maker(options.seed), options.start, options.count or float("inf"), deadline)
    seed = "" if options.replay else f" of seed {options.seed}"
    seconds = time.monotonic() - began
    print(f"{run.said} conversations{seed} in {seconds:.0f} s, {len(run.complaints)} found")
    return bool(run.complaints)


def inside(arguments: list[str]) -> int:
    """Run the fuzzer as a user of its own in a network of its own, as far as that is allowed; its exit status."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True)))
        argv = ["-m", "tests.fuzz", _INSIDE, str(folder), *arguments]
        options = parse(arguments)
        stack.callback(_keep, folder / FOUND, options.found)
        for path in options.replay or ():
            shutil.copytree(path, folder / path.name) if path.is_dir() else shutil.copy(path, folder / path.name)
        if os.geteuid():
            return subprocess.run([sys.executable, *argv], check=False).returncode
        user = 200_000 + os.getpid()
        os.chown(folder, user, user)
        become: dict[str, Any] = {"user": user, "group": user, "extra_groups": [], "env": _environment()}
        try:
            stack.enter_context(own_network())
            argv.append("--http")
        except OSError:
            pass  # without HTTP then
        try:
            return subprocess.run([_interpreter(become), *argv], check=False, **become).returncode
        finally:
            _end_all_of(user)


def _keep(source: Path, found: Path) -> None:
    """Keep what was found, which is in a folder that goes away."""
    if source.exists():
        shutil.copytree(source, found, dirs_exist_ok=True)
        print(f"written to {found}: {', '.join(sorted(os.listdir(source)))}")


def _environment() -> dict[str, str]:
    """Return an environment in which another interpreter of our version finds the packages that we do."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(os.path.isdir, sys.path)])}


def _interpreter(become: dict[str, Any]) -> str:
    """Return an interpreter of our version that another user can run, with what it needs."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            if subprocess.run([python, "-c", "import tests.fuzz.house"], check=False, **become).returncode == 0:
                return python
        except OSError:
            continue
    print("no ordinary user can run this checkout, and root is not to run commands that nobody has looked at")
    sys.exit(UNREACHABLE)


def _end_all_of(user: int) -> None:
    """End whatever a fuzzer that was stopped has left."""
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == user:
                kill(int(name))
        except OSError:
            continue  # it ended meanwhile


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        "tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, help="so long (default: 1, unless there is a --count)")
    parser.add_argument("--count", type=int, help="so many conversations")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--start", type=int, default=0, help="the first conversation of the seed")
    parser.add_argument("--replay", type=Path, nargs="+", help="files and folders of conversations")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="the folder for what is found")
    parser.add_argument("--daemon", help="the module of another execsrv, and its first words")
    parser.add_argument("--http", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(_INSIDE, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.randrange(10**6)
    if not options.minutes and not options.count:
        options.minutes = 1.0
    return options


if __name__ == "__main__":
    chosen = parse(sys.argv[1:])
    if chosen.inside is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of every `finally`
        sys.exit(inside(sys.argv[1:]))
    sys.exit(trio.run(main, chosen, chosen.inside))
