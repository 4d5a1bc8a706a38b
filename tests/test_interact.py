"""A script that connects its own terminal with a process: driven here on a terminal of ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

import execsrv
from tests.peers import PATIENCE

SCRIPT = """
import execsrv, trio

async def main():
    async with execsrv.connect_in_process() as client:
        command = "stty size; while read x; do stty size; echo got $x; done"
        async with client.start(["sh", "-c", command], tty=True) as p:
            await p.expect_exact("\\n")
            await p.interact(%s)
            print("left", p.exit_code, end="\\r\\n", flush=True)
            await p.sendline("after")
            await p.expect_exact("got after")
            print("talked", end="\\r\\n", flush=True)

trio.run(main)
"""


async def test_keys_output_and_sizes_pass_until_the_escape(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT % "output_filter=bytes.upper")
    async with execsrv.connect_in_process() as client:
        argv = [sys.executable, str(script)]
        async with client.start(argv, tty=True, size=(30, 100), cwd=Path.cwd(), text=True) as process:
            with trio.fail_after(PATIENCE):
                await process.wait_for(no_echo=True)  # it is raw
                await process.sendline("one")
                await process.expect("30 100\r\nGOT ONE")
                await process.resize(40, 120)
                for _ in range(1000):
                    await process.sendline("two")
                    await process.expect(r"(\d+ \d+)\r\nGOT TWO")
                    if process.match[1] == "40 120":
                        break
                await process.send("\x1d")
                await process.expect_exact("left None")
                await process.expect_exact("talked")
                assert (await process.wait()).exit_code == 0


async def test_the_end_of_the_process_is_the_end(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    code = (
        "import execsrv, trio\nasync def main():\n    async with execsrv.connect_in_process() as client, client.start("
    )
    code += '["cat"], stdin=True) as p:\n        await p.interact(None, input_filter=bytes.upper)\ntrio.run(main)\n'
    script.write_text(code)
    async with execsrv.connect_in_process() as client:
        result = await client.run([sys.executable, script], input=b"keys\x1d\n", timeout=PATIENCE, cwd=Path.cwd())
        assert (result.stdout, result.stderr, result.exit_code) == (b"KEYS\x1d\n", b"", 0)


async def test_only_a_descriptor_is_taken() -> None:
    async with execsrv.connect_in_process() as client, client.start(["cat"], stdin=True) as process:
        with pytest.raises(execsrv.InvalidParamsError, match="stdin must be a descriptor"):
            await process.interact(stdin="tty")  # type: ignore[arg-type]
