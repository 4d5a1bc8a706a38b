"""The tools of agents: windows of time, text for a model, bookkeeping, and the functions that models call."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

import execsrv
import execsrv.asyncio.agents
import execsrv.sync.agents
from execsrv._log.head_tail import HeadTail
from execsrv.agents import (
    AgentEvent,
    Began,
    Ended,
    Output,
    Tools,
    ToolSettings,
    Typed,
    UnknownSessionError,
    call,
    definitions,
    open_tools,
)
from execsrv.agents.bookkeeping import Book
from execsrv.agents.cleaning import Cleaner, shortened
from execsrv.agents.functions import FUNCTIONS, Style
from execsrv.client.parameters import WRITE_BYTES
from execsrv.errors import (
    ConnectionLostError,
    InvalidParamsError,
    LimitExceededError,
    ProcessEndedError,
    SpawnError,
    StdinClosedError,
    WaitTimeoutError,
)
from execsrv.testing import assert_no_strays
from tests.confined import needs_confinement
from tests.conftest import Daemon, Server
from tests.peers import PATIENCE
from tests.processes import marked, new_mark, until_gone, until_marked
from tests.test_starts import leased, script

LONG = 50_000
"""A window that is over only when what is waited for has happened."""

# -- text --


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x1b[31mred\x1b[0m \x1b[1;32;48;5;7mbold\x1b[m", "red bold"),
        (b"a\r\nb\rc\n\r\n", "a\nb\nc\n\n"),
        (b"\x1b]0;a title\x07text\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\.", "textlink."),
        (b"\x1bPsixel\x1b\\\x1b_apc\x1b\\\x1b(B\x1b7\x1b=x\x1b#8", "x"),
        (b"a\x08\x00\x07b\tc", "ab\tc"),
        (b"\x1b[" + b"1;" * 200 + b"m", "1;" * 200 + "m"),
        (b"unfinished\x1b[3", "unfinished"),
        (b"unfinished \x1b]0;not hidden", "unfinished 0;not hidden"),
        (b"\x1b]0;no end\nFAILED\x07 \x1bPq" + b"x" * 4097 + b"\x1b\\", "0;no end\nFAILED q" + "x" * 4097),
        (b"\x1b]0;\x1b[31mFAILED\x1b_\x1b[0m\x1b\\", "0;FAILED"),
        (b"\x1b\x1b[31m]0;a", "]0;a"),
        ("π ∞ 🐍".encode(), "π ∞ 🐍"),
        (b"\xff\xf0\x9f", "\ufffd\ufffd"),
    ],
)
def test_controls_are_left_out(data: bytes, text: str) -> None:
    assert Cleaner(strip=True).clean(data, final=True) == text


def test_controls_are_kept_where_that_is_asked_for() -> None:
    assert Cleaner(strip=False).clean(b"\x1b[31mred\r\n", final=True) == "\x1b[31mred\r\n"


PIECES = st.sampled_from(
    ["\x1b", "[", "]", "P", "3", ";", "m", "\x07", "\\", "\r", "\n", "a", "é", "🐍", "(", "B", "\x00", "\x18", " ", "X"]
)


@given(st.lists(PIECES, max_size=30), st.lists(st.integers(0, 80), max_size=8), st.booleans())
def test_text_does_not_depend_on_the_pieces(parts: list[str], cuts: list[int], strip: bool) -> None:
    data = "".join(parts).encode()
    places = sorted(min(cut, len(data)) for cut in cuts)
    cleaner = Cleaner(strip)
    pieces = [cleaner.clean(data[a:b]) for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    whole = Cleaner(strip).clean(data, final=True)
    assert "".join(pieces) + cleaner.clean(b"", final=True) == whole
    if strip:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", whole)


@given(st.text("aé🐍\n", max_size=60), st.integers(0, 60), st.integers(1, 300))
@example("éééé", 3, 3)
def test_what_is_left_out_is_counted_exactly(text: str, most: int, kept_bytes: int) -> None:
    data, kept, most = text.encode(), HeadTail(kept_bytes), min(most, kept_bytes)
    kept.append(data)
    told, missing = shortened(kept.head, kept.tail, kept.omitted_bytes, most)
    if len(data) <= most:
        assert (told, missing) == (text, 0)
        return
    match = re.fullmatch(r"(.*)\n\[\.\.\. (\d+) bytes of output left out \.\.\.\]\n(.*)", told, re.DOTALL)
    assert match is not None
    head, said, tail = match.groups()
    assert int(said) == missing
    assert len((head + tail).encode()) <= most
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len((head + tail).encode()) + missing == len(data)


# -- windows --


async def until_said(tools: Tools, text: str, session: int = 1) -> None:
    """Wait until a session has printed this, whichever answer had it."""
    while text not in tools.read_output(session).output:
        await tools.write_stdin(session, until=text, yield_time_ms=LONG)


async def test_a_command_that_ends_is_answered_whole(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        answer = await tools.exec_command("echo out; echo err >&2; exit 3", yield_time_ms=LONG)
        assert (answer.output, answer.exit_code, answer.reason, answer.state) == ("out\nerr\n", 3, "exited", "ended")
        assert (answer.output_bytes, answer.omitted_bytes, answer.signal) == (8, 0, None)
        assert re.fullmatch(r"Wall time: [\d.]+ seconds\nProcess exited with code 3\nOutput:\nout\nerr\n", str(answer))


async def test_a_command_goes_on_between_calls(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        script = "printf 'Go on? '; read answer; echo you said $answer; read rest; exit 4"
        asked = await tools.exec_command(script, tty=True, yield_time_ms=0)
        assert (asked.state, asked.exit_code) == ("running", None)
        assert str(asked).splitlines()[1].startswith("Process running with session ID 1")
        if not asked.output:
            asked = await tools.write_stdin(asked.session_id, until="Go on? ", yield_time_ms=LONG)
        assert asked.output == "Go on? "
        said = await tools.write_stdin(1, "yes\n", until="you said yes\n", yield_time_ms=LONG)
        assert said.output == "yes\nyou said yes\n"
        assert said.offset == len("Go on? ")
        over = await tools.write_stdin(1, "\x04", yield_time_ms=LONG)
        assert (over.output, over.exit_code) == ("", 4)
        with pytest.raises(ProcessEndedError, match="has ended, as session ID 1"):
            await tools.write_stdin(1, "more\n")
        assert (await tools.write_stdin(1)).exit_code == 4  # but one may look again


async def test_a_window_ends_when_the_command_waits_for_input(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        asked = await tools.exec_command("read -p 'Name? ' x; read -p \"Age of $x? \" y", tty=True, yield_time_ms=LONG)
        assert asked.output == "Name? "
        assert asked.waiting is not None
        assert (asked.waiting.name, asked.waiting.call, asked.waiting.descriptor) == ("bash", "read", 0)
        assert "session ID 1, waiting for input: bash (pid" in str(asked)
        asked = await tools.write_stdin(1, "me\n", yield_time_ms=LONG)  # not as it stood when that was typed
        assert asked.output == "me\nAge of me? "
        assert asked.waiting is not None
        over = await tools.write_stdin(1, "9\n", yield_time_ms=LONG)
        assert (over.exit_code, over.waiting) == (0, None)


async def test_a_question_is_not_hidden_by_a_title_that_does_not_end(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        asked = await tools.exec_command(r"printf '\033]0;Go on? '; read x", tty=True, yield_time_ms=LONG)
        assert asked.waiting is not None
        assert asked.output == "0;Go on? "


async def test_a_title_that_does_not_end_hides_no_longer_than_a_window() -> None:
    async with execsrv.connect_in_process() as client, open_tools(client) as tools:
        await tools.exec_command(r"printf '\033]0;so far'; exec sleep 1000", yield_time_ms=0)
        while "so far" not in tools.read_output(1).output:
            await tools.write_stdin(1, yield_time_ms=10)


async def test_a_cancelled_look_loses_nothing(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        await tools.exec_command("cat", tty=True, yield_time_ms=0)
        with trio.CancelScope() as scope:
            scope.cancel()
            await tools.write_stdin(1, yield_time_ms=LONG)
        assert scope.cancelled_caught
        answer = await tools.write_stdin(1, "a line\n", until="a line\na line\n", yield_time_ms=LONG)
        assert answer.output == "a line\na line\n"


@pytest.mark.parametrize("tty", [False, True])
async def test_a_cancelled_start_ends_its_command(server: Server, tty: bool) -> None:
    mark = new_mark()
    async with open_tools(await server.client()) as tools:
        start = partial(tools.exec_command, ["bash", "-c", f"exec -a {mark} sleep 1000"], tty=tty, yield_time_ms=LONG)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start)
                await until_marked(mark, 1)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await until_gone(mark)


async def test_leaving_ends_everything(server: Server) -> None:
    mark = new_mark()
    async with open_tools(await server.client()) as tools:
        await tools.exec_command(f"setsid bash -c 'exec -a {mark} sleep 1000' & echo; sleep 1000", yield_time_ms=0)
        await until_marked(mark, 1)
    await until_gone(mark)
    with pytest.raises(trio.ClosedResourceError, match="the block of the tools was left"):
        await tools.exec_command("true")


async def test_a_full_command_does_not_wait_for_an_agent_that_looks_away(server: Server) -> None:
    settings = ToolSettings(retained_bytes=1000, most_output_bytes=2000)
    async with open_tools(await server.client(), settings) as tools:
        answer = await tools.exec_command(["seq", "300000"], yield_time_ms=LONG, max_output_bytes=10**9)
        assert (answer.exit_code, answer.output_bytes) == (0, 1_988_895)
        assert answer.output.startswith("1\n2\n3\n")
        assert answer.output.endswith("299999\n300000\n")
        match = re.search(r"\n\[\.\.\. (\d+) bytes of output left out \.\.\.\]\n", answer.output)
        assert match is not None
        assert int(match[1]) == answer.omitted_bytes == 1_988_895 - (len(answer.output) - len(match[0]))
        assert "read_output of session ID 1 from offset 0" in str(answer)
        piece = tools.read_output(1)
        assert (piece.offset, piece.forgotten_bytes, piece.next_offset) == (1_987_895, 1_987_895, 1_988_895)
        assert piece.output.endswith("300000\n")
        assert tools.read_output(1, -7).output == "300000\n"
        assert tools.read_output(1, 1_988_895 - 7, max_output_bytes=3).output == "300"


async def test_output_is_read_again_by_whole_characters(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        await tools.exec_command("printf 'aπ🐍'", yield_time_ms=LONG)
        for most in (4, 1):
            read, at = "", 0
            while at < 7:
                piece = tools.read_output(1, at, max_output_bytes=most)
                assert piece.next_offset > at
                read, at = read + piece.output, piece.next_offset
            assert read == "aπ🐍"
        within = tools.read_output(1, 2)  # the second letter
        assert (within.output, within.offset, within.forgotten_bytes) == ("🐍", 3, 0)


async def test_what_lives_on_is_told_and_ended(server: Server) -> None:
    mark = new_mark()
    async with open_tools(await server.client()) as tools:
        script = f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 & echo up"
        answer = await tools.exec_command(["bash", "-c", script], yield_time_ms=LONG)
        assert (answer.state, answer.exit_code, answer.output) == ("background", 0, "up\n")
        assert len(answer.background) == 1
        assert f"session ID 1 goes on: {answer.background[0].name} (pid" in str(answer)
        await until_marked(mark, 1)
        over = await tools.kill_session(1)
        assert (over.state, over.exit_code, over.background) == ("ended", 0, [])
        await until_gone(mark)
        held = await tools.exec_command("echo two; sleep 1000 & ", yield_time_ms=LONG)  # which holds the stream
        assert (held.state, held.exit_code, held.output) == ("background", 0, "two\n")
        assert "something still holds its output" in str(held)


async def test_killing_tells_the_last_words(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        script = (
            "import signal, sys; signal.signal(15, lambda *_: sys.exit(print('bye') or 7)); print('ready', flush=True)"
        )
        await tools.exec_command([sys.executable, "-c", f"{script}; signal.pause()"], yield_time_ms=0)
        await until_said(tools, "ready\n")
        over = await tools.kill_session(1, grace=PATIENCE)
        assert (over.output, over.exit_code, over.reason) == ("bye\n", 7, "terminated")
        assert "ended by the server: terminated" in str(over)
        assert (await tools.kill_session(1)).exit_code == 7


async def test_a_limit_that_has_ended_a_command_is_said(server: Server, tmp_path: Path) -> None:
    async with open_tools(await server.client(), limits=execsrv.ProcessLimits(file_bytes=1000)) as tools:
        answer = await tools.exec_command(f"exec yes >{tmp_path}/big", yield_time_ms=LONG)
        assert "code 153 (SIGXFSZ), ended by its limit of the length of files" in str(answer)


async def test_keys_are_signals_where_there_is_no_terminal(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        await tools.exec_command("echo ready; exec sleep 1000", yield_time_ms=0)
        await until_said(tools, "ready")
        with pytest.raises(StdinClosedError, match="start it again with tty=true"):
            await tools.write_stdin(1, "text")
        over = await tools.write_stdin(1, "\x03", yield_time_ms=LONG)
        assert (over.exit_code, over.signal) == (130, "SIGINT")


async def test_what_is_typed_arrives_however_short_the_window_is(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        await tools.exec_command("read x; echo got $x; sleep 1000", tty=True, yield_time_ms=0)
        await tools.write_stdin(1, "yes\n", yield_time_ms=0)
        await until_said(tools, "got yes")
        await tools.exec_command("trap 'exit 4' INT; echo ready; while :; do sleep 0.01; done", yield_time_ms=0)
        await until_said(tools, "ready", 2)
        await tools.write_stdin(2, "\x03", yield_time_ms=0)
        assert (await tools.write_stdin(2, yield_time_ms=LONG)).exit_code == 4


async def test_what_is_not_typed_is_said() -> None:
    much = "x" * (WRITE_BYTES + 1)
    async with execsrv.connect_in_process() as client, open_tools(client) as tools:
        await tools.exec_command("stty raw -echo; echo ready; sleep 1000", tty=True, yield_time_ms=0)
        await until_said(tools, "ready")
        with pytest.raises(WaitTimeoutError, match=f"of {len(much)} bytes for session ID 1 the first {WRITE_BYTES}"):
            await tools.write_stdin(1, much)
        with pytest.raises(WaitTimeoutError, match="the first 0 are on their way"):
            await tools.write_stdin(1, "more")


async def test_the_server_keeps_the_timeout(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        answer = await tools.exec_command("echo so far; exec sleep 1000", timeout=1, yield_time_ms=LONG)
        assert (answer.output, answer.exit_code, answer.reason) == ("so far\n", 143, "timeout")


async def test_a_start_that_fails_leaves_no_session(server: Server) -> None:
    async with open_tools(await server.client(), cwd="/") as tools:
        with pytest.raises(SpawnError, match="nothing-of-the-kind"):
            await tools.exec_command(["nothing-of-the-kind"])
        with pytest.raises(SpawnError):
            await tools.exec_command("true", cwd="/nowhere")
        with pytest.raises(InvalidParamsError, match="cmd must not be empty"):
            await tools.exec_command("  ")
        assert tools.list_sessions().sessions == []
        answer = await tools.exec_command("pwd; echo $A", cwd="tmp", env={"A": "1"}, yield_time_ms=LONG)
        assert answer.output == "/tmp\n1\n"


async def test_a_start_that_hangs_is_given_up_with_its_window(tmp_path: Path) -> None:
    program, settings = script(tmp_path / "program", "echo ran"), ToolSettings(exec_yield_ms=100)
    async with execsrv.connect_in_process() as client, open_tools(client, settings) as tools:
        with leased(program), pytest.raises(SpawnError, match=r"given up, as it had not begun within 0\.1 s"):
            await tools.exec_command([str(program)], yield_time_ms=0)
        assert tools.list_sessions().sessions == []
        assert (await tools.exec_command([str(program)], yield_time_ms=LONG)).output == "ran\n"


async def test_a_screen_is_seen(server: Server) -> None:
    pytest.importorskip("pyte", reason="needs execsrv[screen]")
    async with open_tools(await server.client(), size=(5, 20)) as tools:
        await tools.exec_command(r"printf '\033[2J\033[3;5Hhere'; read x", tty=True, yield_time_ms=0)
        await until_said(tools, "here")
        picture = await tools.read_screen(1)
        assert (picture.screen, picture.cursor, picture.size) == ("\n\n    here", (2, 8), (5, 20))
        await tools.write_stdin(1, "\n", yield_time_ms=LONG)
        with pytest.raises(ProcessEndedError, match="and its screen with it"):
            await tools.read_screen(1)


# -- bookkeeping --


async def test_the_oldest_that_has_ended_is_forgotten_first_and_its_end_is_not() -> None:
    settings = ToolSettings(max_sessions=3, remembered_ends=2)
    async with execsrv.connect_in_process() as client, open_tools(client, settings) as tools:
        await tools.exec_command("exec sleep 1000", yield_time_ms=0)
        for code in (11, 12, 13):
            await tools.exec_command(f"exit {code}", yield_time_ms=LONG)
        assert [session.session_id for session in tools.list_sessions().sessions] == [1, 3, 4]
        with pytest.raises(UnknownSessionError, match=r"ID 2 is no longer known. Process exited with code 11$"):
            tools.read_output(2)
        for _ in range(2):
            await tools.exec_command("exec sleep 1000", yield_time_ms=0)
        with pytest.raises(LimitExceededError, match="3 go on, as many as max_sessions allows") as refused:
            await tools.exec_command("true")
        assert refused.value.facts["limit"] == "max_sessions"
        with pytest.raises(UnknownSessionError, match=r"there is no session ID 2; known are 1, 5, 6"):
            await tools.kill_session(2)
        assert "session ID 5: `exec sleep 1000`" in str(tools.list_sessions())
        await tools.kill_session(5)
        assert "ended by the server: terminated in session ID 5: `exec sleep 1000`" in str(tools.list_sessions())


async def test_a_command_that_is_starting_is_counted_once() -> None:
    async with execsrv.connect_in_process() as client, open_tools(client) as tools:
        await tools.exec_command("exec sleep 1000", yield_time_ms=0)
        book = Book(2, 1)
        with book.room() as number:
            book.sessions[number] = tools._book.session(1)
            with book.room(), pytest.raises(LimitExceededError), book.room():
                pass


async def test_a_list_is_no_longer_than_a_model_can_be_given() -> None:
    async with execsrv.connect_in_process() as client, open_tools(client, ToolSettings(max_sessions=110)) as tools:
        for number in range(105):
            await tools.exec_command(["true", str(number), "x" * 100_000], yield_time_ms=0)
        await tools.exec_command("true\n\x1b[2Jdone with session ID 999", yield_time_ms=LONG)
        first, *lines = str(tools.list_sessions()).splitlines()
        assert first == "6 older sessions are not shown."
        assert len(lines) == 100
        assert max(map(len, lines)) < 400
        assert ": `true\\n\\x1b[2Jdone with session ID 999` (" in lines[-1]


async def test_a_lost_server_is_told_of(daemon: Daemon) -> None:
    client = await daemon.client()
    async with open_tools(client) as tools:
        await tools.exec_command("echo before; exec sleep 1000", yield_time_ms=0)
        await until_said(tools, "before")
        os.kill(daemon.pid, signal.SIGKILL)
        with pytest.raises(ConnectionLostError), trio.fail_after(PATIENCE):
            await tools.write_stdin(1, yield_time_ms=LONG)
        assert tools.read_output(1).output == "before\n"
        assert "Connection to the server lost" in str(tools.list_sessions())


async def test_events_tell_a_ui_what_happens(server: Server) -> None:
    events: list[AgentEvent] = []
    async with open_tools(await server.client(), on_event=events.append) as tools:
        await tools.exec_command("printf '\\033[1mbold'; read x; exit 3", tty=True, yield_time_ms=0)
        await until_said(tools, "bold")
        answer = await tools.write_stdin(1, "\n", yield_time_ms=LONG)
        assert answer.exit_code == 3
    first, *rest = events
    assert isinstance(first, Began)
    assert (first.session_id, first.argv[1:], first.tty) == (1, ["-c", "printf '\\033[1mbold'; read x; exit 3"], True)
    assert [event for event in rest if isinstance(event, Typed) and event.chars] == [Typed(1, "\n")]
    assert b"".join(event.chunk for event in rest if isinstance(event, Output)) == b"\x1b[1mbold\r\n"
    last = rest[-1]
    assert isinstance(last, Ended)
    assert (last.exit_code, last.reason, last.total_bytes) == (3, "exited", 5)


async def test_a_server_without_room_for_a_look_ends_no_session() -> None:
    mark, config = new_mark(), execsrv.ServerConfig(requests_in_flight=1)
    async with (
        execsrv.connect_in_process(config=config) as client,
        open_tools(client) as tools,
        trio.open_nursery() as nursery,
    ):
        await tools.exec_command("exec sleep 1000", tty=True, yield_time_ms=0)
        nursery.start_soon(partial(tools.write_stdin, 1, until="never", yield_time_ms=LONG))  # it takes all the room
        await trio.testing.wait_all_tasks_blocked()
        script = f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 &"
        left = await tools.exec_command(["bash", "-c", script], yield_time_ms=LONG)
        assert left.state == "background"
        await tools.exec_command("echo ready; exec sleep 1000", tty=True, yield_time_ms=0)
        assert (await tools.write_stdin(3, until="ready", yield_time_ms=LONG)).state == "running"
        assert [session.state for session in tools.list_sessions().sessions] == ["running", "background", "running"]
        await tools.kill_session(1)
        assert (await tools.kill_session(2)).state == "ended"
        await until_gone(mark)


# -- functions --


@pytest.mark.parametrize("style", get_args(Style))
def test_definitions_are_schemas_of_what_is_taken(style: Style) -> None:
    for definition, name in zip(definitions(style), FUNCTIONS, strict=True):
        function = definition.get("function", definition)
        assert function["name"] == name
        assert len(function["description"]) > 20
        schema = next(function[key] for key in ("parameters", "input_schema", "inputSchema") if key in function)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert "$ref" not in str(schema)
        assert ("additionalProperties" in schema) == (style != "gemini")
    validator = jsonschema.Draft202012Validator(definitions("anthropic")[0]["input_schema"])
    assert validator.is_valid({"cmd": "true", "tty": True, "yield_time_ms": 5})
    for wrong in ({}, {"cmd": 5}, {"cmd": "true", "yield_time_ms": -1}, {"cmd": "true", "other": 1}):
        assert not validator.is_valid(wrong)


@pytest.mark.parametrize("word", ["timeout", "id", "text", "stdin"])
async def test_what_belongs_to_one_command_is_no_word_of_all(word: str) -> None:
    async with execsrv.connect_in_process() as client:
        options: dict[str, Any] = {word: None}
        with pytest.raises(TypeError, match=f"open_tools\\(\\) takes no {word}"):
            async with open_tools(client, **options):
                pass


async def test_what_a_model_asks_for_is_done_or_refused(server: Server) -> None:
    async with open_tools(await server.client()) as tools:
        answer: Any = await call(tools, "exec_command", '{"cmd": ["cat"], "tty": true, "yield_time_ms": 0}')
        assert answer.session_id == 1
        typed = {"session_id": 1, "chars": "hm\n", "until": "hm\nhm\n", "yield_time_ms": LONG}
        answer = await call(tools, "write_stdin", typed)
        assert answer.output == "hm\nhm\n"
        piece: Any = await call(tools, "read_output", {"session_id": 1, "offset": -3})
        assert piece.output == "hm\n"
        assert "session ID 1" in str(await call(tools, "list_sessions", ""))
        assert (await call(tools, "kill_session", b'{"session_id": 1}')).state == "ended"  # type: ignore[union-attr]
        assert (
            str(await call(tools, "exec_command", {"cmd": "exec sleep 1000", "timeout_ms": 1000})).count("timeout") == 1
        )
        for name, arguments, complaint in [
            ("shell", "{}", "there is no function 'shell'; there are exec_command, write_stdin,"),
            ("exec_command", "{}", "exec_command: Object missing required field `cmd`"),
            ("exec_command", '{"cmd": "true", "cwd": "/"}', "exec_command: Object contains unknown field `cwd`"),
            ("exec_command", "{}", "field `cmd`; its arguments are cmd (required), workdir, env, tty,"),
            ("list_sessions", '{"all": true}', "unknown field `all`; it takes no arguments"),
            ("exec_command", "ls -l", "the arguments must be one JSON object"),
            ("exec_command", "{", "exec_command: Input data was truncated"),
            ("exec_command", {"cmd": "true", "timeout_ms": 10**400}, "exec_command: Expected `int` <= 9007199254"),
            ("write_stdin", {"session_id": "1"}, "write_stdin: Expected `int`, got `str` - at `$.session_id`"),
        ]:
            with pytest.raises(InvalidParamsError, match=re.escape(complaint)):
                await call(tools, name, arguments)


@needs_confinement
async def test_no_call_widens_the_policy_of_the_tools(tmp_path: Path) -> None:
    casts, workspace = tmp_path / "casts", tmp_path / "workspace"
    casts.mkdir()
    workspace.mkdir()
    policy = execsrv.Policy.workspace_write(network=False)
    async with (
        execsrv.connect_in_process() as client,
        open_tools(client, cwd=str(workspace), sandbox=policy, recordings=casts) as tools,
    ):

        async def said(script: str, **options: Any) -> str:
            return (await tools.exec_command(script, yield_time_ms=LONG, **options)).output

        assert await said("echo fine > file; cat file") == "fine\n"
        elsewhere = f"/var/tmp/{new_mark()}"
        assert "Read-only file system" in await said(f"touch {elsewhere}", cwd="/var/tmp")
        with pytest.raises(InvalidParamsError, match="TMPDIR may not be set"):
            await said("true", env={"TMPDIR": "/var/tmp"})
        assert "Permission denied" in await said(f"cat {casts}/session-1.cast")
        await said(f"ln -sf /etc/shadow {casts}/session-1.cast; mv {casts} {tmp_path}/other; rm -r {casts}")
        assert not os.path.lexists(elsewhere)  # noqa: ASYNC240
        assert "fine" in (casts / "session-1.cast").read_text()


async def test_a_recording_that_cannot_be_written_ends_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "session-1.cast").symlink_to("/dev/full")
    async with execsrv.connect_in_process() as client, open_tools(client, recordings=tmp_path) as tools:
        full = await tools.exec_command("cat", tty=True, yield_time_ms=0)
        beside = await tools.exec_command("cat", tty=True, yield_time_ms=0)
        assert (await tools.kill_session(full.session_id)).state == "ended"
        assert "session ID 1 is not wholly recorded: " in caplog.text
        assert "No space left on device" in caplog.text
        said = await tools.write_stdin(beside.session_id, "goes on\n", until="goes on", yield_time_ms=LONG)
        assert (said.state, said.output[:7]) == ("running", "goes on")


# -- the example --


def test_the_whole_agent_mends_a_repository_and_leaves_nothing(tmp_path: Path) -> None:
    docs = Path(__file__).parent.parent / "docs"
    program = (docs / "agent.py").read_text()
    assert len(program.splitlines()) <= 60
    (page,) = re.findall(r"^With a repository.*?^```console\n(.*?)^```", (docs / "agents.md").read_text(), re.S | re.M)
    (tmp_path / "agent.py").write_text(program)
    (tmp_path / "tmp").mkdir()
    lines = [line.removeprefix("$ ") for line in page.splitlines() if line.startswith("$ ")]
    script = "\n".join(lines).replace("python agent.py", f"{sys.executable} ../agent.py")
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with assert_no_strays():
        done = subprocess.run(
            ["bash", "-ec", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE
        )
    log = (tmp_path / "adding" / "log").read_text()
    assert done.returncode == 0, done.stderr + log
    said = "".join(line + "\n" for line in page.splitlines() if not line.startswith("$ "))
    assert done.stdout == said
    assert "FAILED (failures=1)" in log
    assert os.listdir(tmp_path / "tmp") == []


# -- without trio --


def test_plain_code_has_the_tools() -> None:
    events: list[AgentEvent] = []
    with execsrv.sync.launch() as client, execsrv.sync.agents.open_tools(client, on_event=events.append) as tools:
        assert tools.exec_command("echo hello", yield_time_ms=LONG).output == "hello\n"
        tools.exec_command("read x; echo you said $x", tty=True, yield_time_ms=0)
        typed = {"session_id": 2, "chars": "hm\n", "yield_time_ms": LONG}
        assert execsrv.sync.agents.call(tools, "write_stdin", typed).output == "hm\nyou said hm\n"  # type: ignore[union-attr]
        assert tools.read_output(2, -3).output == "hm\n"
        assert [session.state for session in tools.list_sessions().sessions] == ["ended", "ended"]
        with pytest.raises(UnknownSessionError):
            tools.kill_session(3)
        with ThreadPoolExecutor(4) as pool:
            answers = [*pool.map(lambda number: tools.exec_command(f"echo {number}", yield_time_ms=LONG), range(8))]
        assert [answer.output for answer in answers] == [f"{number}\n" for number in range(8)]
    assert sum(isinstance(event, Ended) for event in events) == 10


def test_a_cancelled_task_of_asyncio_ends_its_command() -> None:
    mark = new_mark()

    async def main() -> None:
        async with execsrv.asyncio.launch() as client, execsrv.asyncio.agents.open_tools(client) as tools:
            script = f"exec -a {mark} sleep 1000"
            task = asyncio.create_task(tools.exec_command(["bash", "-c", script], yield_time_ms=LONG))
            while not marked(mark):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while marked(mark):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidParamsError, match="max_sessions must be a number above 0, got 0"):
        ToolSettings(max_sessions=0)
    settings = ToolSettings()
    assert settings.window(10**9, 1) == 50
    assert settings.answered_bytes(10, None) == 40
    assert settings.answered_bytes(10**9, 10**9) == settings.most_output_bytes
    with pytest.raises(InvalidParamsError, match="yield_time_ms must be a number of milliseconds, got -1"):
        settings.window(-1, 1)
