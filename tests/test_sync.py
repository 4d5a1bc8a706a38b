"""`execsrv.sync`: plain code, many threads, interrupts, and what is left behind: nothing."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import copy
import gc
import io
import linecache
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

import execsrv
import execsrv.sync
import execsrv.sync.agents
from execsrv import CommandFailedError, ConnectionLostError, SpawnError
from execsrv._portal.facade import Batch
from execsrv.testing import assert_no_strays
from tests.faults.daemon import running_daemon
from tests.peers import PATIENCE
from tests.processes import new_mark, until_gone, until_it_sleeps_in


@pytest.fixture
def client() -> Iterator[execsrv.sync.Client]:
    with execsrv.sync.launch() as client:
        yield client


def portals() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "execsrv portal"]


# -- words --


def test_a_block_leaves_nothing_behind() -> None:
    with assert_no_strays():
        with execsrv.sync.launch() as client:
            assert portals()
            result = client.run(["sh", "-c", "cat; setsid sleep 1000 & exit 3"], input="a\n", text=True)
            assert (result.stdout, result.exit_code) == ("a\n", 3)
            process = client.start(["sleep", "1000"])
        assert process.closed
        assert not portals()


def test_run_has_a_server_of_its_own() -> None:
    with assert_no_strays():
        assert execsrv.sync.run(["echo", "a"], text=True).stdout == "a\n"
        with pytest.raises(CommandFailedError):
            execsrv.sync.run(["false"], check=True)
        assert not portals()


def test_a_client_lasts_until_it_is_closed() -> None:
    with assert_no_strays():
        client = execsrv.sync.launch()
        process = client.start(["cat"], stdin=True)
        process.write(b"a\n")
        assert next(process.lines()) == "a"
        process.close()
        process.close()
        assert process.closed
        other = client.start(["sleep", "1000"])
        client.close()
        client.close()
        assert other.closed
        assert not portals()


@pytest.mark.parametrize("way", ["client", "process"])
def test_what_was_closed_says_so(way: str) -> None:
    with execsrv.sync.launch() as outer, execsrv.sync.launch() as client:
        process = client.start(["sleep", "1000"])
        (client if way == "client" else process).close()
        with pytest.raises(trio.ClosedResourceError, match=r"Process p\d+ was closed"):
            process.wait()
        if way == "client":
            with pytest.raises(trio.ClosedResourceError, match="Client was closed"):
                client.start(["true"])
        outer.run(["true"])
    with pytest.raises(trio.ClosedResourceError, match="Client was closed"):
        outer.run(["true"])
    with outer:
        pass


def test_to_close_ends_what_waits_in_other_threads(client: execsrv.sync.Client) -> None:
    process = client.start(["cat"], stdin=True)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(next, process.lines())
        process.write(b"begun")
        closing = pool.submit(process.close)
        with pytest.raises(trio.ClosedResourceError, match="was closed"):
            waiting.result(PATIENCE)
        closing.result(PATIENCE)


def test_to_close_ends_a_call_that_waits_in_more_than_one_task(client: execsrv.sync.Client) -> None:
    with execsrv.sync.agents.open_tools(client) as tools, ThreadPoolExecutor() as pool:
        waiting = pool.submit(tools.exec_command, "echo begun; sleep 1000", tty=True, yield_time_ms=50_000)
        while not (tools.list_sessions().sessions and tools.read_output(1).output):
            pass  # each is a turn of the other thread's loop
        tools.close()
        with pytest.raises(trio.ClosedResourceError, match="Tools was closed"):
            waiting.result(PATIENCE)


def test_a_block_that_ends_with_the_one_around_it_is_left_without_a_word(client: execsrv.sync.Client) -> None:
    stubborn = ["bash", "-c", "trap '' TERM; echo begun; while :; do sleep 1000 & wait; done"]
    process = client.start(stubborn, grace=1)
    assert next(process.lines()) == "begun"
    with ThreadPoolExecutor() as pool:
        waiting, reading = pool.submit(process.wait), pool.submit(next, process.lines())
        closing = pool.submit(client.close)
        with pytest.raises(trio.ClosedResourceError, match="was closed"):
            waiting.result(PATIENCE)
        with pytest.raises(trio.ClosedResourceError, match="was closed"):
            reading.result(PATIENCE)
        process.close()
        closing.result(PATIENCE)


def test_an_error_of_the_block_is_left_as_it_is(client: execsrv.sync.Client) -> None:
    error = ValueError("mine")

    def block() -> None:
        with client.start(["sleep", "1000"]):
            raise error

    with pytest.raises(ValueError, match="mine") as caught:
        block()
    assert caught.value is error
    assert error.__context__ is error.__cause__ is None
    frames = traceback.extract_tb(error.__traceback__)
    assert [frame.name for frame in frames][-1] == "block"
    assert not [frame for frame in frames if "_portal" in frame.filename]


def test_an_error_of_the_server_has_the_lines_of_both_sides(client: execsrv.sync.Client) -> None:
    with pytest.raises(SpawnError, match="nonexistent") as caught:
        client.start(["nonexistent"])
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == "test_an_error_of_the_server_has_the_lines_of_both_sides"
    assert "_keep" in names
    assert names[-1] != "_perform"


def test_streams_are_files(client: execsrv.sync.Client) -> None:
    with client.start(["sh", "-c", "cat; echo end >&2"], stdin=True) as process:
        with process.stdin as stdin:
            assert stdin.write(b"1\n2\n") == 4
            assert process.stdout.readline() == b"1\n"
            stdin.writelines([b"3\n", bytearray(b"4\n")])
            stdin.flush()
        assert list(process.stdout) == [b"2\n", b"3\n", b"4\n"]
        assert process.stdout.read() == b""
        assert io.TextIOWrapper(process.stderr).read() == "end\n"
        assert process.stdin.closed
        with pytest.raises(trio.ClosedResourceError):
            process.stdin.write(b"")


def test_text_is_written_through_a_wrapper_or_by_the_process(client: execsrv.sync.Client) -> None:
    with client.start(["cat"], stdin=True, text=True) as process:
        assert not process.stdin.readable()
        with pytest.raises(TypeError, match=r"got str: `process\.write` takes text"):
            process.stdin.write("lost")  # type: ignore[arg-type]
        process.write("1\n")
        with io.TextIOWrapper(io.BufferedWriter(process.stdin)) as file:
            file.write("2\n")
        assert list(process.lines()) == ["1", "2"]


def test_what_stands_for_another_is_not_copied(client: execsrv.sync.Client) -> None:
    with client.start(["cat"], stdin=True) as process:
        for each in (client, process, process.stdin, client.files.path("/"), process.lines()):
            for take in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match=f"cannot pickle or copy {type(each).__name__}: open a client"):
                    take(each)
        assert not process.stdin.closed


def test_threads_share_an_iterator(client: execsrv.sync.Client, tmp_path: Path) -> None:
    names = [str(tmp_path / str(number)) for number in range(100)]
    for name in names:
        Path(name).touch()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            entries = client.files.path(tmp_path).glob("*")
            shared = [pool.submit(lambda: [str(each) for each in entries]) for _ in range(4)]  # noqa: B023
            assert sorted(name for each in shared for name in each.result(PATIENCE)) == sorted(names)


@pytest.mark.parametrize("error", [SystemExit(4), asyncio.CancelledError(), GeneratorExit()])
def test_what_the_commands_raise_ends_them_and_nothing_else(client: execsrv.sync.Client, error: BaseException) -> None:
    def commands() -> Iterator[list[str]]:
        yield ["echo", "a"]
        raise error

    with client.start(["cat"], stdin=True) as other:
        results = client.map(commands(), limit=1)
        assert next(results).stdout == b"a\n"
        with pytest.raises(type(error)) as caught:
            next(results)
        assert caught.value is error
        assert other.communicate(b"b").stdout == b"b"


def test_what_an_interrupt_has_cut_is_read_by_the_next(client: execsrv.sync.Client) -> None:
    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        with client.start(["sh", "-c", "echo 1; sleep 0.5; echo 2; cat; echo 3"], stdin=True) as process:
            signal.setitimer(signal.ITIMER_REAL, 1.0)
            with pytest.raises(TimeoutError):
                process.stdout.read()
            process.close_stdin()
            assert process.stdout.read() == b"1\n2\n3\n"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "read",
    [
        lambda file: file.readline(),
        lambda file: file.read(),
        lambda file: file.read(7),
        lambda file: file.readinto(bytearray(7)),
        list,
    ],
)
def test_an_interrupt_takes_nothing_away_that_a_file_has_read(
    client: execsrv.sync.Client, read: Callable[[io.BufferedReader], object]
) -> None:
    with client.start(["sh", "-c", "printf abc; read x; echo def"], stdin=True) as process:
        file = process.stdout
        assert file.peek() == b"abc"
        with raising(TimeoutError()), pytest.raises(TimeoutError):
            read(file)
        assert file.read(1) == b"a"
        process.write(b"\n")
        assert file.readline() == b"bcdef\n"


def test_lines_that_are_left_early_go_on(client: execsrv.sync.Client) -> None:
    with client.start(["sh", "-c", "seq 1 6"]) as process:
        assert next(process.lines()) == "1"
        for line in process.lines():
            assert line == "2"
            break
        read = b""
        for event in process.events():
            assert isinstance(event, execsrv.Chunk)
            read += event.chunk
            if read == b"3\n4\n5\n6\n":
                break
        assert process.wait().exit_code == 0


def test_a_block_that_gives_nothing_can_be_closed_too(client: execsrv.sync.Client, tmp_path: Path) -> None:
    with client.start(["cat"], stdin=True) as process:
        with client.record(process, tmp_path / "a.cast"):
            lasting = client.record(process, tmp_path / "b.cast")
            process.write(b"said\n")
            assert next(process.lines()) == "said"
        lasting.close()
    for file in ("a.cast", "b.cast"):
        assert "said" in (tmp_path / file).read_text()


def test_a_wait_lets_nothing_go_that_another_thread_reads(client: execsrv.sync.Client) -> None:
    size = 4 * execsrv.ClientConfig().window_bytes
    with client.start(["head", "-c", str(size), "/dev/zero"]) as process, ThreadPoolExecutor(2) as pool:
        begun = threading.Event()

        def read() -> int:
            total = len(next(process.output))
            begun.set()
            time.sleep(1)  # as long as that, and longer, the window is full
            return total + sum(map(len, process.output))

        reading = pool.submit(read)
        assert begun.wait(PATIENCE)
        assert pool.submit(process.wait).result(PATIENCE).exit_code == 0
        assert reading.result(PATIENCE) == size


def test_a_wait_of_who_has_read_lets_go(client: execsrv.sync.Client) -> None:
    size = 4 * execsrv.ClientConfig().window_bytes
    with client.start(["head", "-c", str(size), "/dev/zero"]) as process:
        assert next(process.output)
        assert process.wait().exit_code == 0


def test_lines_that_were_taken_ahead_are_there_for_every_reader(client: execsrv.sync.Client) -> None:
    with client.start(["sh", "-c", "seq 1 3000; echo end >&2; printf '\\377\\nlast'"]) as process:
        numbers = process.lines("stdout")
        assert [next(numbers) for _ in range(100)] == [str(n) for n in range(1, 101)]
        assert process.expect(rb"(\d+)\n") == 0
        assert process.match[1] == b"101"
        assert next(numbers) == "102"
        assert next(process.lines("stdout", max_bytes=100)) == "103"
        assert [next(numbers) for _ in range(1000)] == [str(n) for n in range(104, 1104)]
        assert process.stdout.readline() == b"1104\n"
        rest = process.stdout.peek()
        assert rest.startswith(b"1105\n")
    with client.start(["sh", "-c", "seq 1 10; printf '\\377\\nlast'"], text=True) as process:
        read: list[str] = []
        with pytest.raises(UnicodeDecodeError):
            for line in process.lines():
                read.append(line)
        assert read == [str(n) for n in range(1, 11)]
        assert list(process.lines(errors="replace")) == ["\ufffd", "last"]


def test_whoever_reads_in_another_way_goes_on_behind_the_lines_that_were_given_out(
    client: execsrv.sync.Client,
) -> None:
    with execsrv.sync.replwrap.bash(client) as shell:
        shell.process.sendline("seq 1 12")
        shell.process.wait_for(output="12\n.*PROMPT>")
        numbers = shell.process.lines()
        assert [next(numbers) for _ in range(5)] == ["1", "2", "3", "4", "5"]
        rest = "".join(f"{number}\n" for number in range(6, 13))
        while shell.process.buffer != rest + shell.prompt:
            pass  # the last of it is on its way
        shell.wait_prompt()
        assert shell.process.before == rest
        assert shell.run_command("echo second") == "second\n"


def test_a_signal_handler_reads_what_the_thread_iterates_over(client: execsrv.sync.Client) -> None:
    read: list[bytes] = []
    traced = sys.gettrace()

    def trace(frame: FrameType, *_: object) -> Any:
        if "popleft" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
            sys.settrace(traced)
            signal.raise_signal(signal.SIGUSR1)
            return None
        return trace if frame.f_code is Batch.pop.__code__ else None

    with client.start(["seq", "1", "9"]) as process:
        former = signal.signal(signal.SIGUSR1, lambda *_: read.append(process.stdout.readline()))
        try:
            numbers = process.lines()
            assert [next(numbers) for _ in range(2)] == ["1", "2"]
            sys.settrace(trace)
            assert [next(numbers), *read] == ["4", b"3\n"]
        finally:
            sys.settrace(traced)
            signal.signal(signal.SIGUSR1, former)


def test_files_and_many_commands(client: execsrv.sync.Client, tmp_path: Path) -> None:
    home = client.files.path(tmp_path)
    (home / "a").write_text("1")
    (home / "b").mkdir()
    (home / "b" / "file").touch()
    assert sorted(str(path) for path in home.iterdir()) == [f"{tmp_path}/a", f"{tmp_path}/b"]
    for path in home.rglob("*"):
        assert isinstance(path, execsrv.sync.RemotePath)
        break  # what is left early is closed
    assert (home / "a").parent == home
    assert all(isinstance(parent, execsrv.sync.RemotePath) for parent in home.parents)
    client.files.copy(home / "a", home / "c")
    with (home / "c").open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"2")
    assert (tmp_path / "c").read_text() == "12"
    with pytest.raises(ValueError, match="closed"), (home / "c").open() as file:
        file.close()
        raise ValueError("closed")
    told: list[str] = []
    client.files.get(home / "b", tmp_path / "copy", progress=lambda source, *_: told.append(source))
    assert told
    with client.files.watch(home) as changes:
        (tmp_path / "d").touch()
        assert next(changes).path == f"{tmp_path}/d"
    results = client.map((["echo", str(n)] for n in range(30)), limit=4, text=True)
    assert sorted(int(result.stdout) for result in results) == list(range(30))
    for _ in client.map([["echo"], ["sleep", "1000"]]):
        break
    gc.collect()


def test_a_callback_cannot_wait(client: execsrv.sync.Client, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    errors: list[Exception] = []

    def progress(*_: object) -> None:
        try:
            client.run(["true"])
        except Exception as error:
            errors.append(error)

    client.files.get(tmp_path / "a", tmp_path / "b", progress=progress)
    assert "cannot wait where trio runs" in str(errors[0])


async def test_a_trio_program_has_execsrv_itself() -> None:
    with pytest.raises(RuntimeError, match="a trio program has execsrv itself"):
        execsrv.sync.launch()
    assert not portals()


VARIABLE = contextvars.ContextVar("VARIABLE", default="none")


def test_context_variables_come_along(client: execsrv.sync.Client, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    VARIABLE.set("mine")
    seen: set[str] = set()
    client.files.get(tmp_path / "a", tmp_path / "b", progress=lambda *_: seen.add(VARIABLE.get()))
    assert seen == {"mine"}


# -- threads --


def test_twenty_threads_at_once(client: execsrv.sync.Client) -> None:
    together = threading.Barrier(20)

    def work(number: int) -> list[str]:
        together.wait(PATIENCE)
        with client.start(["cat"], stdin=True) as process:
            process.write(f"{number}\n".encode())
            process.close_stdin()
            lines = list(process.lines())
        return [*lines, client.run(["echo", str(number)], text=True).stdout]

    with ThreadPoolExecutor(20) as pool:
        for number, said in enumerate(pool.map(work, range(20))):
            assert said == [str(number), f"{number}\n"]


@pytest.mark.slow
def test_ten_threads_with_a_client_each() -> None:
    with assert_no_strays(), ThreadPoolExecutor(10) as pool:
        paths = pool.map(lambda number: execsrv.sync.run(["echo", str(number)], text=True).stdout, range(10))
        assert list(paths) == [f"{number}\n" for number in range(10)]
    assert not portals()


# -- interrupts --

INTERRUPTED = """
import contextlib, execsrv.sync, os, signal, sys
client = execsrv.sync.launch()
process = client.start(["sh", "-c", "echo 1; read x; echo 2; read x"], stdin=True)
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
lines = process.lines()
print(next(lines), flush=True)
try:
    {waits}
except KeyboardInterrupt:
    print("interrupted", flush=True)
process.write(b"\\n")
print(next(lines), flush=True)
print(len([each for each in client.processes() if each.running]), flush=True)
"""


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "waits",
    [
        'client.run(["sh", "-c", "setsid sleep 1000 & sleep 1000"])',
        "process.wait()",
        "next(lines)",
        "process.stdout.read()",
        'with contextlib.closing(client.map([["sleep", "1000"]] * 30, limit=3)) as results: list(results)',
        "sum(1 for _ in client.files.watch('/').__enter__())",
    ],
)
def test_an_interrupt_ends_what_was_waited_for_and_nothing_else(waits: str) -> None:
    with assert_no_strays():
        command = [sys.executable, "-W", "error", "-c", INTERRUPTED.format(waits=waits)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "1\n"
            until_it_sleeps_in(program.pid, "futex")  # for a lock
            program.send_signal(signal.SIGINT)
            assert program.stdout.readline() == "interrupted\n"
            assert program.stdout.readline() == "2\n"
            assert program.stdout.readline() == "1\n"
        assert program.returncode == 0


@contextmanager
def interruptible() -> Iterator[None]:
    """Have interrupts raise `KeyboardInterrupt` in the block, where the whole run ignores them too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_just_before_a_wait_is_seen_soon() -> None:
    """Of such a one the interpreter makes a note, and the wait that begins then is not ended by it."""
    with execsrv.sync.launch() as client, client.start(["cat"], stdin=True) as process:
        noted = threading.Timer(0.2, _thread.interrupt_main)
        with pytest.raises(KeyboardInterrupt), interruptible():
            noted.start()
            process.wait()
        noted.join()
        assert process.returncode is None


class Held:
    """A call that is held where no cancel reaches it, until it is let go."""

    def __init__(self) -> None:
        self.has_begun, self.is_over = threading.Event(), threading.Event()
        self._released = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    async def wait(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope(shield=True):
            self.has_begun.set()
            await self._released.wait()
        self.is_over.set()

    def release(self) -> None:
        if self._token is not None:
            self._token.run_sync_soon(self._released.set)


@contextmanager
def held_call() -> Iterator[Held]:
    """A call that is let go at the end of the block at the latest, or whoever leaves its client would wait for ever."""
    held = Held()
    try:
        yield held
    finally:
        held.release()


def until_main_waits_for_a_bell() -> None:
    """Wait until a signal falls into a wait of the main thread for the portal's, and not beside it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        if "bell.acquire(timeout" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
            return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


@contextmanager
def raising(*errors: BaseException, held: Held | None = None, releases: bool = False) -> Iterator[None]:
    """Have signals raise these errors in this thread, one after the other, once it waits in the block.

    It waits for the held call, if there is one, which is let go after the last of them if `releases` is set.
    """
    raised = iter(errors)
    is_raised = threading.Event()

    def handle(*_: object) -> None:
        is_raised.set()
        raise next(raised)

    def send() -> None:
        if held is not None:
            held.has_begun.wait(PATIENCE)
        for _ in errors:
            until_main_waits_for_a_bell()
            is_raised.clear()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            is_raised.wait(PATIENCE)
        if held is not None and releases:
            held.release()

    former = signal.signal(signal.SIGUSR1, handle)
    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        sending.join(PATIENCE)
        signal.signal(signal.SIGUSR1, former)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([KeyboardInterrupt("first"), KeyboardInterrupt("second")], "first"),
        ([KeyboardInterrupt("first"), SystemExit("exit"), KeyboardInterrupt("second")], "second"),
        ([TimeoutError("alarm"), KeyboardInterrupt("first")], "first"),
        ([KeyboardInterrupt("first"), TimeoutError("alarm")], "first"),
    ],
)
def test_what_interrupts_an_interrupted_call_is_raised_too(
    client: execsrv.sync.Client, errors: list[BaseException], expected: str
) -> None:
    with held_call() as held:
        with raising(*errors, held=held, releases=True), pytest.raises(BaseException, match=expected) as caught:
            client._wait(held.wait)
        assert held.is_over.is_set()
    told = "".join(traceback.format_exception(caught.value))
    for kind in {type(error) for error in errors}:
        assert f"{kind.__name__}: " in told


@pytest.mark.few(2)
@pytest.mark.parametrize("place", ["_cancel", "is_forked", "post", "run_sync_soon", "wakeup_thread_and_signal_safe"])
def test_a_second_interrupt_on_the_way_to_cancel_a_call_leaves_it_cancelled(
    client: execsrv.sync.Client, place: str
) -> None:
    traced = sys.gettrace()
    places = [place]

    def trace(frame: FrameType, *_: object) -> None:
        if frame.f_code.co_name in places:
            places.clear()
            signal.raise_signal(signal.SIGUSR1)

    def handle(*_: object) -> None:
        sys.settrace(trace if places else None)  # calls are traced, from the next one on
        raise KeyboardInterrupt

    def send() -> None:
        until_main_waits_for_a_bell()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    former = signal.signal(signal.SIGUSR1, handle)
    try:
        with ThreadPoolExecutor() as pool:
            pool.submit(send)
            with pytest.raises(KeyboardInterrupt):
                client.run(["sleep", "1000"])
    finally:
        sys.settrace(traced)
        signal.signal(signal.SIGUSR1, former)
    assert not places
    assert not [each for each in client.processes() if each.running]


def test_a_second_interrupt_leaves_a_call_behind_that_does_not_end(
    client: execsrv.sync.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execsrv._portal.blocking.UNDO_SECONDS", 0)
    with held_call() as held:
        with raising(KeyboardInterrupt(), KeyboardInterrupt(), held=held), pytest.raises(KeyboardInterrupt):
            client._wait(held.wait)
        assert not held.is_over.is_set()
        assert client.run(["echo", "a"], text=True).stdout == "a\n"


def test_an_interrupt_that_nobody_catches_ends_the_program_and_all_of_it() -> None:
    code = (
        "import execsrv.sync, sys; client = execsrv.sync.launch();"
        "client.start(['sh', '-c', 'setsid sleep 1000 & sleep 1000']);"
        "print('ready', flush=True); client.run(['sleep', '1000'])"
    )
    with assert_no_strays():
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as program:
            assert program.stdout is not None
            assert program.stderr is not None
            assert program.stdout.readline() == "ready\n"
            program.send_signal(signal.SIGINT)
            assert program.stderr.read().endswith("KeyboardInterrupt\n")
        assert program.returncode == -signal.SIGINT


def test_an_interrupt_while_the_thread_starts_leaves_none() -> None:
    """A thread runs what traces it first: so it is held until the interrupt has come."""
    caught = threading.Event()

    def interrupt(*_: object) -> None:
        if not caught.is_set():
            raise KeyboardInterrupt

    def hold(*_: object) -> None:
        sys.settrace(None)
        while not caught.is_set():  # one that comes before the wait wakes nobody
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            caught.wait(0.01)

    former, traced = signal.signal(signal.SIGUSR1, interrupt), threading.gettrace()
    threading.settrace(hold)
    try:
        with pytest.raises(KeyboardInterrupt):
            execsrv.sync.launch()
        threading.settrace(traced)
        caught.set()
        for each in portals():
            each.join(PATIENCE)
        assert not portals()
        assert execsrv.sync.run(["true"]).exit_code == 0
    finally:
        caught.set()
        threading.settrace(traced)
        signal.signal(signal.SIGUSR1, former)


def test_a_signal_handler_opens_a_client_while_the_thread_starts() -> None:
    """A thread runs what traces it first: so it is held until the handler has begun."""
    begun = threading.Event()
    results: list[execsrv.Result[bytes]] = []

    def handle(*_: object) -> None:
        if not begun.is_set():
            begun.set()
            threading.settrace(traced)
            results.append(execsrv.sync.run(["echo", "a"]))

    def hold(*_: object) -> None:
        sys.settrace(None)
        while not begun.is_set():  # a signal that comes before the wait wakes nobody
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            begun.wait(0.01)

    former, traced = signal.signal(signal.SIGUSR1, handle), threading.gettrace()
    threading.settrace(hold)
    try:
        with execsrv.sync.launch() as client:
            assert client.run(["echo", "b"]).stdout == b"b\n"
    finally:
        begun.set()
        threading.settrace(traced)
        signal.signal(signal.SIGUSR1, former)
    assert [each.stdout for each in results] == [b"a\n"]
    assert not portals()


# -- ends --

ENDS = {
    "returns": "",
    "raises": "raise SystemExit(5)",
    "from a thread": "import threading\nthreading.Thread(target=lambda: print(client.run(['true']).exit_code)).start()",
    "after a fork": "pid = os.fork()\nif pid: os.waitpid(pid, 0)",
    "at exit": "import atexit; atexit.register(client.close)",
}


@pytest.mark.few
@pytest.mark.parametrize("end", ENDS)
def test_an_interpreter_that_exits_leaves_nothing_behind(end: str) -> None:
    code = f"""
import execsrv.sync, os, sys
client = execsrv.sync.launch()
process = client.start(["sh", "-c", "setsid sleep 1000 & sleep 1000"])
lines = process.lines()
client.run(["true"])
{ENDS[end]}
"""
    with assert_no_strays():
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=PATIENCE
        )
        assert (done.stderr, done.returncode) == ("", 5 if end == "raises" else 0)
        assert done.stdout == ("0\n" if end == "from a thread" else "")


def test_a_program_that_is_killed_leaves_nothing_behind() -> None:
    code = (
        "import execsrv.sync, os, signal; client = execsrv.sync.launch();"
        "client.start(['sh', '-c', 'setsid sleep 1000 & sleep 1000']);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with assert_no_strays(within=PATIENCE):
        done = subprocess.run([sys.executable, "-c", code])
        assert done.returncode == -signal.SIGKILL


def test_a_server_that_is_killed_is_a_lost_connection() -> None:
    with assert_no_strays(within=PATIENCE):
        with execsrv.sync.launch() as client:
            with client.start(["sh", "-c", "echo $PPID; sleep 1000"]) as process:
                lines = process.lines()
                server = int(client.run(["sh", "-c", "echo $PPID"], text=True).stdout)
                next(lines)
                os.kill(server, signal.SIGKILL)
                with pytest.raises(ConnectionLostError):
                    next(lines)
            with pytest.raises(ConnectionLostError):
                client.run(["true"])
        assert not portals()


def test_a_client_that_is_dropped_is_closed_with_a_warning() -> None:
    with assert_no_strays():
        files = execsrv.sync.launch().files
        assert files.exists("/")
        with pytest.warns(ResourceWarning, match="Client was not closed"):
            del files
        thread = portals()
        for each in thread:
            each.join(PATIENCE)
        assert not portals()


def test_a_process_that_is_dropped_is_ended_at_once(client: execsrv.sync.Client) -> None:
    process = client.start(["sh", "-c", "echo; sleep 1000"])
    assert process.stdout is process.stdout
    process.stdout.readline()
    next(iter(client.processes()))
    with pytest.warns(ResourceWarning, match="Process p1 was not closed"):
        del process
    deadline = time.monotonic() + PATIENCE
    while any(each.running for each in client.processes()):
        assert time.monotonic() < deadline


def test_a_child_of_a_fork_has_no_part_in_it(client: execsrv.sync.Client) -> None:
    with client.start(["sleep", "1000"]) as process:
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            said: Any
            try:
                try:
                    client.run(["true"])
                except RuntimeError as error:
                    said = str(error)
                process.close()
                client.close()
                said += execsrv.sync.run(["echo", " and its own"], text=True).stdout
                os.write(write, said.encode())
            finally:
                os._exit(0)
        os.close(write)
        with open(read) as answer:
            assert answer.read().startswith("cannot use what execsrv opened before os.fork()")
        os.waitpid(pid, 0)
        assert client.run(["true"]).exit_code == 0
        assert process.exit_code is None


@pytest.mark.few
@pytest.mark.parametrize("way", ["launch", "unix", "websocket", "pipes"])
def test_what_was_forked_keeps_nothing_of_its_parent_alive(way: str, tmp_path: Path) -> None:
    """The child lives on, and its parent is killed, or closes the pipe of a command that reads until its end."""
    mark = new_mark()
    code = f"""
import execsrv.sync, os, signal, sys
client = execsrv.sync.launch() if len(sys.argv) < 2 else execsrv.sync.connect(sys.argv[1])
passing = {way == "pipes"}
process = client.start(["bash", "-c", "exec -a {mark} cat"], stdin=True, pass_streams=passing)
if os.fork() == 0:
    sys.stdin.read()
    print("lived on")
    os._exit(0 if sys.stdout.flush() is None else 1)
if passing:
    process.close_stdin()
    process.wait()
os.kill(os.getpid(), signal.SIGKILL)
"""
    with ExitStack() as stack:
        transport = "websocket" if way == "websocket" else "unix"
        urls = [] if way == "launch" else [stack.enter_context(running_daemon(tmp_path, transport)).url]
        program = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", code, *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        try:
            assert program.wait(PATIENCE) == -signal.SIGKILL
            trio.run(until_gone, mark)
        finally:
            said, _ = program.communicate()
        assert said == b"lived on\n"


def test_a_launch_that_fails_leaves_no_thread() -> None:
    with pytest.raises(execsrv.ConnectionFailedError):
        execsrv.sync.launch(["false"])
    assert not portals()


DYING = """
import asyncio, functools, threading, trio, execsrv.asyncio, execsrv.sync

threading.excepthook = lambda args: None

def broken(_):
    raise RuntimeError("a defect")

async def die(portal, *_):
    portal.nursery.start_soon(trio.lowlevel.wait_task_rescheduled, broken)
    portal.nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

client = execsrv.sync.launch()
wait = functools.partial(client._wait, die, client._hold.block.portal)
for wait in wait, functools.partial(client.run, ["true"]), client.close:
    try:
        wait()
    except trio.ClosedResourceError as error:
        print(error)
print(execsrv.sync.run(["echo", "anew"], text=True).stdout, end="")

async def main():
    client = await execsrv.asyncio.launch()
    for wait in functools.partial(client._wait, die, client._hold.block.portal), client.close:
        try:
            await wait()
        except trio.ClosedResourceError as error:
            print(error)
    print((await execsrv.asyncio.run(["echo", "anew"], text=True)).stdout, end="")

asyncio.run(main())
"""


def test_a_thread_that_dies_lets_nobody_wait_and_the_next_one_begins_anew() -> None:
    with assert_no_strays():
        program = subprocess.run([sys.executable, "-c", DYING], capture_output=True, text=True, timeout=PATIENCE)
    died = "execsrv has ended by an internal error"
    before = [died, "Client was closed", "execsrv was closed", "anew"]
    assert program.stdout.splitlines() == [*before, died, "execsrv was closed", "anew"], program.stderr


# -- closing, and what crosses it --


def test_whatever_waits_hears_that_it_was_closed(client: execsrv.sync.Client) -> None:
    process = client.start(["cat"], stdin=True)
    with ThreadPoolExecutor() as pool:
        waiting: list[Future[Any]] = [pool.submit(process.wait_for, port=1), pool.submit(process.wait)]
        running = pool.submit(client.run, ["cat"], input=b"a" * 10_000_000)
        process.write(b"begun\n")
        assert next(process.lines()) == "begun"
        process.close()
        for each in waiting:
            with pytest.raises(trio.ClosedResourceError, match=r"Process p\d+ was closed"):
                each.result(PATIENCE)
        assert running.result(PATIENCE).exit_code == 0


@pytest.mark.few
@pytest.mark.parametrize("error", [None, ValueError("mine"), StopIteration("mine")])
def test_a_block_whose_client_was_closed_is_left_by_its_own_error_alone(error: Exception | None) -> None:
    raised: BaseException | None = None
    with execsrv.sync.launch() as other, execsrv.sync.launch() as client:
        try:
            with client.start(["sleep", "1000"]):
                client.close()
                if error is not None:
                    raise error
        except BaseException as caught:
            raised = caught
        assert raised is error
        assert other.run(["true"]).exit_code == 0


def test_a_block_is_left_by_the_end_of_an_iterator(client: execsrv.sync.Client) -> None:
    error = StopIteration("mine")
    raised: BaseException | None = None
    try:
        with client.start(["sleep", "1000"]):
            raise error
    except StopIteration as caught:
        raised = caught
    assert raised is error
    assert error.__context__ is error.__cause__ is None


def test_a_group_of_the_users_is_left_as_it_is(client: execsrv.sync.Client) -> None:
    error = ExceptionGroup("mine", [ValueError("one")])
    with pytest.raises(ExceptionGroup) as caught, client.start(["sleep", "1000"]):
        raise error
    assert caught.value is error


def test_a_call_that_meets_with_a_close_says_so() -> None:
    """Whichever of the two is first by a step of the portal."""
    with execsrv.sync.launch() as other:
        for _ in range(4):
            client = execsrv.sync.launch()
            block = client._hold.block
            block.portal.post(block._leaving.set)
            with pytest.raises(trio.ClosedResourceError, match="Client was closed"):
                client.start(["sleep", "1000"])
            client.close()
        assert other.run(["true"]).exit_code == 0


@pytest.mark.slow
def test_to_close_at_once_in_many_threads() -> None:
    with assert_no_strays(), ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            client = execsrv.sync.launch()
            process = client.start(["sleep", "1000"])
            together = threading.Barrier(4)

            def close(
                close: Callable[[], None], together: threading.Barrier = together, process: Any = process
            ) -> None:
                together.wait(PATIENCE)
                close()
                assert process.closed

            for _ in pool.map(close, [client.close, process.close, client.close, process.close]):
                pass
        assert not portals()
