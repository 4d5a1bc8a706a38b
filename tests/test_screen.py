"""The screen of a terminal: as a person would see it, with real full-screen programs where the machine has them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import execsrv
from execsrv import ClientConfig, ConnectionLostError, InvalidParamsError, WaitTimeoutError
from execsrv.limits import ServerConfig
from tests.conftest import OpenServer, Server
from tests.peers import PATIENCE
from tests.relay import open_line

pytest.importorskip("pyte", reason="needs execsrv[screen]")

from execsrv.client.emulator import Emulator

if TYPE_CHECKING:
    from execsrv.client.screen import Screen, WatchedScreen

SMALL = ClientConfig(window_bytes=4096)
XTERM = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program} here")


# -- the emulator alone --


def shown(*pieces: bytes, rows: int = 4, cols: int = 20) -> Emulator:
    emulator = Emulator(rows, cols)
    for piece in pieces:
        emulator.feed(piece)
    return emulator


def lines(emulator: Emulator) -> list[str]:
    return [row.rstrip() for row in emulator.display]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"one\r\ntwo", ["one", "two", "", ""]),
        (b"\x1b[2;3Hx\x1b[Hy\x1b[4Cz", ["y    z", "  x", "", ""]),
        (b"abcdef\x1b[1;3H\x1b[K", ["ab", "", "", ""]),
        (b"1\r\n2\r\n3\r\n4\r\n5", ["2", "3", "4", "5"]),
        (b"\x1b[2;3r\x1b[2;1Ha\r\nb\r\nc", ["", "b", "c", ""]),
        ("wide: 漢字.".encode(), ["wide: 漢字.", "", "", ""]),
        ("漢字\x1b[Hx".encode(), ["x 字", "", "", ""]),
        ("漢字\x1b[1;2Hx".encode(), [" x字", "", "", ""]),
        (" 漢\x1b[1;2H字".encode(), [" 字", "", "", ""]),
        ("漢字\x1b[1;2H語".encode(), [" 語", "", "", ""]),
        (b"a\x1b[4:3mb\x1b[38:2::1:2:3mc\x1b[58:5:1md\x1b[0m", ["abcd", "", "", ""]),
        (b"a\x1bP+q544e\x1b\\b\x1b_payload\x1b\\c\x1b^x\x1b\\d", ["abcd", "", "", ""]),
        (b"a\x1b[>4;2mb\x1b[>1uc\x1b[<ud\x1b[=1;1ue\x1b[?1$pf\x1b[2 qg", ["abcdefg", "", "", ""]),
        (b"a\x1b]8;;http://x\x07b\x1b]8;;\x1b\\c", ["abc", "", "", ""]),
        (b"old\x1b[?1049h\x1b[Hnew", ["new", "", "", ""]),
        (b"old\x1b[?1049h\x1b[Hnew\x1b[?1049l+", ["old+", "", "", ""]),
        (b"a\xff\xc3(b", ["a\ufffd\ufffd(b", "", "", ""]),
        (b"\x1b[?J\x1b[?5Ab", ["b", "", "", ""]),
        (b"a\x1b[?3hb\x1b[?3;4lc\x1b[96hd", ["abcd", "", "", ""]),
    ],
)
def test_what_is_drawn_does_not_depend_on_the_pieces(data: bytes, expected: list[str]) -> None:
    assert lines(shown(data)) == expected
    assert lines(shown(*(data[at : at + 1] for at in range(len(data))))) == expected


FULL = b"1\r\n2\r\n3\r\n4 is long"


@pytest.mark.parametrize(
    ("before", "size", "behind", "expected", "cursor"),
    [
        (FULL, (2, 20), b"x", ["3", "4 is longx"], (1, 10)),
        (FULL, (2, 6), b"x", ["3", "4 is x"], (1, 6)),
        (FULL, (5, 30), b"x\t\ty", ["1", "2", "3", "4 is longx".ljust(24) + "y", ""], (3, 25)),
        (FULL, (2, 10), b"\r\t\tx", ["3", "4 is longx"], (1, 10)),
        (FULL + b"\x1b[2;2H", (2, 20), b"x", ["1", "2x"], (1, 2)),
        (FULL + b"\x1b[2;3r\x1b[4;2H", (2, 20), b"x\r\ny", ["4xis long", "y"], (1, 1)),
        (FULL + b"\x1b[?1049h\x1b[Hnew", (2, 20), b"x", ["newx", ""], (0, 4)),
        (FULL + b"\x1b[?1049h\x1b[Hnew", (2, 6), b"\x1b[?1049lx", ["3", "4 is x"], (1, 6)),
    ],
)
def test_the_cursor_stays_with_its_text_at_a_new_size(
    before: bytes, size: tuple[int, int], behind: bytes, expected: list[str], cursor: tuple[int, int]
) -> None:
    emulator = shown(before)
    emulator.resize(*size)
    emulator.feed(behind)
    assert (lines(emulator), (emulator.cursor.y, emulator.cursor.x)) == (expected, cursor)


def test_title_cursor_and_answers() -> None:
    emulator = shown(b"\x1b]0;a title\x07\x1b[2;5H\x1b[6n\x1b[5n\x1b[c\x1b[>c\x1b[?25l")
    assert emulator.title == "a title"
    assert (emulator.cursor.y, emulator.cursor.x, emulator.cursor.hidden) == (1, 4, True)
    assert emulator.answers == "\x1b[2;5R\x1b[0n\x1b[?6c\x1b[>0;0;0c"


@given(
    st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([b"\x1b[", b"\x1b]", b"\x1bP", b"9999", b";", b"?"])))
)
def test_whatever_is_printed_is_drawn(pieces: list[bytes]) -> None:
    emulator = shown(*pieces)
    assert (len(emulator.display), emulator.columns) == (4, 20)


def test_a_sequence_without_end_is_not_kept() -> None:
    emulator = shown(b"\x1b]0;", *[b"x" * 1000] * 100)
    assert sum(map(len, emulator.display)) >= 80
    assert len(emulator._open) <= 4096


def test_answers_that_nobody_takes_are_bounded() -> None:
    assert len(shown(b"\x1b[6n" * 10_000).answers) <= 4096


# -- programs --


async def seen(watched: WatchedScreen, wanted: str | Callable[[Screen], bool]) -> Screen:
    with trio.fail_after(PATIENCE):
        return await watched.wait_for(wanted)


def has(row: int, text: str) -> Callable[[Screen], bool]:
    """Is true of a screen with a row that begins so: programs draw in pieces."""
    return lambda screen: "".join(screen.rows[row : row + 1]).startswith(text)


async def test_a_screen_beside_the_readers(server: Server) -> None:
    client = await server.client()
    script = "printf 'one\\ntwo'; read x; printf '\\033[2J\\033[5;7Hthree'; read x"
    async with client.start(["sh", "-c", script], tty=True, size=(10, 40), modes={"echo": False}) as process:
        await process.wait_for(output=b"two")
        screen = await process.screen()
        assert (screen.text, str(screen), screen.cursor, screen.size) == ("one\ntwo", "one\ntwo", (1, 3), (10, 40))
        assert not screen.missed
        assert screen.cursor_visible
        await process.expect_exact("two")
        await process.resize(12, 60)
        await process.sendline()
        await process.wait_for(output=b"three")
        screen = await process.screen()
        assert (screen.rows[4], screen.cursor, screen.size) == ("      three".ljust(60), (4, 11), (12, 60))
        await process.expect_exact("three")  # nothing was taken
    async with client.start(["sleep", "1000"]) as process:
        with pytest.raises(InvalidParamsError, match="has no terminal, and so no screen"):
            await process.screen()


async def test_a_picture_that_may_be_wrong_is_marked(open_server: OpenServer) -> None:
    client = await open_server("unix", ServerConfig(retained_output_bytes_per_session=4096)).client(SMALL)
    # In two pieces at least: one alone is retained, however large it is.
    script = "seq 1 20000; read x; seq 20001 40000; sleep 1000"
    async with client.start(["sh", "-c", script], tty=True) as process:
        with trio.fail_after(PATIENCE):
            await process.expect_exact("20000\r\n")
            await process.sendline()
            await process.expect_exact("40000\r\n")
            screen = await process.screen()
        assert screen.missed
        assert screen.text.endswith("39999\n40000")


async def test_a_program_that_prints_on_and_on_is_drawn_as_it_was(open_server: OpenServer) -> None:
    client = await open_server("unix", ServerConfig(retained_output_bytes_per_session=4096)).client(SMALL)
    async with client.start(["yes"], tty=True) as process, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            async for _ in process.output:
                pass

        with trio.fail_after(PATIENCE):
            await process.wait_for(output=b"y")
            screen = await process.screen()
            assert screen.missed or "y" in screen.text.splitlines()  # so little is retained that it may be nothing
        nursery.cancel_scope.cancel()


async def test_a_cancel_in_the_midst_of_a_drawing_draws_nothing_twice() -> None:
    script = "seq 1 400 | tr '\\n' ' '; read x; seq 401 800 | tr '\\n' ' '; sleep 1000"
    wanted = "".join(f"{number} " for number in range(1, 801))
    async with (
        execsrv.connect_in_process() as client,
        client.start(["sh", "-c", script], tty=True, size=(50, 80), modes={"echo": False}) as process,
    ):
        with trio.fail_after(PATIENCE):
            await process.wait_for(output=b" 400 ")
            await process.screen()
            await process.sendline()
            await process.wait_for(output=b" 800 ")
            for turns in range(40):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(process.screen)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
            assert "".join((await process.screen()).rows).strip() == wanted.strip()


async def test_a_program_gets_its_answers(server: Server) -> None:
    client = await server.client()
    code = """
import os, sys, tty
tty.setraw(0)
os.write(1, b"\\x1b[3;4H\\x1b[6n")
answer = b""
while not answer.endswith(b"R"):
    answer += os.read(0, 100)
os.write(1, b"\\x1b[H" + repr(answer).encode() + b" said")
os.read(0, 1)
"""
    async with (
        client.start([sys.executable, "-c", code], tty=True) as process,
        process.watch_screen(answers=True) as watched,
    ):
        assert (await seen(watched, "said")).rows[0].startswith("b'\\x1b[3;4R' said")


async def test_a_program_that_reads_no_answers_is_drawn_on(server: Server) -> None:
    client = await server.client()
    code = "import os, time, tty; tty.setraw(0); os.write(1, b'\\x1b[6n' * 6000 + b'asked'); time.sleep(1000)"
    async with (
        client.start([sys.executable, "-c", code], tty=True) as process,
        process.watch_screen(answers=True) as watched,
    ):
        await seen(watched, "asked")


@needs("less")
async def test_less(server: Server, tmp_path: Path) -> None:
    client = await server.client()
    file = tmp_path / "file"
    file.write_text("".join(f"line {number}\n" for number in range(1, 1001)))
    async with (
        client.start(["less", file], tty=True, size=(10, 40), env_add=XTERM) as process,
        process.watch_screen() as watched,
    ):
        await seen(watched, has(8, "line 9 "))
        await process.send("/line 500\n")
        await seen(watched, has(0, "line 500 "))
        await process.send("G")
        await seen(watched, has(8, "line 1000 "))
        await process.send("q")
        await process.wait()
        assert not (await process.screen()).is_alternate


@needs("vim")
async def test_vim(server: Server, tmp_path: Path) -> None:
    client = await server.client()
    file = tmp_path / "file"
    argv = [
        "sh",
        "-c",
        'echo before; vim -u NONE -N "$0"; echo after; read x',
        str(file),
    ]
    async with (
        client.start(argv, tty=True, size=(12, 50), env_add=XTERM) as process,
        process.watch_screen(answers=True) as watched,
    ):
        await seen(watched, "~")
        await process.send("ihello from a script\x1b")
        assert (await seen(watched, has(0, "hello from a script "))).is_alternate
        await process.send(":wq\r")
        screen = await seen(watched, "after")
        assert screen.text.startswith("before\n")  # the picture of before is back
        assert not screen.is_alternate
    assert file.read_text() == "hello from a script\n"


@needs("top")
async def test_top(server: Server) -> None:
    client = await server.client()
    async with (
        client.start(["top", "-d", "1000"], tty=True, size=(20, 80), env_add=XTERM) as process,
        process.watch_screen() as watched,
    ):
        await seen(watched, has(0, "top - "))
        await seen(watched, "PID USER")
        await process.send("q")
        with trio.fail_after(PATIENCE):
            assert (await process.wait()).exit_code == 0


async def test_the_end_of_a_watched_screen_is_told(server: Server) -> None:
    client = await server.client()
    async with client.start(["echo", "only this"], tty=True) as process, process.watch_screen() as watched:
        with trio.fail_after(PATIENCE), pytest.raises(EOFError, match="and 'more' is not on its screen:\nonly this"):
            await watched.wait_for("more")
        assert watched.now.text == "only this"


async def test_what_a_program_draws_at_a_new_size_is_drawn_in_it(server: Server) -> None:
    client = await server.client()
    code = """
import os, signal

def draw(*_):
    columns, rows = os.get_terminal_size(1)
    os.write(1, b"\\x1b[2J\\x1b[%d;%dHCORNER" % (rows, columns - 5))

signal.signal(signal.SIGWINCH, draw)
draw()
while True:
    signal.pause()
"""
    async with (
        client.start([sys.executable, "-c", code], tty=True, size=(24, 80)) as process,
        process.watch_screen() as watched,
    ):
        for rows, columns in ((24, 80), (40, 120), (10, 30)):
            await process.resize(rows, columns)
            screen = await seen(watched, has(rows - 1, "CORNER".rjust(columns)))
            assert screen.size == (rows, columns)


async def test_nobody_waits_for_the_output_that_a_watched_screen_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("execsrv.client.screen._READ_SECONDS", 1000.0)
    async with (
        execsrv.connect_in_process() as client,
        client.start(["cat"], tty=True, size=(10, 40)) as process,
        process.watch_screen() as watched,
    ):
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE):
            assert (await process.screen()).size == (10, 40)
            async with process.watch_screen() as other:
                await process.resize(12, 60)
                await other.wait_for(lambda screen: screen.size == (12, 60))
            await watched.wait_for(lambda screen: screen.size == (12, 60))


async def test_who_waits_for_a_screen_behind_its_block_is_told() -> None:
    async with execsrv.connect_in_process() as client, client.start(["cat"], tty=True) as process:

        async def wait() -> None:
            with trio.fail_after(PATIENCE), pytest.raises(trio.ClosedResourceError, match="of process p1 was left"):
                await watched.wait_for("more")

        async with trio.open_nursery() as nursery, process.watch_screen() as watched:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
        await wait()


async def test_a_wait_for_a_screen_ends_with_what_ends_the_connection(open_server: OpenServer, tmp_path: Path) -> None:
    server = open_server("unix", ServerConfig())
    async with open_line(await server.url(), f"{tmp_path}/line") as line, trio.open_nursery() as nursery:

        async def cut() -> None:
            await trio.testing.wait_all_tasks_blocked()
            line.cut()

        with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError):
            async with (
                execsrv.connect(line.url) as client,
                client.start(["cat"], tty=True) as process,
                process.watch_screen() as watched,
            ):
                nursery.start_soon(cut)
                await watched.wait_for("more")


async def test_a_screen_that_does_not_come_in_time_is_in_the_error(server: Server) -> None:
    client = await server.client()
    program = ["sh", "-c", "echo this; read line; echo and that; read line"]
    async with client.start(program, tty=True) as process, process.watch_screen() as watched:
        await seen(watched, "this")
        for timeout in (0, 0.01):
            with pytest.raises(WaitTimeoutError, match=f"'and that' on its screen after {timeout} s:\nthis"):
                await watched.wait_for("and that", timeout=timeout)
        assert (await watched.wait_for("this", timeout=PATIENCE)).text == "this"
        with pytest.raises(InvalidParamsError, match="timeout must be"):
            await watched.wait_for("this", timeout=-1)
        await process.write(b"\n")
        await watched.wait_for("and that", timeout=PATIENCE)


async def test_a_terminal_that_is_too_large_is_not_drawn() -> None:
    async with execsrv.connect_in_process() as client, client.start(["cat"], tty=True, size=(1000, 1000)) as process:
        with pytest.raises(execsrv.LimitExceededError, match="a screen of 1000 x 1000 is too large"):
            await process.screen()
