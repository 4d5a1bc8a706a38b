"""A cancel that comes when a call is over, and its value on the way, does what one in time does."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import execsrv.asyncio
import execsrv.asyncio.agents
import execsrv.sync
from execsrv import Chunk, Closed, Exited
from execsrv._portal import blocking
from execsrv._portal.calls import Call
from execsrv.asyncio import Client, Process
from execsrv.client.presence import Presence
from execsrv.protocol import ConnectionPresence
from execsrv.testing import assert_no_strays
from tests.late import cancelled_late, undone_late
from tests.peers import PATIENCE
from tests.processes import marked, new_mark

LONG = 60_000


def with_client(test: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), execsrv.asyncio.launch() as client:
            await test(client)

    with assert_no_strays():
        asyncio.run(main())


# -- of what was waited for, nothing is for the next call --


def test_the_next_wait_is_not_told_of_what_another_one_waited_for() -> None:
    async def test(client: Client) -> None:
        async with client.start(["cat"], stdin=True) as process:
            await cancelled_late(process.wait_for(idle=0.01))
            await process.close_stdin()
            assert (await process.wait_for(exit=True)).kind == "exit"

    with_client(test)


def test_a_read_of_a_file_is_for_its_caller_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(200)))

    async def test(client: Client) -> None:
        async with client.files.path(tmp_path / "a").open("rb") as file:
            assert await file.read(2) == b"\0\1"
            await cancelled_late(file.read(100))
            assert file.tell() == 2
            await cancelled_late(file.read(100))
            await file.seek(1)
            assert await file.read(4) == b"\1\2\3\4"

    with_client(test)


def test_a_picture_is_of_when_it_was_asked_for() -> None:
    async def test(client: Client) -> None:
        async with client.start(["cat"], tty=True, modes={"echo": False}) as process:
            await cancelled_late(process.screen())
            await process.write(b"later\n")
            await process.wait_for(output="later")
            assert "later" in (await process.screen()).text

    with_client(test)


# -- what was taken is there for whoever reads next, in whatever way --

READERS: dict[str, Callable[[Process], Awaitable[object]]] = {
    "next_event": lambda process: process.next_event(),
    "events": lambda process: anext(process.events()),
    "output": lambda process: anext(process.output),
    "lines": lambda process: anext(process.lines()),
    "text": lambda process: anext(process.text()),
    "all of text": lambda process: anext(process.text("stdout", encoding="utf-16-le", errors="replace")),
    "stdout": lambda process: process.stdout.read(5),
    "receive_some": lambda process: process.stdout._take("receive_some", 2),
    "expect": lambda process: process.expect(b"w"),
    "expect to the end": lambda process: process.expect(b"never"),
    "expect_exact": lambda process: process.expect_exact(b"one\n"),
    "expect_list": lambda process: process.expect_list(process.compile_pattern_list([b"t", b"n"])),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("way", READERS)
def test_what_was_read_is_read_by_the_next(way: str) -> None:
    async def test(client: Client) -> None:
        async with client.start(["printf", "one\ntwo\nthree\n"]) as process:
            for _ in range(2):
                await cancelled_late(READERS[way](process))
            assert (process.after, process.match, process.match_index) == (None, None, None)
            assert (await process.communicate()).stdout == b"one\ntwo\nthree\n"

    with_client(test)


def test_both_streams_are_given_back() -> None:
    async def test(client: Client) -> None:
        async with client.start(["sh", "-c", "printf 'one\ntwo\n' >&2; printf 'three\nfour\n'"]) as process:
            await process.wait()
            assert await anext(process.lines("stderr")) == "one"
            for _ in range(2):
                await cancelled_late(process.expect(b"r\n"))
                await cancelled_late(anext(process.lines()))
            result = await process.communicate()
            assert (result.stdout, result.stderr) == (b"three\nfour\n", b"two\n")

    with_client(test)


def test_no_event_is_lost() -> None:
    async def test(client: Client) -> None:
        async with client.start(["echo"]) as process:
            found: list[Any] = []
            for _ in range(3):
                await cancelled_late(process.next_event())
                found.append(await process.next_event())
            assert [type(event) for event in found] == [Chunk, Exited, Closed]

    with_client(test)


def test_a_match_leaves_all_as_it_was() -> None:
    async def test(client: Client) -> None:
        async with client.start(["printf", "aé1 bé2 c"], text=True) as process:
            assert await process.expect(r"\d") == 0
            await cancelled_late(process.expect(r"\d"))
            assert (process.before, process.after) == ("aé", None)
            assert await process.expect_exact("é") == 0
            assert (process.before, process.after) == (" b", "é")

    with_client(test)


def test_files_and_results_come_once_each(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()

    async def test(client: Client) -> None:
        home = client.files.path(tmp_path)
        async with client.files.watch(tmp_path) as changes:
            (tmp_path / "d").touch()
            await cancelled_late(anext(changes))
            assert (await anext(changes)).path == f"{tmp_path}/d"
        paths = home.iterdir()
        await cancelled_late(anext(paths))
        found = [await anext(paths)]
        await cancelled_late(anext(paths))
        found += [path async for path in paths]
        assert sorted(path.name for path in found) == ["a", "b", "c", "d"]
        results = client.map((["echo", str(n)] for n in range(3)), text=True)
        await cancelled_late(anext(results))
        assert sorted([result.stdout async for result in results]) == ["0\n", "1\n", "2\n"]
        results = client.map([["nonexistent"]], text=True)
        await cancelled_late(anext(results))
        with pytest.raises(execsrv.CommandError, match="nonexistent"):
            await anext(results)

    with_client(test)


async def test_nobody_who_comes_is_missed() -> None:
    presence = Presence()
    for happened in ("joined", "left"):
        presence.tell(ConnectionPresence("c", happened, None))
    await undone_late(partial(anext, presence))
    assert [(await anext(presence)).happened for _ in range(2)] == ["joined", "left"]


# -- agents --


def test_a_command_whose_answer_nobody_had_is_ended() -> None:
    mark = new_mark()

    async def test(client: Client) -> None:
        async with execsrv.asyncio.agents.open_tools(client) as tools:
            command = ["bash", "-c", f"exec -a {mark} sleep 1000"]
            await cancelled_late(tools.exec_command(command, yield_time_ms=1))
            while marked(mark):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            arguments = {"cmd": command, "yield_time_ms": 1}
            await cancelled_late(execsrv.asyncio.agents.call(tools, "exec_command", arguments))
            while marked(mark):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    with_client(test)


def test_an_answer_that_nobody_had_is_the_next() -> None:
    async def test(client: Client) -> None:
        async with execsrv.asyncio.agents.open_tools(client) as tools:
            began = await tools.exec_command("cat", tty=True, yield_time_ms=1)
            number = began.session_id
            await cancelled_late(tools.write_stdin(number, "one\n", until="one\r\none\r\n", yield_time_ms=LONG))
            await cancelled_late(tools.write_stdin(number, "two\n", until="two\r\ntwo\r\n", yield_time_ms=LONG))
            answer = await tools.write_stdin(number, yield_time_ms=1)
            assert (answer.offset, answer.output.split()) == (0, ["one", "one", "two", "two"])
            await tools.write_stdin(number, "\4", yield_time_ms=LONG)
            await cancelled_late(tools.kill_session(number))
            assert (await tools.write_stdin(number)).state == "ended"

    with_client(test)


# -- plain code --


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have a signal interrupt this thread when a call is over, and before it hears of that, while the event is set."""
    late, me = threading.Event(), threading.get_ident()

    class Interrupted(Call):
        def _end(self) -> None:
            ring = self._ring

            def ring_late() -> None:
                if late.is_set():
                    signal.pthread_kill(me, signal.SIGALRM)
                ring()

            self._ring = ring_late
            super()._end()

    def give_up(*_: object) -> None:
        late.clear()
        raise TimeoutError

    monkeypatch.setattr(blocking, "Call", Interrupted)
    before = signal.signal(signal.SIGALRM, give_up)
    yield late
    signal.signal(signal.SIGALRM, before)


def test_an_interrupt_that_comes_late_does_the_same(interrupts: threading.Event, tmp_path: Path) -> None:
    def interrupted(call: Callable[[], object]) -> None:
        interrupts.set()
        with pytest.raises(TimeoutError):
            call()

    with assert_no_strays(), execsrv.sync.launch() as client, client.start(["cat"], stdin=True) as process:
        interrupted(partial(process.wait_for, idle=0.01))
        process.write(b"one\ntwo\nthree\n")
        process.close_stdin()
        assert process.wait_for(exit=True).kind == "exit"
        lines = process.lines()
        assert next(lines) == "one"
        interrupted(partial(next, lines))
        interrupted(partial(process.expect, b"e\n"))
        interrupted(process.next_event)
        interrupted(partial(process.stdout.readline))
        assert process.stdout.read() == b"two\nthree\n"
        assert process.communicate().stdout == b""
        (tmp_path / "a").touch()
        walk = client.files.walk(tmp_path)
        interrupted(partial(next, walk))
        assert [found.path for found in walk] == [f"{tmp_path}/a"]
