"""Wrong arguments fail in the client, in the same words for every transport, and nothing is done."""

from __future__ import annotations

import ast
import inspect
import math
import typing
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import execsrv
import execsrv.record
from execsrv.client.keywords import StartKeywords
from execsrv.client.parameters import checked
from execsrv.errors import InvalidParamsError
from execsrv.protocol import ProcessAck, ProcessWrite
from tests.conftest import Server
from tests.peers import PATIENCE

Call = Callable[[execsrv.Client, execsrv.Process], Awaitable[object]]


def start(argv: Any = ("true",), **options: Any) -> Call:
    async def call(client: execsrv.Client, process: execsrv.Process) -> None:
        async with client.start(argv, **options):
            raise AssertionError("it was started")

    return call


WRONG: dict[str, tuple[Call, str]] = {
    "resize(0, 5)": (lambda c, p: p.resize(0, 5), "Expected `int` >= 1 - at `$.rows`"),
    "resize(70000, 5)": (lambda c, p: p.resize(70000, 5), "Expected `int` <= 65535 - at `$.rows`"),
    "resize('a', 5)": (lambda c, p: p.resize("a", 5), "Expected `int`, got `str` - at `$.rows`"),  # type: ignore[arg-type]
    "target all": (
        lambda c, p: p.send_signal("CONT", "all"),  # type: ignore[arg-type]
        "Invalid enum value 'all' - at `$.target`",
    ),
    "signal 1.5": (
        lambda c, p: p.send_signal(1.5),  # type: ignore[arg-type]
        "Expected `int | str`, got `float` - at `$.signal`",
    ),
    "signal too large": (lambda c, p: p.send_signal(10**30), f"unknown signal {10**30}"),
    "signal without UTF-8": (lambda c, p: p.send_signal("\ud800"), r"signal: '\ud800' cannot be sent as UTF-8"),
    "grace nan": (lambda c, p: p.terminate(math.nan), "grace must be at least 0 s, got nan"),
    "grace negative": (lambda c, p: p.terminate(-1), "grace must be at least 0 s, got -1"),
    "grace text": (lambda c, p: p.terminate("5"), "grace must be a number of seconds, got '5'"),  # type: ignore[arg-type]
    "mode negative": (lambda c, p: c.files.change("/tmp", mode=-1), "mode must be from 0 to 0o7777, got -1"),
    "output without UTF-8": (
        lambda c, p: p.wait_for(output="\udcff"),
        r"output: 'utf-8' codec can't encode character '\udcff' in position 0: surrogates not allowed in '\udcff'",
    ),
    "huge value": (
        lambda c, p: p.send_signal("CONT", "y" * 100_000),  # type: ignore[arg-type]
        f"Invalid enum value '{'y' * 780} ... {'y' * 183}' - at `$.target`",
    ),
    "overflow x": (start(overflow="x"), "overflow must be 'block' or 'drop', got 'x'"),
    "tty yes": (start(tty="yes"), "Expected `bool`, got `str` - at `$.tty`"),
    "stdin yes": (start(stdin="yes"), "stdin must be PIPE or DEVNULL, got 'yes'"),
    "stdout 5": (start(stdout=5), "stdout must be PIPE, DEVNULL, a path or an OutputFile, got 5"),
    "stdout STDOUT": (start(stdout=execsrv.STDOUT), "stdout must be PIPE, DEVNULL, a path or an OutputFile, got -2"),
    "stderr None": (start(stderr=None), "stderr must be PIPE, DEVNULL, STDOUT, a path or an OutputFile, got None"),
    "cwd relative": (start(cwd="sub"), "cwd must be an absolute path on the server's machine, got 'sub'"),
    "stdout relative": (
        start(stdout="out.log"),
        "stdout must be an absolute path on the server's machine, got 'out.log'",
    ),
    "stderr and tty": (start(tty=True, stderr=execsrv.STDOUT), "stderr: a terminal has all of the output"),
    "encoding x": (start(encoding="x"), "unknown encoding 'x'"),
    "encoding hex": (start(encoding="hex"), "unknown encoding 'hex'"),
    "errors x": (start(errors="x"), "errors: unknown way 'x' to decode errors"),
    "errors and no text": (start(text=False, errors="replace"), "errors is for text, and text is False"),
    "text yes": (start(text="yes"), "text must be True or False, got 'yes'"),
    "truncate 1": (lambda c, p: c.run(["true"], truncate=1), "truncate must be True or False, got 1"),  # type: ignore[call-overload]
    "prepared 1": (start(prepared=1), "prepared must be True or False, got 1"),
    "size (0, 5)": (start(tty=True, size=(0, 5)), "Expected `int` >= 1 - at `$.size.rows`"),
    "size 5": (start(tty=True, size=5), "size must be (rows, columns), got 5"),
    "size of one": (start(tty=True, size=(object(), 5)), "size: Encoding objects of type object is unsupported"),
    "umask odd": (start(umask=object()), "umask: Encoding objects of type object is unsupported"),
    **{
        f"{name} surrogate": (
            start(**{name: "\ud800"}),
            f"{field}: 'utf-8' codec can't encode character '\\ud800' in position 0: surrogates not allowed",
        )
        for name, field in [("tty", "tty"), ("oom_score_adj", "oomScoreAdj")]
    },
    "send surrogate": (
        lambda c, p: p.send("\ud800"),
        "text cannot be written as utf-8: "
        "'utf-8' codec can't encode character '\\ud800' in position 0: surrogates not allowed",
    ),
    "lines max_bytes": (
        lambda c, p: anext(p.lines(max_bytes=math.nan)),  # type: ignore[arg-type]
        "max_bytes must be a number above 0, got nan",
    ),
    "lines encoding": (lambda c, p: anext(p.lines(encoding="")), "unknown encoding ''"),
    "arg0 surrogate": (start(arg0="\ud800"), r"arg0: '\ud800' cannot be sent as UTF-8"),
    **{
        f"{name} {value}": (start(**{name: value}), text.format(name))
        for name in ("timeout", "idle_timeout")
        for value, text in [
            (1e300, "{} must be at most 9007199254740 s or math.inf"),
            (10**400, "{} must be at most 9007199254740 s or math.inf"),
            (math.nan, "{} must be above 0 s, got nan"),
            (-math.inf, "{} must be above 0 s, got -inf"),
            (0, "{} must be above 0 s, got 0"),
            (-1, "{} must be above 0 s, got -1"),
            (True, "{} must be a number of seconds, got True"),
            ("5", "{} must be a number of seconds, got '5'"),
        ]
    },
    "max_bytes -1": (lambda c, p: c.run(["true"], max_bytes=-1), "max_bytes must be a number of bytes, got -1"),
    "max_bytes text": (lambda c, p: p.communicate(max_bytes="5"), "max_bytes must be a number of bytes, got '5'"),  # type: ignore[arg-type]
    "timeout of run": (lambda c, p: c.run(["true"], timeout=math.nan), "timeout must be above 0 s, got nan"),
}

WRONG_TYPES: dict[str, tuple[Call, str]] = {
    "argv text": (
        start(argv="make -j8 'a b'"),
        """argv must be a list of words, got the string "make -j8 'a b'": write ["make", "-j8", "a b"]""",
    ),
    "argv half quoted": (
        start(argv="it's"),
        """argv must be a list of words, got the string "it's": write ["it's"]""",
    ),
    "argv bytes": (start(argv=b"make"), "argv must be a list of words, got the bytes b'make'"),
    "argv None": (start(argv=None), "argv must be a list of words, got NoneType"),
    "argv mapping": (start(argv={"true": 1}), "argv must be a list of words, got dict"),
    "argv long": (
        start(argv="x" * 100_000),
        f"argv must be a list of words, got the string '{'x' * 500}': write [\"{'x' * 500}\"]",
    ),
    "env_remove": (start(env_remove=5), "env_remove must be a list of names, got int"),
    "env_add": (start(env_add={"X": None}), "env_add['X'] must be a string, got None: env_remove takes a variable out"),
    "modes": (start(tty=True, modes="echo"), "modes must be a mapping of names, got str"),
    "map": (lambda c, p: anext(c.map(None)), "commands must be lists of words, got NoneType"),  # type: ignore[call-overload]
    "send_all": (lambda c, p: p.stdin.send_all([]), "data must be bytes, got list"),  # type: ignore[arg-type]
    "send nothing": (lambda c, p: p.send(None), "text must be bytes or a string, got None"),  # type: ignore[arg-type]
    "sendline 5": (lambda c, p: p.sendline(5), "text must be bytes or a string, got int"),  # type: ignore[arg-type]
    "after": (lambda c, p: p.wait_for(exit=True, after=5), "after must be what `wait_for` returned, got int"),  # type: ignore[arg-type]
    "escape": (lambda c, p: p.interact(b"x"), "escape_character must be a string or None, got bytes"),  # type: ignore[arg-type]
    "record": (lambda c, p: c.record(None, "/x").__aenter__(), "process must be a Process, got NoneType"),  # type: ignore[arg-type]
    "body": (lambda c, p: c.http.request("GET", "http://h/", body=5), "body must be bytes or a string, got int"),  # type: ignore[arg-type]
    "runner 3": (start(runner=3), "runner must be a list of words, got int"),
    "limits": (start(limits={"memory_bytes": 1}), "limits must be a ProcessLimits, got dict"),
    "argv[1]": (start(argv=["make", 5]), "argv[1] must be a string or a path, got int"),
    "arg0": (start(arg0=5), "arg0 must be a string or a path, got int"),
    "env": (start(env={"A": 1}), "env['A'] must be a string or a path, got int"),
    "cwd": (start(cwd=b"/"), "cwd must be a string or a path, got bytes"),
    "input of run": (lambda c, p: c.run(["true"], input="text"), "input must be bytes, got str (or text=True)"),  # type: ignore[call-overload]
    "input of communicate": (lambda c, p: p.communicate("text"), "input must be bytes, got str (or text=True)"),
    "write nothing": (lambda c, p: p.write(None), "data must be bytes, got None"),  # type: ignore[arg-type]
    "launch": (
        lambda c, p: execsrv.launch("execsrv serve").__aenter__(),
        """argv must be a list of words, got the string 'execsrv serve': write ["execsrv", "serve"]""",
    ),
    "write": (lambda c, p: p.write("text"), "data must be bytes, got str (or text=True)"),
}


async def test_wrong_arguments_are_refused_alike_on_every_transport(server: Server) -> None:
    async with server.open_client() as client, client.start(["cat"], tty=True) as process:
        with trio.fail_after(PATIENCE):
            for name, (call, text) in WRONG.items():
                with pytest.raises(InvalidParamsError) as refused:
                    await call(client, process)
                assert (type(refused.value), refused.value.message) == (InvalidParamsError, text), name
            for name, (call, text) in WRONG_TYPES.items():
                with pytest.raises(TypeError) as wrong:
                    await call(client, process)
                assert str(wrong.value) == text, name
        assert [listed.process_id for listed in await client.processes()] == [process.id]
        assert process.exit_code is None
        assert await process.kill()


async def test_an_infinite_time_is_none(server: Server) -> None:
    client = await server.client()
    result = await client.run(["true"], timeout=math.inf, idle_timeout=math.inf)
    assert result.reason == "exited"
    async with client.start(["cat"], stdin=True, timeout=math.inf, idle_timeout=math.inf) as process:
        assert await process.terminate(grace=math.inf)
        assert (await process.wait()).signal == "SIGTERM"


def test_run_takes_what_start_takes() -> None:
    started = inspect.signature(execsrv.Client.start).parameters
    # Loaded only where something is recorded, or confined.
    late = {"Recording": execsrv.record.Recording, "Policy": execsrv.Policy}
    hints = typing.get_type_hints(execsrv.Client.start, localns=late)
    own = {"self", "argv", "stdin", "timeout", "end_with_leader", "text", "encoding", "errors", "id", "key"}
    assert set(StartKeywords.__annotations__) == set(started) - own
    assert typing.get_type_hints(StartKeywords, localns=late) == {name: hints[name] for name in set(started) - own}


async def test_a_keyword_that_does_not_exist_is_refused(server: Server) -> None:
    client = await server.client()
    with pytest.raises(TypeError, match=r"Starting\.start\(\) .* 'cdw'"):
        client.start(["true"], cdw="/")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("cdw", "got an unexpected keyword argument 'cdw'"),
        ("id", "got an unexpected keyword argument 'id', which only start() has"),
        ("key", "got an unexpected keyword argument 'key', which only start() has"),
        ("end_with_leader", "got an unexpected keyword argument 'end_with_leader', which only start() has"),
        ("stdin", "takes no 'stdin': what a command reads is the 'input' of run()"),
    ],
)
async def test_a_keyword_that_run_does_not_have_is_refused_in_its_name(word: str, why: str) -> None:
    options: dict[str, Any] = {word: True}
    async with execsrv.connect_in_process(own_process=True) as client:
        with pytest.raises(TypeError) as run:
            await client.run(["true"], **options)
        with pytest.raises(TypeError) as many:
            client.map([["true"]], **options)
        assert not await client.processes()
    async with execsrv.Pool(["unix:///nowhere"]) as pool:
        with pytest.raises(TypeError) as pooled:
            await pool.run(["true"], **options)
    assert [str(each.value) for each in (run, many, pooled)] == [f"run() {why}", f"map() {why}", f"run() {why}"]


async def test_many_commands_have_no_one_recording(tmp_path: Path) -> None:
    async with execsrv.connect_in_process(own_process=True) as client, execsrv.Pool(["unix:///nowhere"]) as pool:
        for runner in client, pool:
            with pytest.raises(TypeError, match="takes no 'record': one file is no recording of many commands"):
                runner.map([["true"]], record=tmp_path / "a.cast")  # type: ignore[call-overload]


def test_checking_keeps_what_was_said() -> None:
    data = bytes(100_000)
    write = ProcessWrite("p1", data, "1")
    kept = checked("process/write", write)
    assert kept == write
    assert isinstance(kept, ProcessWrite)
    assert kept.chunk is data
    assert checked("process/ack", ProcessAck("p1", 5)) == ProcessAck("p1", 5)


def test_constructors_are_not_for_users() -> None:
    kinds: list[Any] = [execsrv.Process, execsrv.Client, execsrv.Lease]
    for kind in kinds:
        with pytest.raises(TypeError, match="is made by"):
            kind()


def test_a_process_shows_nothing_of_its_inside() -> None:
    shown = {name for name in dir(execsrv.Process) if not name.startswith("_")}
    facts = {"id", "argv", "pid", "exit_code", "returncode", "signal", "reason", "closed", "confined", "denial"}
    reading = {"wait", "next_event", "events", "output", "lines", "text", "communicate", "snapshot"}
    streams = {"stdin", "stdout", "stderr"}
    acting = {"write", "close_stdin", "send_signal", "interrupt", "terminate", "kill", "resize", "leave_running"}
    dialogue = {"expect", "expect_exact", "before", "after", "match", "match_index", "searchwindowsize", "interact"}
    dialogue |= {"expect_list", "compile_pattern_list", "buffer"}
    dialogue |= {"send", "sendline", "sendcontrol", "sendeof", "sendintr", "waitnoecho"}
    looking = {"wait_for", "screen", "watch_screen"}
    assert shown == facts | reading | streams | acting | dialogue | looking


def test_modules_of_the_client_are_of_one_idea_each() -> None:
    for path in (Path(execsrv.__file__).parent / "client").glob("*.py"):
        source = path.read_text()
        assert len(source.splitlines()) <= 300, path
        assert ast.get_docstring(ast.parse(source)), path
