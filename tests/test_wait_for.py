"""`Process.wait_for`: the first of several things, beside whoever reads, and errors that tell why nothing came."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import execsrv
from execsrv import ClientConfig, InvalidParamsError, ProcessEndedError, WaitTimeoutError
from execsrv.limits import ServerConfig
from tests.conftest import OpenServer, Server
from tests.peers import PATIENCE
from tests.relay import open_line

SERVE = """
import socket, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
sys.stdout.write(f"listening on {listener.getsockname()[1]}\\n")
sys.stdout.flush()
sys.stdin.read()
"""


async def test_output_then_its_port(server: Server) -> None:
    client = await server.client()
    async with client.start([sys.executable, "-c", SERVE], stdin=True) as process:
        with trio.fail_after(PATIENCE):
            said = await process.wait_for(output=rb"listening on (\d+)\n")
            assert (said.kind, said.index, said.stream, said.missed) == ("output", 0, "stdout", False)
            port = int(said.match[1])
            assert (await process.wait_for(port=port, timeout=PATIENCE)).kind == "port"
            assert (await process.wait_for(port=port, host="127.0.0.1", output=b"never")).kind == "port"
            assert await anext(process.output) == b"listening on %d\n" % port  # nothing was taken


@pytest.mark.parametrize("pattern", [b"two", "two", rb"t.o", "[tö]wo", re.compile(b"TWO", re.IGNORECASE), r"\btwo\b"])
async def test_a_place_to_go_on_from(server: Server, pattern: Any) -> None:
    client = await server.client()
    async with client.start(["sh", "-c", "printf 'one two thr\u00e9\u00e9 two.'; exec sleep 1000"]) as process:
        with trio.fail_after(PATIENCE):
            first = await process.wait_for(output=pattern)
            assert (first.match[0], first.seq, first.offset) == (first.match.string[first.match.start() :][:3], 1, 7)
            again = await process.wait_for(output=[b"never", pattern])
            assert (again.index, again.offset) == (1, 7)
            second = await process.wait_for(output=pattern, after=first)
            assert (second.seq, second.offset) == (1, len("one two thréé two".encode()))
            with pytest.raises(WaitTimeoutError):
                await process.wait_for(output=pattern, after=second, timeout=0.1)


async def test_a_place_is_where_the_match_ends_though_it_looks_ahead(server: Server) -> None:
    client = await server.client()
    script = "for part in foo b ar; do printf $part; read x; done"
    async with client.start(["sh", "-c", script], stdin=True) as process:
        with trio.fail_after(PATIENCE):
            for part in (b"foo", b"b"):
                await process.wait_for(output=part)
                await process.sendline()
            found = await process.wait_for(output="foo(?=bar)")
            assert (found.match[0], found.seq, found.offset) == ("foo", 1, 3)
            for pattern in ("bar", "b[a]r"):
                assert (await process.wait_for(output=pattern, after=found)).offset == 2


async def test_a_match_grows_as_long_as_output_comes(server: Server) -> None:
    client = await server.client()
    script = "printf 'port 80'; read x; printf '80.'; exec sleep 1000"
    async with client.start(["sh", "-c", script], stdin=True) as process, trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE):
            assert (await process.wait_for(output=rb"port (\d+)")).match[1] == b"80"  # it is silent then
            nursery.start_soon(process.write, b"\n")
            assert (await process.wait_for(output=rb"port (\d+)\.")).match[1] == b"8080"


async def test_text_in_which_a_line_ends_with_two_bytes(server: Server) -> None:
    client = await server.client()
    async with client.start(["cat"], stdin=True, encoding="utf-16-le") as process:
        with trio.fail_after(PATIENCE):
            said = "\U0001f600 port 8\u20ac".encode("utf-16-le")
            for byte in said:  # a chunk each, however they arrive
                await process.write(bytes([byte]))
            found = await process.wait_for(output=r"port (\d).")
            assert (found.match[0], found.match[1], found.stream) == ("port 8\u20ac", "8", "stdout")
            await process.sendline("ready")
            ready = await process.wait_for(output="ready\n", after=found)
            assert ready.match[0] == "ready\n"
            await process.write("d".encode("utf-16-le") * 10_000 + b"\0\xdc" + "1".encode("utf-16-le"))
            assert (await process.wait_for(output=r"\d", after=ready)).match[0] == "1"
            assert await process.expect("ready\n") == 0
            assert process.before == said.decode("utf-16-le")


async def test_silence_exit_and_an_empty_tree(server: Server) -> None:
    client = await server.client()
    async with client.start(["sh", "-c", "echo begun; read x; exit 3"], stdin=True) as process:
        with trio.fail_after(PATIENCE):
            assert (await process.wait_for(idle=0.1)).kind == "idle"
            assert (await process.wait_for(output=b"begun", exit=True)).kind == "output"
            await process.close_stdin()
            assert (await process.wait_for(exit=True)).kind == "exit"
            assert (await process.wait_for(output=b"other", tree_empty=True)).kind == "tree_empty"
            assert (await process.wait_for(output=rb"b.gun", exit=True)).kind == "output"
            assert (await process.wait_for(output=rb"o.her", exit=True)).kind == "exit"


@pytest.mark.parametrize("pattern", [b"ready", rb"r.ady"])
async def test_an_error_tells_how_it_ended_and_what_it_said(server: Server, pattern: bytes) -> None:
    client = await server.client()
    async with client.start(["sh", "-c", "echo starting; echo no such file; exit 3"]) as process:
        with trio.fail_after(PATIENCE), pytest.raises(ProcessEndedError) as ended:
            await process.wait_for(output=pattern)
        assert (ended.value.exit_code, ended.value.stdout) == (3, b"starting\nno such file\n")
        assert str(ended.value).endswith("is over without what was waited for (exit code 3): no such file")
    async with client.start(["sh", "-c", "echo loading >&2; exec sleep 1000"]) as process:
        await process.wait_for(output=b"loading")
        with pytest.raises(TimeoutError) as late:
            await process.wait_for(output=pattern, timeout=0.05)
        assert isinstance(late.value, WaitTimeoutError)
        assert str(late.value).endswith("did not do what was waited for within 0.05 s: loading")
        assert process.exit_code is None


@pytest.mark.parametrize("pattern", [b"end", rb"e.d"])
async def test_a_command_goes_on_although_nobody_reads(server: Server, pattern: bytes) -> None:
    client = await server.client(ClientConfig(window_bytes=65536))
    async with client.start(["sh", "-c", "head -c 3000000 /dev/zero; echo end; exec sleep 1000"]) as process:
        with trio.fail_after(PATIENCE):
            assert (await process.wait_for(output=pattern)).kind == "output"


async def test_whoever_reads_gets_all_of_it_meanwhile(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=65536))
    script = "head -c 1000000 /dev/zero; echo end"
    async with client.start(["sh", "-c", script]) as process, trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE):
            found: list[execsrv.Happened] = []

            async def wait() -> None:
                found.append(await process.wait_for(output=rb"e.d"))

            nursery.start_soon(wait)
            assert sum([len(data) async for data in process.output]) == 1000004
    assert [(happened.kind, happened.missed) for happened in found] == [("output", False)]


async def test_a_wait_that_is_cancelled_ends_on_the_server(open_server: OpenServer) -> None:
    server = open_server("unix", ServerConfig(requests_in_flight=4))
    client = await server.client()
    async with client.start(["sleep", "1000"]) as process:
        with trio.fail_after(PATIENCE):
            for _ in range(20):
                with trio.move_on_after(0.01):
                    await process.wait_for(output=b"never")


async def test_waits_that_are_cancelled_end_where_there_is_no_room_for_another(open_server: OpenServer) -> None:
    most = 8
    client = await open_server("unix", ServerConfig(requests_in_flight=most)).client()
    async with client.start(["sleep", "1000"]) as process:
        with trio.fail_after(PATIENCE):
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    for _ in range(most):
                        nursery.start_soon(partial(process.wait_for, output=b"never"))
                    await trio.testing.wait_all_tasks_blocked()
                    with pytest.raises(execsrv.BusyError):
                        await process.wait_for(output=b"never")
                    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("pattern", [b"end", rb"e.d"])
async def test_a_wait_goes_on_after_a_reconnect(open_server: OpenServer, tmp_path: Path, pattern: bytes) -> None:
    server = open_server("unix", ServerConfig(resume_grace=PATIENCE))
    async with (
        open_line(await server.url(), f"{tmp_path}/line") as line,
        execsrv.connect(line.url, reconnect=PATIENCE) as client,
        client.start(["sh", "-c", "echo begin; read x; echo end; exec sleep 1000"], stdin=True) as process,
        trio.open_nursery() as nursery,
    ):

        async def cut_and_go_on() -> None:
            await process.wait_for(idle=0.05)
            line.cut()
            await process.write(b"\n")

        nursery.start_soon(cut_and_go_on)
        with trio.fail_after(PATIENCE):
            assert (await process.wait_for(output=pattern)).kind == "output"
            assert await process.expect_exact([b"begin\nend\n"], timeout=PATIENCE) == 0  # once


@pytest.mark.parametrize(
    ("words", "error", "complaint"),
    [
        ({}, InvalidParamsError, "nothing to wait for"),
        ({"output": 5}, TypeError, "output must be a pattern of bytes or text, got int"),
        ({"output": b"("}, InvalidParamsError, "output: missing ), unterminated subpattern"),
        ({"port": 0}, InvalidParamsError, "port"),
        ({"port": 80, "host": "localhost"}, InvalidParamsError, "not an IP address"),
        ({"host": "127.0.0.1", "exit": True}, InvalidParamsError, "host is the address of port, which is missing"),
        ({"idle": 0}, InvalidParamsError, "idle must be above 0 s"),
        ({"exit": "yes"}, InvalidParamsError, "exit must be True or False"),
        ({"exit": True, "timeout": "soon"}, InvalidParamsError, "timeout must be a number of seconds"),
        ({"no_echo": True}, InvalidParamsError, "has no terminal, and so no echo"),
    ],
)
async def test_what_cannot_be_waited_for(words: dict[str, Any], error: type[Exception], complaint: str) -> None:
    async with execsrv.connect_in_process() as client, client.start(["sleep", "1000"]) as process:
        with pytest.raises(error, match=re.escape(complaint)):
            await process.wait_for(**words)


async def test_what_an_encoding_does_not_have_cannot_be_waited_for() -> None:
    async with execsrv.connect_in_process() as client, client.start(["cat"], stdin=True, encoding="latin-1") as process:
        with pytest.raises(InvalidParamsError, match=r"output: 'latin-1' codec can't encode .* in '\u20ac'"):
            await process.wait_for(output="\u20ac")
