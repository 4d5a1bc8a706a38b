"""Each stream of a process, read once and in order, in any of the ways there are."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import execsrv
from execsrv import Chunk, ClientConfig, Closed, Exited, Gap, OutputFile, OutputNotTextError, OutputTruncatedError
from execsrv.limits import KIB, MIB
from tests.conftest import Server
from tests.peers import PATIENCE

BOTH = ["sh", "-c", "echo out 1; echo err 1 >&2; read go; echo out 2; echo err 2 >&2"]


@pytest.fixture
async def client(server: Server) -> execsrv.Client:
    return await server.client()


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def test_two_tasks_read_the_two_streams_at_once(client: execsrv.Client) -> None:
    said: dict[str, bytes] = {}

    async def read(name: str, stream: trio.abc.ReceiveStream) -> None:
        said[name] = await all_of(stream)

    async with client.start(BOTH, stdin=execsrv.PIPE) as process:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "out", process.stdout)
            nursery.start_soon(read, "err", process.stderr)
            await process.stdin.send_all(b"go\n")
            await process.stdin.aclose()
        assert (await process.wait()).exit_code == 0
    assert said == {"out": b"out 1\nout 2\n", "err": b"err 1\nerr 2\n"}


async def test_one_reader_goes_on_where_another_stopped(client: execsrv.Client) -> None:
    async with client.start(["printf", "one\ntwo\nthree\nfour\nfive"]) as process:
        async for line in process.lines():
            assert line == "one"
            break
        assert await process.stdout.receive_some(2) == b"tw"
        assert await anext(process.lines("stdout")) == "o"
        event = await process.next_event()
        assert isinstance(event, Chunk)
        assert event.chunk == b"three\nfour\nfive"
        assert [type(event) async for event in process.events()] == [Exited, Closed]
        assert await process.stdout.receive_some() == b""


async def test_two_tasks_that_read_the_same_are_refused(client: execsrv.Client) -> None:
    async with client.start(["cat"], stdin=True) as process, trio.open_nursery() as nursery:
        nursery.start_soon(process.stdout.receive_some)
        await wait_all_tasks_blocked()
        for attempt in (process.stdout.receive_some, process.next_event, lambda: anext(process.lines("stdout"))):
            with pytest.raises(trio.BusyResourceError, match=f"another task is reading stdout of process {process.id}"):
                await attempt()
        with trio.move_on_after(0.01) as waited:
            await process.stderr.receive_some()
        assert waited.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_an_unread_stream_does_not_hold_up_the_reader_of_the_other(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=64 * KIB))
    size = 3 * MIB
    async with client.start(["sh", "-c", f"echo unread; head -c {size} /dev/zero >&2; echo more"]) as process:
        with trio.fail_after(PATIENCE):
            assert len(await all_of(process.stderr)) == size
            assert await all_of(process.stdout) == b"unread\nmore\n"


async def test_a_closed_stream_is_let_go(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=64 * KIB))
    async with client.start(["sh", "-c", "head -c 1000000 /dev/zero; echo done >&2; exit 3"]) as process:
        await process.stdout.aclose()
        with pytest.raises(trio.ClosedResourceError, match=f"stdout of process {process.id} was closed here"):
            await process.stdout.receive_some()
        with trio.fail_after(PATIENCE):
            while process.exit_code is None:  # noqa: ASYNC110  # nobody waits in the client
                await trio.sleep(0.01)
            assert await all_of(process.stderr) == b"done\n"


async def test_a_block_that_was_left_is_read_no_more(client: execsrv.Client) -> None:
    async with client.start(["cat"], stdin=True) as process:
        pass
    for attempt in (process.stdout.receive_some, process.next_event, process.communicate):
        with pytest.raises(trio.ClosedResourceError, match=f"the block of process {process.id} was left"):
            await attempt()
    with pytest.raises(trio.BrokenResourceError):
        await process.stdin.send_all(b"late")
    assert (await process.wait()).reason == "terminated"


# -- nobody reads --


async def test_who_waits_is_not_held_up_by_output_that_nobody_reads(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=256 * KIB))
    async with client.start(["sh", "-c", "seq 1000000; echo end >&2; exit 4"]) as process:
        with trio.fail_after(PATIENCE):
            assert (await process.wait()).exit_code == 4
        events = [event async for event in process.events()]
        total = sum(len(event.chunk) for event in events if isinstance(event, Chunk))
        gaps = [event for event in events if isinstance(event, Gap)]
        assert len(gaps) == 1
        assert total + gaps[0].omitted["stdout"] == 6888896 + 4
        assert total < 256 * KIB
        assert events.index(gaps[0]) == 0


@pytest.mark.few
async def test_output_that_was_let_go_is_an_error_for_who_reads_bytes_or_text(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=256 * KIB))
    readers: list[Callable[[execsrv.Process], object]] = [
        lambda process: process.stdout.receive_some(),
        lambda process: anext(process.output),
        lambda process: anext(process.lines()),
        lambda process: anext(process.text("stdout")),
        lambda process: process.communicate(),
    ]
    for read in readers:
        async with client.start(["seq", "1000000"]) as process:
            with trio.fail_after(PATIENCE):
                await process.wait()
            with pytest.raises(OutputTruncatedError):
                await read(process)  # type: ignore[misc]
    async with client.start(["seq", "1000000"]) as process:
        await process.wait()
        result = await process.communicate(truncate=True)
    assert len(result.stdout) + result.omitted_bytes == 6888896


async def test_a_slow_reader_loses_nothing_to_who_waits(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=64 * KIB))
    got = 0

    async def read(process: execsrv.Process) -> None:
        nonlocal got
        while data := await process.stdout.receive_some():
            got += len(data)
            await wait_all_tasks_blocked()

    async with client.start(["head", "-c", "2000000", "/dev/zero"]) as process, trio.open_nursery() as nursery:
        nursery.start_soon(read, process)
        with trio.fail_after(PATIENCE):
            await process.wait()
    assert got == 2000000


async def test_a_reader_that_stops_holds_up_nobody_who_waits(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=64 * KIB))
    async with client.start(["yes"]) as process, trio.open_nursery() as nursery:
        read = trio.Event()

        async def read_one() -> None:
            assert await anext(process.lines()) == "y"
            read.set()

        nursery.start_soon(read_one)
        await read.wait()
        nursery.start_soon(process.send_signal, "INT")
        with trio.fail_after(PATIENCE):
            assert (await process.wait()).signal == "SIGINT"


# -- text --


async def test_lines_come_whole_whatever_the_pieces(client: execsrv.Client) -> None:
    async with client.start(["cat"], stdin=True) as process:
        lines = process.lines()
        for piece in ("ein", "s\nzw", "ei\r", "\ndr\u20ac"[:-1]):
            await process.write(piece.encode())
            await wait_all_tasks_blocked()
        for byte in "\u20aci\rvier\n\nlast".encode():
            await process.write(bytes([byte]))
        await process.close_stdin()
        assert [line async for line in lines] == ["eins", "zwei", "dr\u20aci", "vier", "", "last"]


async def test_lines_of_both_streams_are_never_mixed(client: execsrv.Client) -> None:
    script = "printf 'out '; printf 'err ' >&2; read go; printf 'a\\n'; printf 'b\\n' >&2"
    async with client.start(["sh", "-c", script], stdin=True) as process:
        await process.write(b"\n")
        assert sorted([line async for line in process.lines()]) == ["err b", "out a"]


async def test_a_line_may_be_longer_than_the_window_but_not_than_its_bound(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=32 * KIB))
    script = "head -c 200000 /dev/zero | tr '\\0' x; echo; echo next"
    async with client.start(["sh", "-c", script]) as process:
        with trio.fail_after(PATIENCE):
            assert [len(line) async for line in process.lines()] == [200000, 4]
    async with client.start(["sh", "-c", script]) as process:
        with (
            trio.fail_after(PATIENCE),
            pytest.raises(execsrv.LimitExceededError, match=r"\(100000\)") as caught,
        ):
            await anext(process.lines("stdout", max_bytes=100000))
        assert str(caught.value).startswith(f"stdout of process {process.id} has a line of more than")
        assert len(await all_of(process.stdout)) == 200006


async def test_characters_are_never_cut(client: execsrv.Client) -> None:
    async with client.start(["cat"], stdin=True, encoding="utf-16-le") as process:
        said = ""
        for byte in "a\u20ac\U0001f600".encode("utf-16-le"):
            await process.write(bytes([byte]))
        await process.close_stdin()
        async for piece in process.text("stdout"):
            said += piece
        assert said == "a\u20ac\U0001f600"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "UTF-32"])
async def test_a_mark_in_front_of_each_write_is_refused(client: execsrv.Client, encoding: str) -> None:
    with pytest.raises(execsrv.InvalidParamsError, match="without a byte order mark, such as utf-16-le, got"):
        await client.start(["cat"], stdin=True, encoding=encoding).__aenter__()
    assert (await client.run(["cat"], input="a\u20ac\n", encoding=encoding)).stdout == "a\u20ac\n"
    async with client.start(["cat"], stdin=True) as process:
        assert (await process.communicate("a", encoding=encoding)).stdout == "a"


@pytest.mark.parametrize("encoding", ["iso2022_jp", "ISO-2022-KR", "hz", "utf-7"])
async def test_an_encoding_with_a_shift_state_is_refused(encoding: str) -> None:
    async with execsrv.connect_in_process() as client:
        with pytest.raises(execsrv.InvalidParamsError, match="without a shift state, such as utf-8, got"):
            await client.start(["cat"], stdin=True, encoding=encoding).__aenter__()
        assert (await client.run(["cat"], input="\u4e2d\n", encoding=encoding)).stdout == "\u4e2d\n"


async def test_text_that_does_not_decode_is_an_error_and_still_there(client: execsrv.Client) -> None:
    async with client.start(["printf", r"good\nb\303d\nrest"], text=True) as process:
        lines = process.lines()
        assert await anext(lines) == "good"
        with pytest.raises(UnicodeDecodeError, match=f"stdout of process {process.id}; errors='replace' reads it"):
            await anext(lines)
        assert await anext(process.lines(errors="replace")) == "b\ufffdd"
        assert await process.stdout.receive_some() == b"rest"
    script = r"printf 'a\303'; echo why >&2; exit 3"
    with pytest.raises(OutputNotTextError, match=r"code 3, and .* in stdout; errors='replace' reads it: why") as caught:
        await client.run(["sh", "-c", script], text=True, check=True)
    assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (3, "a\ufffd", "why\n")
    assert isinstance(caught.value, UnicodeError)
    assert (await client.run(["printf", r"\303"], text=True, errors="replace")).stdout == "\ufffd"


async def test_results_as_text(client: execsrv.Client) -> None:
    result = await client.run(["sh", "-c", r"cat; printf 'e\r\n' >&2"], input="b\u20ac\na\n", text=True)
    assert (result.stdout, result.stderr, result.lines) == ("b\u20ac\na\n", "e\n", ["b\u20ac", "a"])
    assert (await client.run(["printf", r"a\nb"])).lines == ["a", "b"]
    assert (await client.run(["cat"], input="\xe4", encoding="latin-1")).stdout == "\xe4"
    with pytest.raises(execsrv.CommandFailedError, match=r"ended with exit code 1: why$") as failed:
        await client.run(["sh", "-c", "echo why >&2; exit 1"], text=True, check=True)
    assert failed.value.stderr == "why\n"
    async with client.start(["cat"], stdin=True, text=True) as process:
        await process.write("one\n")
        assert (await process.communicate("two\n")).stdout == "one\ntwo\n"


async def test_communicate_without_an_input_ends_a_pipe(client: execsrv.Client) -> None:
    """As in the standard library: whoever collects to the end writes no more."""
    async with client.start(["cat"], stdin=execsrv.PIPE) as process:
        await process.write(b"one")
        with trio.fail_after(PATIENCE):
            assert (await process.communicate()).stdout == b"one"


# -- other places --


async def test_output_goes_to_files(client: execsrv.Client, tmp_path: Path) -> None:
    script = "echo out; echo err >&2; echo out again"
    result = await client.run(["sh", "-c", script], stdout=tmp_path / "out", stderr=OutputFile(str(tmp_path / "err")))
    assert (result.stdout, result.stderr, result.totals) == (b"", b"", {})
    assert (tmp_path / "out").read_text() == "out\nout again\n"
    assert (tmp_path / "err").read_text() == "err\n"
    assert not (tmp_path / "out").stat().st_mode & stat.S_IXUSR
    appended = OutputFile(str(tmp_path / "out"), append=True)
    await client.run(["sh", "-c", script], stdout=appended, stderr=execsrv.STDOUT)
    assert (tmp_path / "out").read_text() == "out\nout again\nout\nerr\nout again\n"


async def test_one_stream_has_both_in_the_order_of_writing(client: execsrv.Client) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done"
    result = await client.run(["sh", "-c", script], stderr=execsrv.STDOUT, text=True)
    assert result.lines == ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3"]
    assert (result.stderr, list(result.totals)) == ("", ["stdout"])
    result = await client.run(["sh", "-c", script], stdout=execsrv.DEVNULL, text=True)
    assert (result.stdout, result.stderr) == ("", "err 1\nerr 2\nerr 3\n")
    assert (await client.run(["sh", "-c", script], stdout=execsrv.DEVNULL, stderr=execsrv.STDOUT)).totals == {}


async def test_a_file_that_cannot_be_written_is_an_error_that_names_it(client: execsrv.Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, errno in [("", 21), ("no/file", 2), ("fifo", 6)]:
        for stream in ("stdout", "stderr"):
            with pytest.raises(
                execsrv.SpawnError, match=f"cannot open `{tmp_path}/?{name}` for its {stream}: "
            ) as failed:
                await client.run(["true"], **{stream: tmp_path / name})  # type: ignore[call-overload]
            assert (failed.value.stage, failed.value.errno) == (stream, errno)
    assert (await client.run(["true"])).exit_code == 0


async def test_what_is_not_piped_has_no_reader(client: execsrv.Client) -> None:
    async with client.start(["sh", "-c", "echo err >&2"], stdout=execsrv.DEVNULL) as process:
        async with aclosing(process.stdout) as stdout:
            assert await stdout.receive_some() == b""
        assert await process.communicate() == (await client.run(["sh", "-c", "echo err >&2"], stdout="/dev/null"))


async def test_stdin_is_a_stream_of_trio(client: execsrv.Client) -> None:
    async with client.start(["head", "-c", "3"], stdin=execsrv.PIPE) as process:
        await process.stdin.wait_send_all_might_not_block()
        await process.stdin.send_all(memoryview(b"abc"))
        assert await process.stdout.receive_some() == b"abc"
        await process.wait()
        with pytest.raises(trio.BrokenResourceError, match=f"stdin is closed for process {process.id}"):
            while True:
                await process.stdin.send_all(b"more")
        await process.stdin.aclose()
        with pytest.raises(trio.ClosedResourceError, match="was closed here"):
            await process.stdin.send_all(b"more")
    async with client.start(["cat"]) as process:
        with pytest.raises(trio.BrokenResourceError):
            await process.stdin.send_all(b"none")


async def test_events_tell_when(client: execsrv.Client) -> None:
    async with client.start(["sh", "-c", "echo now; read x; echo later"], stdin=True) as process:
        first = await process.next_event()
        assert isinstance(first, Chunk)
        await trio.sleep(0.3)
        await process.write(b"\n")
        times = [first.at, *[event.at async for event in process.events() if not isinstance(event, Gap)]]
    assert None not in times
    assert times == sorted(time for time in times if time is not None)
    assert times[0] is not None
    assert times[1] is not None
    assert times[1] >= times[0] + 0.3  # the server's own clock, however late it was heard


async def test_input_and_output_have_the_same_errors(client: execsrv.Client) -> None:
    text: Any = {"text": True, "errors": "surrogateescape"}
    assert (await client.run(["cat"], input="\udcff\n", **text)).stdout == "\udcff\n"
    async with client.start(["cat"], stdin=True, **text) as process:
        await process.write("\udcfe")
        result = await process.communicate("\udcff")
    assert result.stdout == "\udcfe\udcff"
    with pytest.raises(execsrv.InvalidParamsError, match="input cannot be written as utf-8"):
        await client.run(["cat"], input="\udcff", text=True)
