"""What must not grow unnoticed, counted where a time would say nothing: modules that are loaded, calls that are made,
tasks that are woken.

The ceilings are a little above what is needed now. Who has a reason to need more raises them, and says it.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

import execsrv
from execsrv import protocol
from execsrv._processes.supervisor import open_supervisor
from execsrv._server.serving import serve_descriptors
from execsrv.protocol import Size
from tests.peers import PATIENCE

PACKAGE = Path(execsrv.__file__).parent

FIRST_COMMANDS = {
    "serve": (["serve", "--quiet"], 178),
    "run": (["run", "--", "true"], 78),
}
"""Words of a command line, and how many modules of ours it may load. `serve` speaks with one client, on stdio."""

HELLO = b"""{"id":1,"method":"initialize","params":{"clientName":"t"}}
{"method":"initialized"}
{"id":2,"method":"process/start","params":{"processId":"p","argv":["/bin/true"],"cwd":"/","env":{},"tty":false}}
{"id":3,"method":"process/wait","params":{"processId":"p"}}
"""


TELLING = """
import atexit, os, runpy, sys
atexit.register(lambda: os.write(2, "\\n".join(sys.modules).encode()))
runpy.run_module("execsrv", run_name="__main__", alter_sys=True)
"""


def modules_of(words: list[str], said: bytes) -> list[str]:
    """Return the modules that a command line has loaded when it ends."""
    argv = [sys.executable, "-c", TELLING, *words]
    done = subprocess.run(argv, input=said, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert b'"error"' not in done.stdout
    return done.stderr.decode().splitlines()


@pytest.mark.parametrize("command", FIRST_COMMANDS)
def test_a_first_command_loads_little(command: str) -> None:
    words, most = FIRST_COMMANDS[command]
    ours = [name for name in modules_of(words, HELLO) if name.partition(".")[0] == "execsrv"]
    late = {"protocol.files", "protocol.file_extras", "protocol.http", "protocol.ceilings"}
    late |= {"_files.files", "_http.relay", "_server.methods.files", "_server.methods.sharing", "record", "agents"}
    assert not {name for name in ours if name.removeprefix("execsrv.") in late}
    assert len(ours) <= most


LISTENING = """
import sys
before = {"importlib.metadata"} & set(sys.modules)
import execsrv._wire.websocket
loaded = {"importlib.metadata", "email", "zipfile", "csv"} & set(sys.modules)
assert not before and not loaded, (before, loaded)

from importlib.metadata import version, PackageNotFoundError
import importlib.metadata, importlib.metadata._meta
assert "email" in sys.modules and importlib.metadata is sys.modules["importlib.metadata"]
import trio
assert version("trio") == trio.__version__
"""

WHILE_LOADING = """
import sys
import trio

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "trio_websocket":  # as another thread may, meanwhile
            import importlib.metadata
            from importlib.metadata import entry_points, version
            kept.append((importlib.metadata, version, entry_points))

kept = []
sys.meta_path.insert(0, Watch())
import execsrv._wire.websocket
import importlib.metadata
[(module, version, entry_points)] = kept
assert version("msgspec") == importlib.metadata.version("msgspec")
assert module.Distribution is importlib.metadata.Distribution
assert entry_points is importlib.metadata.entry_points
try:
    version("no such package")
except importlib.metadata.PackageNotFoundError:
    pass
"""


@pytest.mark.parametrize("program", [LISTENING, WHILE_LOADING], ids=["alone", "beside another"])
def test_a_websocket_loads_no_metadata_of_packages_and_nobody_misses_it(program: str) -> None:
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_loaded_late_is_where_it_is_said_to_be() -> None:
    tree = ast.parse(Path(protocol.__file__).read_text())
    checked = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "importlib"
        for alias in node.names
    }
    assert checked == {(f"execsrv.protocol.{module}", name) for name, module in protocol._HOMES.items()}  # type: ignore[attr-defined]
    assert all(getattr(protocol, name) is not None for name in protocol.__all__)  # type: ignore[attr-defined]
    assert protocol.Size is Size
    with pytest.raises(AttributeError, match=r"^module 'execsrv.protocol' has no attribute 'Sizes'$"):
        protocol.Sizes  # type: ignore[attr-defined]  # noqa: B018


OF_TESTS = {"random", "pytest_trio.plugin"}
"""Modules that are called in tests alone: tasks are put into an order that hypothesis knows, one by one."""


async def calls_of(do: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Count the calls of Python functions in this thread, by module. What is not to be counted is done once before."""
    await do()
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and (module := frame.f_globals.get("__name__", "")) not in OF_TESTS:
            calls[module] += 1

    sys.setprofile(note)
    try:
        await do()
    finally:
        sys.setprofile(None)
    return calls


async def costs_at_most(do: Callable[[], Awaitable[object]], most: int) -> bool:
    """Tell whether it takes no more calls than that, once: what others make this wait for is no call of ours."""
    with trio.move_on_after(PATIENCE):
        while (await calls_of(do)).total() > most:
            pass
        return True
    return False


async def test_a_command_costs_few_calls() -> None:
    async with execsrv.connect_in_process(own_process=True) as client:
        # A start that takes longer than the loop waits for it costs some 80 more.
        assert await costs_at_most(lambda: client.run(["true"]), 750)


class Steps(trio.abc.Instrument):
    """Counts how often a task other than this one gets its turn."""

    def __init__(self) -> None:
        self.count = 0
        self._ours = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is not self._ours


async def takes_few_steps(do: Callable[[], Awaitable[object]], most: int) -> bool:
    """Tell whether other tasks have no more turns than that, once: on a machine with no time for a start they do."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        with trio.move_on_after(PATIENCE):
            while True:
                before = steps.count
                await do()
                if steps.count - before <= most:
                    return True
    finally:
        trio.lowlevel.remove_instrument(steps)
    return False


async def test_a_command_wakes_few_tasks() -> None:
    """Its request is read, and its session begins, hears of the end, and is over."""
    async with execsrv.connect_in_process(own_process=True) as client:
        assert await takes_few_steps(lambda: client.run(["true"]), 4)


async def test_a_command_over_pipes_wakes_few_tasks() -> None:
    """As few: its answer and its ends are told by whoever makes them."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    numbers = count(1)
    async with (
        open_supervisor(own_process=True) as supervisor,
        trio.open_nursery() as nursery,
        trio.lowlevel.FdStream(ours_in) as answers,
    ):
        nursery.start_soon(serve_descriptors, supervisor, theirs_in, theirs_out)

        async def run() -> None:
            line = f'{{"id":2,"method":"process/start","params":{{"processId":"{next(numbers)}","argv":["/bin/true"],'
            os.write(ours_out, line.encode() + b'"cwd":"/","env":{},"tty":false}}\n')
            while b"process/closed" not in await answers.receive_some():
                pass

        os.write(ours_out, b"".join(HELLO.splitlines(keepends=True)[:3]))
        while b"process/closed" not in await answers.receive_some():
            pass
        assert await takes_few_steps(run, 4)
        os.close(ours_out)
    os.close(theirs_in)
    os.close(theirs_out)


async def test_output_costs_few_calls() -> None:
    """A mebibyte, read as it comes."""
    size = 8 * 2**20

    async def read() -> None:
        async with client.start(["head", "-c", str(size), "/dev/zero"]) as process:
            got = 0
            while data := await process.stdout.receive_some():
                got += len(data)
        assert got == size

    async with execsrv.connect_in_process(own_process=True) as client:
        assert await costs_at_most(read, 8 * 3500)
