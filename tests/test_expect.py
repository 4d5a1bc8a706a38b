"""Dialogue: `expect` and its like find what pexpect would, in whatever pieces output comes, and leave the rest."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pexpect
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pexpect.expect import searcher_re, searcher_string

import execsrv
from execsrv import ClientConfig, InvalidParamsError, OutputTruncatedError
from execsrv.client.patterns import Search
from tests.conftest import Server
from tests.peers import PATIENCE

REPL = [sys.executable, "-q", "-i"]
PLAIN = {"TERM": "dumb", "PYTHON_BASIC_REPL": "1"}

# -- searching, without a process --


def pieces(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def outcome(searcher: Any, parts: list[str], window: int | None = None) -> tuple[int, int, int] | None:
    search = Search("", searcher, window)
    for part in parts:
        if (found := search.add(part)) is not None:
            return found
    return search.search_all()


WORDS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=3)


@given(st.text("ab", max_size=60), WORDS, st.lists(st.integers(0)))
def test_a_string_is_found_at_the_first_piece_that_has_it(text: str, words: list[str], cuts: list[int]) -> None:
    seen, expected = "", None
    for part in pieces(text, cuts):
        seen += part
        at = [(seen.find(word), index) for index, word in enumerate(words) if word in seen]
        if at:
            start, index = min(at)
            expected = index, start, start + len(words[index])
            break
    assert outcome(searcher_string(words), pieces(text, cuts)) == expected


def test_an_expression_is_found_however_far_back_it_begins() -> None:
    searcher = searcher_re([re.compile("begin.*end", re.DOTALL), re.compile("other")])
    text = "x" * 5000 + "begin" + "y" * 300_000 + "end" + "z" * 1000
    expected = 0, 5000, 5000 + 5 + 300_000 + 3
    for size in (300, 4096, 65536, len(text)):
        assert outcome(searcher, [text[at : at + size] for at in range(0, len(text), size)]) == expected
    near = "x" * 100_000 + "begin end"
    assert outcome(searcher, [near[at : at + 1000] for at in range(0, len(near), 1000)]) == (0, 100_000, 100_009)


def test_a_window_bounds_how_far_back_a_match_begins() -> None:
    searcher = searcher_re([re.compile("begin.*end")])
    assert outcome(searcher, ["begin", "y" * 50, "end"], window=20) is None
    assert outcome(searcher, ["x" * 50 + "begin", "yy", "end"], window=20) == (0, 50, 60)


# -- with processes --


async def test_a_dialogue_with_a_python(server: Server) -> None:
    client = await server.client()
    async with client.start(REPL, tty=True, env_add=PLAIN) as process:
        assert await process.expect([r">>> ", execsrv.EOF, execsrv.TIMEOUT], timeout=PATIENCE) == 0
        await process.sendline("6 * 7")
        assert await process.expect([b"no", rb"(\d)(\d)\r\n"]) == 1
        assert (process.before, process.after, process.match.groups()) == (b"6 * 7\r\n", b"42\r\n", (b"4", b"2"))
        assert process.match_index == 1
        await process.expect_exact(">>> ")
        # An interrupt just before it sleeps is noticed when it wakes, so it sleeps for short times.
        await process.sendline("import time; [time.sleep(0.01) for _ in iter(int, 1)]")
        await process.expect_exact(b"1)]\r\n")
        await process.sendcontrol("c")
        await process.expect("KeyboardInterrupt\r\n>>> ")
        await process.sendline("while True: pass")
        assert await process.expect(["nothing like it", execsrv.TIMEOUT], timeout=0.05) == 1
        assert process.after is process.match is execsrv.TIMEOUT
        await process.sendintr()
        await process.expect("KeyboardInterrupt")
        await process.expect(">>> ")
        await process.sendeof()
        assert await process.expect([">>> ", execsrv.EOF]) == 1
        assert await process.expect(execsrv.EOF) == 0  # and again


async def test_a_dialogue_over_pipes_leaves_the_rest_to_others(server: Server) -> None:
    client = await server.client()
    script = 'echo one; echo three; read x; echo two >&2; read x; echo "got $x"; '
    script += "printf 'last \\303\\274'; exec sleep 1000"
    async with client.start(["sh", "-c", script], stdin=True, encoding="utf-8") as process:
        with trio.fail_after(PATIENCE):
            assert await process.expect_exact("one") == 0
            lines = process.lines("stdout")
            assert [await anext(lines), await anext(lines)] == ["", "three"]
            await process.sendline()
            assert await process.expect("t(wo)\n") == 0
            assert process.match[1] == "wo"
            assert await process.sendline("ü") == 3
            assert await process.expect("got (.)\n") == 0
            assert process.match[1] == "ü"
            assert await process.expect("l..t ") == 0
            assert await anext(process.text()) == "ü"
            with pytest.raises(execsrv.TIMEOUT):
                await process.expect("more", timeout=0)


async def test_a_character_is_whole_wherever_the_output_is_cut(server: Server) -> None:
    client = await server.client()
    script = "printf 'a\\303'; read x; printf '\\274b\\303'; read x; printf '\\266c'"
    async with client.start(["sh", "-c", script], stdin=True, encoding="utf-8") as process:
        with trio.fail_after(PATIENCE):
            await process.expect("a")
            with pytest.raises(execsrv.TIMEOUT):
                await process.expect(".", timeout=0.05)
            await process.sendline()
            await process.expect(".b")
            assert process.after == "üb"
            await process.sendline()
            await process.expect(execsrv.EOF)
            assert process.before == "öc"


async def test_a_timeout_and_a_cancel_lose_nothing(server: Server) -> None:
    client = await server.client()
    async with client.start(["sh", "-c", "printf 'one two '; read x; printf three"], stdin=True) as process:
        with trio.fail_after(PATIENCE):
            await process.wait_for(output=b"two ")
            assert await process.expect([b"three", execsrv.TIMEOUT], timeout=0) == 1
            assert process.before == b"one two "
            with trio.move_on_after(0.05) as scope:
                await process.expect("three")
            assert scope.cancelled_caught
            await process.sendline()
            await process.expect_exact("three")
            assert process.before == b"one two "


@pytest.mark.parametrize("pattern", ["", "x*", ".*"])
async def test_nothing_at_all_is_a_match_for_some(pattern: str) -> None:
    async with execsrv.connect_in_process() as client, client.start(["cat"], stdin=True, text=True) as process:
        with trio.fail_after(PATIENCE):
            assert await process.expect(["more", pattern], timeout=None) == 1
            assert (process.before, process.after) == ("", "")
            assert await process.expect_exact(["more", ""], timeout=None) == 1
            await process.sendline("xyz")
            await process.wait_for(output="z")
            assert await process.expect(pattern) == 0
            assert process.after == {"": "", "x*": "x", ".*": "xyz\n"}[pattern]


async def test_bytes_without_a_character_are_there_after_a_timeout(server: Server) -> None:
    client = await server.client()
    async with client.start(["printf", r"\377\376"], encoding="ascii", errors="ignore") as process:
        with trio.fail_after(PATIENCE):
            await process.wait_for(output=b"\xfe")
            assert await process.expect(["more", execsrv.TIMEOUT], timeout=0) == 1
            assert await process.stdout.receive_some() == b"\xff\xfe"


async def test_what_nobody_has_read_is_in_the_buffer_and_stays_there(server: Server) -> None:
    client = await server.client()
    script = "printf 'one two three'; read x; printf ' f\\303'; read x; printf '\\274nf'"
    async with client.start(["sh", "-c", script], stdin=True, encoding="utf-8") as process:
        with trio.fail_after(PATIENCE):
            await process.expect_exact("three")
            assert process.buffer == ""
            await process.sendline()
            patterns = process.compile_pattern_list([" f", execsrv.EOF])
            assert await process.expect_list(patterns) == 0
            assert process.buffer == ""  # the first byte of a character
            await process.sendline()
            await process.wait_for(exit=True)
            assert await process.expect_exact("ü") == 0
            assert process.buffer == process.buffer == "nf"
            assert await process.expect_list(patterns, timeout=PATIENCE) == 1
            assert (process.before, process.buffer) == ("nf", "")
    async with client.start(["printf", "12345"]) as process:
        assert await process.expect("1") == 0
        assert await process.stdout.receive_some(1) == b"2"
        assert process.buffer == b"345"
        with pytest.raises(execsrv.TIMEOUT):
            await process.expect("6", timeout=0)
        assert process.buffer == b"345"


async def test_what_has_arrived_is_searched_in_one_piece(server: Server) -> None:
    client = await server.client()
    script = "for part in Pass 'word: 12' 34 '\\377'; do printf \"$part\"; read x; done"
    async with client.start(["sh", "-c", script], stdin=True, text=True) as process:
        with trio.fail_after(PATIENCE):
            for part in (b"Pass", b": 12", b"34"):
                await process.wait_for(output=part)
                await process.sendline()
            await process.wait_for(output=b"\xff")
            assert await process.expect_exact(["Password", "Pass"], timeout=0) == 0
            assert await process.expect([r"\d+", "word"], timeout=0) == 0
            assert process.after == "1234"
            with pytest.raises(UnicodeDecodeError):  # only now
                await process.expect("more")


async def test_all_that_has_arrived_is_searched_without_a_wait(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=8 << 20))
    script = "head -c 3000000 /dev/zero; echo end"
    async with client.start(["sh", "-c", script]) as process:
        with trio.fail_after(PATIENCE):
            await process.wait()
            assert await process.expect_exact(["end", execsrv.TIMEOUT], timeout=0) == 0
    async with client.start(["sh", "-c", script]) as process:
        with trio.fail_after(PATIENCE):
            await process.wait()
            assert await process.expect([".+", execsrv.TIMEOUT], timeout=0) == 0
            assert (len(process.after), process.buffer) == (3_000_004, b"")


async def test_a_long_match_is_found_in_a_silence(server: Server) -> None:
    script = "printf begin; head -c 2000000 /dev/zero; printf end; exec sleep 1000"
    async with (await server.client()).start(["sh", "-c", script]) as process:
        with trio.fail_after(PATIENCE):
            assert await process.expect(rb"begin(\0+)end", timeout=None) == 0
            assert len(process.match[1]) == 2_000_000


async def test_the_buffer_ends_where_output_is_missing(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=65536))
    async with client.start(["sh", "-c", "head -c 3000000 /dev/zero; echo end"]) as process:
        with trio.fail_after(PATIENCE):
            await process.wait()
            assert process.buffer == b""
            with pytest.raises(OutputTruncatedError):
                await process.expect("end")
            await process.expect("end")
            assert process.buffer == b"\n"


async def test_what_is_missing_behind_a_match_is_told_to_the_next(server: Server) -> None:
    script = "echo found; read x; head -c 3000000 /dev/zero >&2"
    async with (await server.client()).start(["sh", "-c", script], stdin=True) as process:
        with trio.fail_after(PATIENCE):
            await process.wait_for(output="found")
            await process.sendline()
            await process.wait()
            assert await process.expect_exact("found") == 0
            with pytest.raises(OutputTruncatedError, match="bytes of stderr"):
                await process.expect(execsrv.EOF)
            await process.expect(execsrv.EOF)


async def test_what_is_given_back_keeps_its_time(server: Server) -> None:
    async with (await server.client()).start(["printf", "one two"]) as process:
        await process.expect_exact("one")
        event = await process.next_event()
        assert isinstance(event, execsrv.Chunk)
        assert event.chunk == b" two"
        assert event.at is not None


async def test_errors_tell_the_patterns_the_end_and_the_last_output(server: Server) -> None:
    client = await server.client()
    async with client.start(["sh", "-c", "echo no such host; exit 3"]) as process:
        with pytest.raises(execsrv.EOF) as end:
            await process.expect(["login: ", b"pass(word|phrase)"])
        error = end.value
        assert (error.before, error.exit_code) == (b"no such host\n", 3)
        assert error.argv == process.argv
        assert process.before == b"no such host\n"
        for word in ("login: ", "pass(word|phrase)", "no such host", "exit code 3", "printed nothing that matches"):
            assert word in str(error)
    async with client.start(["sh", "-c", "echo wait; exec sleep 1000"]) as process:
        with pytest.raises(pexpect.TIMEOUT) as late:
            await process.expect_exact(["login: "], timeout=0.2)
        assert (late.value.before, late.value.exit_code) == (b"wait\n", None)
        for word in ("login: ", "wait", "it runs", "0.2 s"):
            assert word in str(late.value)


async def test_a_terminal_without_echo_is_waited_for(server: Server) -> None:
    client = await server.client()
    ask = "import getpass; print('got', getpass.getpass('word: '))"
    async with client.start([sys.executable, "-c", ask], tty=True) as process:
        assert await process.waitnoecho(timeout=PATIENCE)
        await process.expect_exact("word: ")
        await process.sendline("secret")
        await process.expect(r"got (\w+)")
        assert process.match[1] == b"secret"
        assert b"secret" not in process.before
    async with client.start(["cat"], tty=True) as process:
        assert not await process.waitnoecho(timeout=0.05)


def scripts(spawn: Any) -> list[Callable[[], Any]]:
    return [
        lambda: spawn.expect([">>> ", pexpect.EOF]),
        lambda: spawn.sendline("'ab' * 3"),
        lambda: spawn.expect_exact(["nothing", "ababab"]),
        lambda: spawn.expect(["(?P<quote>['\"])\r\n", pexpect.TIMEOUT]),
        lambda: spawn.expect([">>> "]),
        lambda: spawn.sendline("print('x' * 3000); exit()"),
        lambda: spawn.expect(["(x+)\r\n"]),
        lambda: spawn.expect([pexpect.EOF, "more"]),
    ]


async def test_it_answers_as_pexpect_itself_does(server: Server) -> None:
    """The same script, with the real one."""
    real = pexpect.spawn(REPL[0], REPL[1:], env=PLAIN, encoding="utf-8", timeout=PATIENCE)
    real.delaybeforesend = None
    expected = []
    for step in scripts(real):
        expected.append((step(), str(real.before), str(real.after)))
    real.close()
    client = await server.client()
    async with client.start(REPL, tty=True, env=PLAIN, encoding="utf-8") as process:
        found = []
        for step in scripts(process):
            found.append((await step(), str(process.before), str(process.after)))
    assert found[2:] == expected[2:]
    assert found[0][0] == expected[0][0]


@pytest.mark.few
async def test_a_long_output_is_searched_once(server: Server) -> None:
    """The work grows with the output, not with its square."""
    client = await server.client()
    script = "head -c 30000000 /dev/zero; echo end"
    async with client.start(["sh", "-c", script]) as process:
        with trio.fail_after(PATIENCE):
            assert await process.expect_exact(b"end") == 0
            assert len(process.before) == 30_000_000
    async with client.start(["sh", "-c", script]) as process:
        with trio.fail_after(PATIENCE):
            assert await process.expect(rb"e[n]d\n") == 0
            assert len(process.before) == 30_000_000


async def test_output_that_is_missing_is_not_passed_over(server: Server) -> None:
    client = await server.client(ClientConfig(window_bytes=65536))
    async with client.start(["sh", "-c", "head -c 3000000 /dev/zero; echo end"]) as process:
        with trio.fail_after(PATIENCE):
            await process.wait()
            with pytest.raises(OutputTruncatedError):
                await process.expect("end")
            assert await process.expect("end") == 0


async def test_one_reader_at_a_time(server: Server) -> None:
    client = await server.client()
    async with client.start(["sleep", "1000"]) as process, trio.open_nursery() as nursery:
        nursery.start_soon(process.next_event)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await process.expect("x")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("call", "error", "complaint"),
    [
        (lambda process: process.expect(5), TypeError, "patterns[0] must be bytes, EOF or TIMEOUT, got int"),
        (lambda process: process.expect(["a", None]), TypeError, "patterns[1] must be"),
        (lambda process: process.expect("ü"), TypeError, "patterns[0] must be bytes or ASCII"),
        (lambda process: process.expect("("), InvalidParamsError, "patterns[0]: missing )"),
        (lambda process: process.expect_exact([re.compile("a")]), TypeError, "patterns[0] must be bytes"),
        (lambda process: process.expect("a", timeout="soon"), InvalidParamsError, "timeout must be a number"),
        (lambda process: process.expect("a", searchwindowsize=0), InvalidParamsError, "searchwindowsize must be"),
        (lambda process: process.sendcontrol("ctrl-c"), InvalidParamsError, "key must be a letter or one of"),
    ],
)
async def test_what_is_no_pattern(call: Callable[[Any], Any], error: type[Exception], complaint: str) -> None:
    async with execsrv.connect_in_process() as client, client.start(["sleep", "1000"]) as process:
        with pytest.raises(error, match=re.escape(complaint)):
            await call(process)


def test_nothing_of_it_is_loaded_before_it_is_used() -> None:
    code = "import execsrv, sys; execsrv.Client; assert not {'pexpect', 'pyte'} & set(sys.modules); execsrv.EOF"
    code += "; import pexpect; assert execsrv.EOF is pexpect.EOF and execsrv.TIMEOUT is pexpect.TIMEOUT"
    subprocess.run([sys.executable, "-c", code], check=True)
