"""Recordings: asciicast v3 files, and the pages that play them."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio

import execsrv
from execsrv import Chunk, Client, ServerConfig
from execsrv.record import Recording, to_html
from execsrv.record.asciicast import Asciicast
from tests.browser import needs_browser, shown
from tests.conftest import OpenServer, Server

Event = tuple[float, str, str]


def read(path: Path) -> tuple[dict[str, object], list[Event]]:
    """Return the header and the events of a recording, each with the time since the beginning."""
    header, *events = [json.loads(line) for line in path.read_text().splitlines()]
    at, absolute = 0.0, []
    for interval, code, data in events:
        assert interval >= 0
        at += interval
        absolute.append((at, code, data))
    return header, absolute


def printed(events: list[Event]) -> str:
    return "".join(data for _, code, data in events if code == "o")


# -- the lines --


@pytest.mark.parametrize("sizes", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("data", "is_terminal", "text"),
    [
        ("grüße, 世界 🎉\r\n".encode(), True, "grüße, 世界 🎉\r\n"),
        (b"a\nb\n", False, "a\r\nb\r\n"),
        (b"a\r\nb\r\n\n", False, "a\r\nb\r\n\r\n"),
        (b"50%\r100%\n", False, "50%\r100%\r\n"),
        (b"\nfirst", False, "\r\nfirst"),
        (b"a\nb", True, "a\nb"),
        (b"\xff\xfe ok \xe2\x82", True, "�� ok �"),
        ("\u2028\x85\x00\x1b[0m".encode(), True, "\u2028\x85\x00\x1b[0m"),
    ],
)
def test_output_in_pieces_is_the_text(data: bytes, is_terminal: bool, text: str, sizes: int) -> None:
    cast = Asciicast(0.0, is_terminal=is_terminal)
    lines = b"".join(cast.output(1.0, "pty", data[at : at + sizes]) for at in range(0, len(data), sizes))
    lines += cast.end(2.0, None)
    assert "".join(json.loads(line)[2] for line in lines.decode("ascii").splitlines()) == text


def test_streams_do_not_damage_each_others_characters() -> None:
    cast = Asciicast(0.0, is_terminal=False)
    euro = "€".encode()
    lines = [cast.output(0, "stdout", euro[:1]), cast.output(0, "stderr", euro), cast.output(0, "stdout", euro[1:])]
    assert [json.loads(line)[2] for line in lines if line] == ["€", "€"]


def test_rounded_intervals_add_up() -> None:
    cast = Asciicast(100.0, is_terminal=True)
    lines = [cast.output(100 + n * 0.0014, "pty", b".") for n in range(1000)]
    assert sum(json.loads(line)[0] for line in lines) == pytest.approx(999 * 0.0014, abs=0.001)


def test_a_clock_that_goes_back_makes_no_negative_interval() -> None:
    cast = Asciicast(5.0, is_terminal=True)
    assert json.loads(cast.output(3.0, "pty", b"x"))[0] == 0


# -- a process --


@pytest.fixture
async def client(server: Server) -> Client:
    return await server.client()


SHELL = "printf 'gr\\303'; printf '\\274n\\n'; read x; echo \"got $x\"; exit 3"


async def test_a_terminal_is_recorded_with_sizes_and_its_end(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "demo.cast"
    async with client.start(["sh", "-c", SHELL], tty=True, size=(30, 100), record=path) as process:
        while b"n\r\n" not in (await process.next_event()).chunk:  # type: ignore[union-attr]
            pass
        await process.resize(40, 120)
        await process.write(b"it\n")
        result = await process.communicate()
    header, events = read(path)
    assert header["version"] == 3
    assert header["term"] == {"cols": 100, "rows": 30}
    assert header["command"] == shlex.join(["sh", "-c", SHELL])
    assert "grün\r\n" in printed(events)
    assert printed(events).endswith(result.stdout.decode())
    assert [(code, data) for _, code, data in events if code in "rx"] == [("r", "120x40"), ("x", "3")]
    assert events[-1][1] == "x"
    assert not [event for event in events if event[1] == "i"]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_pipes_are_recorded_as_a_terminal_would_show_them(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "demo.cast"
    recording = Recording(path, input=True, title="Two streams", idle_time_limit=2)
    argv = ["sh", "-c", "echo out; read x; echo err >&2"]
    async with client.start(argv, stdin=True, record=recording) as process:
        await process.next_event()
        await process.write("pässword\n".encode())
        await process.communicate()
    header, events = read(path)
    assert header["title"] == "Two streams"
    assert header["idle_time_limit"] == 2
    assert [(code, data) for _, code, data in events] == [
        ("o", "out\r\n"),
        ("i", "pässword\n"),
        ("o", "err\r\n"),
        ("x", "0"),
    ]


async def test_a_running_process_is_recorded_from_here_on(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "demo.cast"
    async with client.start(["sh", "-c", "echo before; read x; echo after; read y"], tty=True, size=(9, 33)) as process:
        await process.resize(11, 44)
        assert isinstance(await process.next_event(), Chunk)
        async with client.record(process, path, title="later"):
            await process.write(b"\n")
            heard = b""
            while b"after" not in heard:
                heard += (await process.next_event()).chunk  # type: ignore[union-attr]
        await process.write(b"\n")
        await process.communicate()
    header, events = read(path)
    assert header["term"] == {"cols": 44, "rows": 11}
    assert "before" not in printed(events)
    assert "after" in printed(events)
    assert not [event for event in events if event[1] == "x"]  # it had not ended yet


async def test_a_run_is_recorded(client: Client, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "demo.cast", idle_time_limit=math.inf)
    result = await client.run(["sh", "-c", "seq 3; kill -9 $$"], record=recording)
    assert result.signal == "SIGKILL"
    header, events = read(tmp_path / "demo.cast")
    assert "idle_time_limit" not in header
    assert printed(events) == "1\r\n2\r\n3\r\n"
    assert events[-1][1:] == ("x", "137")


async def test_a_recording_has_the_text_of_its_process(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "demo.cast"
    assert (await client.run(["printf", "\\351t\\351"], encoding="latin-1", record=path)).stdout == "été"
    assert printed(read(path)[1]) == "été"
    async with (
        client.start(["cat"], stdin=True, encoding="utf-16-le") as process,
        client.record(process, path, input=True),
    ):
        await process.communicate("naïve")
    assert "".join(event[2] for event in read(path)[1] if event[1] == "i") == "naïve"
    assert printed(read(path)[1]) == "naïve"


async def test_all_output_is_there_when_the_block_is_left_early(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "demo.cast"
    async with client.start(
        ["sh", "-c", "exec 2>/dev/null; trap 'echo bye; exit 5' TERM; echo hi; while :; do sleep 0.05; done"],
        grace=20,
        record=path,
    ) as process:
        await process.next_event()
    _, events = read(path)
    assert printed(events) == "hi\r\nbye\r\n"
    assert events[-1][1:] == ("x", "5")


async def test_what_was_recorded_before_a_cancel_is_there(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "demo.cast"
    with trio.CancelScope() as scope:
        async with client.start(["sh", "-c", "echo hi; exec sleep 1000"], record=path) as process:
            await process.next_event()
            scope.cancel()
            await trio.sleep_forever()
    assert printed(read(path)[1]) == "hi\r\n"


async def test_two_recordings_at_once(client: Client, tmp_path: Path) -> None:
    async with (
        client.start(["cat"], stdin=True, record=tmp_path / "a.cast") as process,
        client.record(process, tmp_path / "b.cast", input=True),
    ):
        await process.communicate(b"hello")
    assert printed(read(tmp_path / "a.cast")[1]) == printed(read(tmp_path / "b.cast")[1]) == "hello"


@pytest.mark.parametrize("where", ["nowhere/demo.cast", "."])
async def test_a_file_that_cannot_be_opened_starts_nothing(client: Client, tmp_path: Path, where: str) -> None:
    with pytest.raises(OSError, match="cannot write the recording") as caught:
        async with client.start(["sleep", "1000"], record=tmp_path / where):
            raise AssertionError("it runs")
    assert caught.value.filename == str(tmp_path / where)
    assert await client.processes() == []


async def test_a_full_disk_ends_the_recording_and_not_the_process(client: Client) -> None:
    result = None
    with pytest.raises(OSError, match="cannot write the recording: No space left on device"):
        async with client.start(["sh", "-c", "seq 2000; exit 3"], record="/dev/full") as process:
            result = await process.communicate()
    assert result is not None
    assert result.exit_code == 3
    assert result.stdout == b"".join(b"%d\n" % n for n in range(1, 2001))


async def test_an_error_of_the_block_is_not_replaced_by_that_of_the_file(client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        async with client.start(["true"], record="/dev/full") as process:
            await process.communicate()
            raise ZeroDivisionError


@pytest.mark.few
async def test_a_file_that_takes_nothing_holds_up_no_process_and_says_so(client: Client, tmp_path: Path) -> None:
    """Nobody reads the fifo, so it is full after 64 KiB, until the process has ended."""
    size = 40 * 1024 * 1024
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)

    def read_all() -> bytes:
        os.set_blocking(fifo, True)
        parts = []
        while part := os.read(fifo, 1 << 20):
            parts.append(part)
        return b"".join(parts)

    argv = ["head", "-c", str(size), "/dev/zero"]
    recorded: list[bytes] = []
    async with trio.open_nursery() as nursery, client.start(argv, record=tmp_path / "fifo") as process:
        printed = 0
        async for data in process.output:
            printed += len(data)
        assert printed == size
        nursery.start_soon(store, read_all, recorded)
    os.close(fifo)
    _, *events = [json.loads(line) for line in recorded[0].splitlines()]
    told = [int(data.split()[0]) for _, code, data in events if code == "m"]
    assert sum(len(data) for _, code, data in events if code == "o") + sum(told) == size
    assert told


async def test_a_file_that_takes_nothing_to_the_end_is_an_error(
    open_server: OpenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execsrv.client.recorder._FLUSH_SECONDS", 0.5)
    client = await open_server("memory", ServerConfig()).client()
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    result = None
    with pytest.raises(OSError, match="cannot write the recording: Connection timed out"):
        async with client.start(["head", "-c", "1M", "/dev/zero"], record=tmp_path / "fifo") as process:
            result = await process.communicate()
    assert result is not None
    assert len(result.stdout) == 1024 * 1024
    os.close(fifo)  # which ends the thread that was left behind


async def store(work: Callable[[], bytes], kept: list[bytes]) -> None:
    kept.append(await trio.to_thread.run_sync(work))


WRONG: list[tuple[Any, str]] = [
    (5, "record"),
    (Recording("x", input="yes"), "input"),  # type: ignore[arg-type]
    (Recording("x", idle_time_limit=-1), "idle_time_limit"),
    (Recording("x", title=7), "title"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("record", "named"), WRONG)
async def test_a_wrong_recording_is_named(client: Client, record: Any, named: str) -> None:
    with pytest.raises((execsrv.InvalidParamsError, TypeError), match=named):
        async with client.start(["true"], record=record):
            raise AssertionError("it runs")


async def test_a_recording_is_its_users_alone(client: Client, tmp_path: Path) -> None:
    """Also in the place of a file that others could read, and so is its page."""
    recording = tmp_path / "old.cast"
    recording.touch(0o644)
    recording.chmod(0o644)
    await client.run(["echo", "secret"], record=recording)
    assert recording.stat().st_mode & 0o777 == 0o600
    assert to_html(recording).stat().st_mode & 0o777 == 0o600


# -- the page --


def cast_file(folder: Path, *lines: object, **header: object) -> Path:
    path = folder / "demo.cast"
    first = {"version": 3, "term": {"cols": 40, "rows": 5}, **header}
    path.write_text("".join(json.dumps(line) + "\n" for line in (first, *lines)))
    return path


def test_a_page_stands_beside_its_recording_and_loads_nothing(tmp_path: Path) -> None:
    cast = cast_file(tmp_path, [0.1, "o", "hello"], title="<b>A & B</b>")
    page = to_html(cast)
    assert page == tmp_path / "demo.html"
    text = page.read_text()
    assert "<title>&lt;b&gt;A &amp; B&lt;/b&gt;</title>" in text
    assert not re.search(r"""(?:src|href)=["']?(?!data:)""", re.sub(r"(?s)<script>.*?</script>", "", text))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.cast", "demo.html"]


def test_nothing_in_a_recording_ends_the_pages_script(tmp_path: Path) -> None:
    page = to_html(cast_file(tmp_path, [0.1, "o", "</script><script>alert(1)</script><!--"]))
    assert "</script><script>alert" not in page.read_text()


DEEP = pytest.param("[" * 100_000, id="deep")


@pytest.mark.parametrize("content", ["", "hello\n", '{"version": 9}\n', "[1]\n", "\x00\xff", DEEP])
def test_what_is_no_recording_makes_no_page(tmp_path: Path, content: str) -> None:
    path = tmp_path / "not.cast"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} is no asciicast")):
        to_html(path)
    assert os.listdir(tmp_path) == ["not.cast"]


def test_a_page_leaves_out_what_was_cut_and_nothing_else(tmp_path: Path) -> None:
    """The player takes no line that is broken, and then plays nothing at all."""
    path = cast_file(tmp_path, [0.1, "o", "one"])
    whole = path.read_text()
    page = to_html(path).read_text()
    for rest in ('[0.1, "o", "tw', "[0.1", "\n", "# a comment\n"):
        path.write_text(whole + rest)
        assert to_html(path).read_text() == page
    numbers = ('[NaN, "o", "x"]', '[1e999, "o", "x"]', '[true, "o", "x"]')  # JSON has no such, a player no such times
    for line in ("[zz]", '[0.1, "o", "tw', '[0.1, "o"]', "{}", *numbers):
        path.write_text(f'{whole}{line}\n[0.1, "o", "two"]\n')
        with pytest.raises(ValueError, match=re.escape(f"{path} is no asciicast: line 3 is no event of one")):
            to_html(path)
    sizes = ("", ', "term": {"cols": 80, "rows": -1}', ', "term": {"cols": true, "rows": 24}')
    for header in (*sizes, ', "timestamp": NaN, "term": {"cols": 80, "rows": 24}'):
        path.write_text(f'{{"version": 3{header}}}\n[0.1, "o", "one"]\n')
        with pytest.raises(ValueError, match="first line is not the header of one"):
            to_html(path)


def test_a_page_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    cast = cast_file(tmp_path)
    with pytest.raises(OSError, match="nowhere"):
        to_html(cast, tmp_path / "nowhere" / "page.html")


def test_a_page_does_not_take_the_place_of_its_recording(tmp_path: Path) -> None:
    cast = cast_file(tmp_path).rename(tmp_path / "demo.html")
    recorded = cast.read_text()
    with pytest.raises(OSError, match=r"in the place of its recording: .*demo\.html"):
        to_html(cast)
    assert cast.read_text() == recorded


def test_a_page_takes_no_pipes_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        to_html(cast_file(tmp_path), tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


PLAYED = """(async () => {
    const ended = new Promise(done => player.addEventListener("ended", done));
    await player.play();
    await ended;
    const text = () => [...document.querySelectorAll(".ap-line")].map(line => line.textContent).join("|");
    while (!text().includes("the end")) await new Promise(requestAnimationFrame);
    const cols = document.querySelector(".ap-term").style.getPropertyValue("--term-cols");
    return [text(), cols, await player.getDuration()];
})()"""


@needs_browser
async def test_a_browser_plays_a_page(tmp_path: Path) -> None:
    events = [[0.1, "o", "gr\u00fc\u00dfe \u001b[31mred\u001b[0m\r\n"], [0.1, "r", "60x6"]]
    page = to_html(cast_file(tmp_path, *events, [0.2, "m", "here"], [0.1, "o", "the end </script>"], [0.1, "x", "3"]))
    with trio.fail_after(100):
        async with shown(page.as_uri(), tmp_path / "profile") as browser:
            text, cols, duration = cast(tuple[str, str, float], await browser.evaluate(PLAYED))
    assert [line.rstrip() for line in text.split("|")][:2] == ["gr\u00fc\u00dfe red", "the end </script>"]
    assert cols == "60"
    assert duration == pytest.approx(0.6)
