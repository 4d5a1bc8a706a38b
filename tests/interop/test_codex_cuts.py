"""The line to the Codex CLI breaks while a command prints: the model is told all of it, in order, and how it ended.

The CLI reads what it missed with `process/read`, and gives a command up at any hole in the numbers, so that whatever it
tells the model is whole; of long output that is the beginning and the end.
"""

from __future__ import annotations

import re
import shlex
import sys
from functools import partial

import pytest
import trio

from tests.interop.codex import Scene
from tests.interop.record import Record
from tests.interop.test_codex import gate_at, start, until_ended, wait_for_end

CUT_SECONDS = 4

LINES = "import sys, time\nfor n in range({count}): print(f'line {{n}}', flush=True); time.sleep(0.0005)"
BYTES = "import sys\nfor n in range({count}): print(f'{{n:09}}')"

PRINTED = {
    "500 kB": BYTES.format(count=50_000),
    "700 kB": BYTES.format(count=70_000),
    "900 kB": BYTES.format(count=90_000),
    "3000 lines": LINES.format(count=3000),
    "20 MB": BYTES.format(count=2_000_000),
}


def command(code: str) -> str:
    """Return a command that says its pid, waits at the gate, prints, and ends with 5 behind what has to be told."""
    printing = shlex.join([sys.executable, "-c", code])
    return f"echo pid $$.; read line < gate; {printing}; echo the end; exit 5"


@pytest.mark.parametrize("tty", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize("what", PRINTED)
async def test_output_while_the_line_is_cut(scene: Scene, what: str, tty: bool) -> None:
    """It prints all and ends, or blocks as a pipe would, while nobody is there; then the CLI comes back."""
    with gate_at(scene.work / "gate") as gate:
        async with scene.codex() as model:
            number, told = await start(model, command(PRINTED[what]), tty=tty, max_output_tokens=100)
            [id] = await scene.record.until_started()
            await scene.record.until(lambda: re.search(rb"pid (\d+)\.", scene.record.output(id)))
            target, scene.relay.target = scene.relay.target, None
            scene.relay.cut()
            gate.open()
            found = re.search(rb"pid (\d+)\.", scene.record.output(id))
            assert found is not None
            with trio.move_on_after(CUT_SECONDS):  # it may well wait for somebody to read it
                await until_ended(int(found[1]))
            scene.relay.target = target
            while "exited with code" not in told and "failed" not in told:
                told += await wait_for_end(model, number)
    assert "exited with code 5" in told
    assert told.count("the end") == 1
    assert "failed" not in told


def heard_more(record: Record, id: str, count: int) -> bool:
    return len(record.output(id)) > count


async def test_a_command_that_prints_on_through_the_resume(scene: Scene) -> None:
    """Nothing of it is pushed on the new line before its first read is answered."""
    with gate_at(scene.work / "gate") as gate:
        async with scene.codex() as model:
            number, told = await start(model, command(LINES.format(count=8000)), max_output_tokens=100)
            [id] = await scene.record.until_started()
            await scene.record.until_output(id, b"pid")
            gate.open()
            for cut in range(1, 4):
                heard = len(scene.record.output(id))
                await scene.record.until(partial(heard_more, scene.record, id, heard))
                scene.relay.cut()
                await scene.record.until(partial(scene.record.answers, "process/read", connection=cut + 1))
            while "exited with code" not in told and "failed" not in told:
                told += await wait_for_end(model, number)
    assert "exited with code 5" in told
    assert told.count("the end") == 1
