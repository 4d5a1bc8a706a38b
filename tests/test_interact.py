"""A script that connects its own terminal with a process: driven here on a terminal of ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import trio
import trio.testing

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


@contextmanager
def closing(*descriptors: int) -> Iterator[None]:
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def test_the_escape_is_heard_while_the_process_reads_nothing() -> None:
    (keys, typed), output = os.pipe(), os.open(os.devnull, os.O_WRONLY)
    with closing(keys, output):
        async with (
            trio.lowlevel.FdStream(typed) as stream,
            execsrv.connect_in_process() as client,
            client.start(["sleep", "1000"], tty=True) as process,
            trio.open_nursery() as nursery,
        ):

            @nursery.start_soon
            async def type_keys() -> None:
                await stream.send_all(b"a line of a long paste\n" * 20_000)  # much more than pipe and terminal hold
                await stream.send_all(b"\x1d")

            with trio.fail_after(PATIENCE):
                await process.interact(stdin=keys, stdout=output)
            assert process.exit_code is None


async def test_a_file_is_taken_for_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"from a file\n")
    keys = os.open(tmp_path / "keys", os.O_RDONLY)
    output = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)
    with closing(keys, output):
        async with execsrv.connect_in_process() as client, client.start(["cat"], stdin=True) as process:
            with trio.fail_after(PATIENCE):
                await process.interact(stdin=keys, stdout=output)
    assert (tmp_path / "output").read_bytes() == b"from a file\n"


async def test_output_that_a_terminal_has_no_room_for_waits() -> None:
    (reading, writing), keys = os.pipe(), os.open(os.devnull, os.O_RDONLY)
    os.set_blocking(writing, False)
    shown = b""
    with closing(keys):
        async with (
            trio.lowlevel.FdStream(reading) as stream,
            execsrv.connect_in_process() as client,
            client.start(["seq", "20000"]) as process,  # more than the pipe holds; and it has no input
            trio.open_nursery() as nursery,
        ):

            @nursery.start_soon
            async def show() -> None:
                with closing(writing):
                    await process.interact(stdin=keys, stdout=writing)

            with trio.fail_after(PATIENCE):
                await trio.testing.wait_all_tasks_blocked(0.1)  # the pipe is full
                async for data in stream:
                    shown += data
    assert shown == b"".join(b"%d\n" % number for number in range(1, 20001))


@pytest.mark.parametrize("error", [None, ValueError("of the filter")], ids=["end", "error"])
async def test_a_terminal_that_is_hung_up_is_the_end_of_the_input(error: Exception | None) -> None:
    def hang_up(data: bytes) -> bytes:
        os.close(master)
        if error is not None:
            raise error
        return b""

    (master, terminal), output = os.openpty(), os.open(os.devnull, os.O_WRONLY)
    with closing(terminal, output):
        async with (
            execsrv.connect_in_process() as client,
            client.start(["sh", "-c", "printf .; cat"], tty=True) as process,
        ):
            failing = nullcontext() if error is None else pytest.raises(ValueError, match="of the filter")
            with trio.fail_after(PATIENCE), failing:
                await process.interact(output_filter=hang_up, stdin=terminal, stdout=output)
            assert (process.exit_code is None) == (error is not None)


async def test_only_a_descriptor_is_taken() -> None:
    async with execsrv.connect_in_process() as client, client.start(["cat"], stdin=True) as process:
        with pytest.raises(execsrv.InvalidParamsError, match="stdin must be a descriptor"):
            await process.interact(stdin="tty")  # type: ignore[arg-type]
