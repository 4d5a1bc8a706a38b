"""Recordings: asciicast v3 files, and the pages that play them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio_websocket import open_websocket_url

import execsrv
from execsrv.record import Recording, to_html
from execsrv.record.asciicast import Asciicast

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


@pytest.mark.parametrize("content", ["", "hello\n", '{"version": 9}\n', "[1]\n", "\x00\xff"])
def test_what_is_no_recording_makes_no_page(tmp_path: Path, content: str) -> None:
    path = tmp_path / "not.cast"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} is no asciicast")):
        to_html(path)
    assert os.listdir(tmp_path) == ["not.cast"]


def test_a_page_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    cast = cast_file(tmp_path)
    with pytest.raises(OSError, match="nowhere"):
        to_html(cast, tmp_path / "nowhere" / "page.html")


BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None)
OPTIONS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
OPTIONS += " --disable-component-update --disable-sync --remote-debugging-port=0"


@asynccontextmanager
async def shown(page: Path, profile: Path) -> AsyncIterator[Callable[[str], Awaitable[object]]]:
    """Show a page in a browser, and give a function that evaluates a script in it and waits for its promise."""
    assert BROWSER is not None
    argv = [BROWSER, *OPTIONS.split(), f"--user-data-dir={profile}", "about:blank"]
    async with execsrv.connect_in_process() as client, client.start(argv, text=True) as browser:
        url = None
        async for line in browser.lines("stderr"):
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                url = found[1]
                break
        assert url is not None
        async with open_websocket_url(url) as socket:
            numbers = count(1)

            async def ask(method: str, session: str | None = None, **params: object) -> dict[str, Any]:
                request = {"id": next(numbers), "method": method, "params": params}
                await socket.send_message(json.dumps(request | ({"sessionId": session} if session else {})))
                while (answer := json.loads(await socket.get_message())).get("id") != request["id"]:
                    pass
                assert "result" in answer, answer
                return cast(dict[str, Any], answer["result"])

            target = (await ask("Target.createTarget", url=page.as_uri()))["targetId"]
            session = (await ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]

            async def evaluate(script: str) -> object:
                answer = await ask(
                    "Runtime.evaluate", session, expression=script, awaitPromise=True, returnByValue=True
                )
                assert "exceptionDetails" not in answer, answer
                return answer["result"].get("value")

            yield evaluate


PLAYED = """(async () => {
    while (document.readyState != "complete") await new Promise(done => addEventListener("load", done));
    const ended = new Promise(done => player.addEventListener("ended", done));
    await player.play();
    await ended;
    const text = () => document.querySelector(".ap-term-text").innerText;
    while (!text().includes("the end")) await new Promise(requestAnimationFrame);
    return [text(), document.querySelector(".ap-term").style.getPropertyValue("--term-cols"), await player.getDuration()];
})()"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
async def test_a_browser_plays_a_page(tmp_path: Path) -> None:
    events = [[0.1, "o", "gr\u00fc\u00dfe \u001b[31mred\u001b[0m\r\n"], [0.1, "r", "60x6"]]
    page = to_html(cast_file(tmp_path, *events, [0.2, "m", "here"], [0.1, "o", "the end </script>"], [0.1, "x", "3"]))
    with trio.fail_after(100):
        async with shown(page, tmp_path / "profile") as evaluate:
            text, cols, duration = cast(tuple[str, str, float], await evaluate(PLAYED))
    assert [line.rstrip() for line in text.splitlines()][:2] == ["gr\u00fc\u00dfe red", "the end </script>"]
    assert cols == "60"
    assert duration == pytest.approx(0.6)
