"""The process library without a server: what its founding tests asked for, its owner, and its errors."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

import execsrv
from execsrv import InvalidParamsError, LimitExceededError, SpawnError
from execsrv.processes import (
    OutputReceiver,
    SpawnedProcess,
    TerminalSize,
    combine_output_receivers,
    conpty_supported,
    open_processes,
    spawn_pipe_process,
    spawn_pipe_process_no_stdin,
    spawn_pty_process,
)
from tests.peers import PATIENCE
from tests.processes import new_mark, until_gone, until_marked

PYTHON = sys.executable
ENV = {"PATH": os.environ["PATH"]}
Spawn = Callable[..., Awaitable[SpawnedProcess]]
SPAWNS = [spawn_pty_process, spawn_pipe_process, spawn_pipe_process_no_stdin]


async def text_of(receiver: OutputReceiver) -> str:
    return b"".join([chunk async for chunk in receiver]).decode()


async def until(receiver: OutputReceiver, pattern: str) -> str:
    seen = ""
    while not re.search(pattern, seen):
        seen += (await receiver.receive()).decode()
    return seen


# -- the founding tests --


async def test_a_python_repl_on_a_terminal() -> None:
    async with open_processes():
        with trio.fail_after(PATIENCE):
            spawned = await spawn_pty_process(PYTHON, ["-i", "-q"], "/", {**ENV, "TERM": "dumb"}, None, TerminalSize())
            writer = spawned.session.writer_sender()
            await until(spawned.stdout_rx, ">>> ")
            await writer.send(b"print('hello from' + ' pty')\n")
            await until(spawned.stdout_rx, "hello from pty")
            await writer.send(b"exit()\n")
            assert await spawned.exit_rx.receive() == 0
            with pytest.raises(trio.EndOfChannel):
                await spawned.exit_rx.receive()
            await text_of(spawned.stdout_rx)
            assert await text_of(spawned.stderr_rx) == ""
            assert spawned.session.has_exited()
            assert spawned.session.exit_code() == 0


async def test_a_round_trip_through_pipes() -> None:
    async with open_processes():
        with trio.fail_after(PATIENCE):
            spawned = await spawn_pipe_process("cat", [], "/", ENV)
            await spawned.session.writer_sender().send(b"round trip\n")
            assert await until(spawned.stdout_rx, "\n") == "round trip\n"
            assert not spawned.session.has_exited()
            assert spawned.session.exit_code() is None
            spawned.session.close_stdin()
            spawned.session.close_stdin()
            assert await spawned.exit_rx.receive() == 0
            assert await text_of(combine_output_receivers(spawned.stdout_rx, spawned.stderr_rx)) == ""


async def type_into_cat() -> None:
    spawned = await spawn_pty_process("cat", [], "/", ENV)
    await spawned.session.writer_sender().send(b"typed\n")
    spawned.session.close_stdin()
    assert await spawned.exit_rx.receive() == 0
    assert await text_of(spawned.stdout_rx) == "typed\r\ntyped\r\n"


async def test_end_of_file_on_many_terminals() -> None:
    async with open_processes():
        with trio.fail_after(PATIENCE):
            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(type_into_cat)


async def test_without_stdin_its_end_is_read_at_once() -> None:
    async with open_processes():
        with trio.fail_after(PATIENCE):
            spawned = await spawn_pipe_process_no_stdin("sh", ["-c", "cat; echo end"], "/", ENV)
            assert await text_of(spawned.stdout_rx) == "end\n"
            with pytest.raises(trio.BrokenResourceError):
                await spawned.session.writer_sender().send(b"x")
            spawned.session.close_stdin()


@pytest.mark.parametrize("spawn", SPAWNS)
async def test_one_surface_for_all(spawn: Spawn) -> None:
    async with open_processes():
        with trio.fail_after(PATIENCE):
            script = 'echo "$0 $1 $PWD $X"; exit 7'
            spawned = await spawn("sh", ["-c", script, "zero", "one"], "/usr", {**ENV, "X": "y"}, "other-sh")
            assert (await text_of(spawned.stdout_rx)).splitlines() == ["zero one /usr y"]
            assert await spawned.exit_rx.receive() == spawned.session.exit_code() == 7


async def test_the_name_that_a_program_sees() -> None:
    async with open_processes():
        spawned = await spawn_pipe_process_no_stdin("cat", ["/proc/self/cmdline"], "/", ENV, "another")
        assert await text_of(spawned.stdout_rx) == "another\0/proc/self/cmdline\0"


@pytest.mark.parametrize("combined", [True, False])
async def test_four_mebibytes_of_stderr_alone_are_drained(combined: bool) -> None:
    script = "import sys; [sys.stderr.write('x' * 65536) for _ in range(64)]"
    async with open_processes():
        with trio.fail_after(PATIENCE):
            spawned = await spawn_pipe_process_no_stdin(PYTHON, ["-c", script], "/", ENV)
            receiver = combine_output_receivers(spawned.stdout_rx, spawned.stderr_rx) if combined else spawned.stderr_rx
            assert len(await text_of(receiver)) == 64 * 65536
            assert await spawned.exit_rx.receive() == 0


async def test_a_slow_reader_loses_nothing_and_bounds_what_waits() -> None:
    amount = 8 * 1024 * 1024
    script = f"import sys; sys.stdout.write('x' * {amount}); sys.stderr.write('done')"
    async with open_processes():
        with trio.fail_after(PATIENCE):
            spawned = await spawn_pipe_process_no_stdin(PYTHON, ["-c", script], "/", ENV)
            await spawned.stdout_rx.receive()
            await trio.testing.wait_all_tasks_blocked(0.05)
            waiting = sum(len(chunk) for output in spawned.stdout_rx._outputs for _, chunk in output.chunks)
            assert 0 < waiting <= 1024 * 1024 + 64 * 1024
            assert not spawned.session.has_exited()
            rest = await text_of(combine_output_receivers(spawned.stdout_rx, spawned.stderr_rx))
            assert amount - 64 * 1024 <= rest.count("x") < amount
            assert len(rest.replace("x", "")) == len("done")


async def test_two_streams_are_combined_in_the_order_of_arrival() -> None:
    script = "import sys\nfor i in range(50):\n print(i, file=(sys.stdout, sys.stderr)[i % 2], flush=True)\n input()"
    async with open_processes():
        with trio.fail_after(PATIENCE):
            spawned = await spawn_pipe_process(PYTHON, ["-c", script], "/", ENV)
            both = combine_output_receivers(spawned.stdout_rx, spawned.stderr_rx)
            writer = spawned.session.writer_sender()
            for i in range(50):
                assert await both.receive() == f"{i}\n".encode()
                await writer.send(b"\n")
            with pytest.raises(trio.EndOfChannel):
                await both.receive()


@pytest.mark.parametrize("spawn", SPAWNS)
async def test_nothing_arrives_after_terminate(spawn: Spawn) -> None:
    mark = new_mark()
    ticks = f"trap '' HUP TERM; exec -a {mark} bash -c 'while :; do echo tick; sleep 0.01; done'"
    argv = ["-c", 'setsid bash -c "$0" & wait', ticks]
    async with open_processes(own_process=True):
        with trio.fail_after(PATIENCE):
            spawned = await spawn("bash", argv, "/", ENV)
            both = combine_output_receivers(spawned.stdout_rx, spawned.stderr_rx)
            await until(both, "tick")
            spawned.session.terminate()
            while True:
                try:
                    both.receive_nowait()  # what had arrived before
                except trio.EndOfChannel:
                    break
            assert await spawned.exit_rx.receive() == 137
            await until_gone(mark)
            with pytest.raises(trio.EndOfChannel):
                both.receive_nowait()
            spawned.session.terminate()
            with pytest.raises(trio.BrokenResourceError):
                await spawned.session.writer_sender().send(b"x")


@pytest.mark.parametrize("spawn", SPAWNS)
async def test_the_writer_of_an_ended_process_refuses(spawn: Spawn) -> None:
    async with open_processes():
        with trio.fail_after(PATIENCE):
            spawned = await spawn("true", [], "/", ENV)
            writer = spawned.session.writer_sender()
            await spawned.exit_rx.receive()
            with pytest.raises(trio.BrokenResourceError):
                await writer.send(b"x")


async def test_a_process_that_does_not_read_can_be_terminated() -> None:
    async with open_processes(), trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE):
            spawned = await spawn_pipe_process("sleep", ["1000"], "/", ENV)

            async def write() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await spawned.session.writer_sender().send(bytes(4 * 1024 * 1024))

            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked(0.01)
            spawned.session.terminate()
            assert await spawned.exit_rx.receive() == 137


async def test_a_size_from_the_first_instant_and_another_one() -> None:
    async with open_processes():
        with trio.fail_after(PATIENCE):
            script = "stty size; read _; stty size"
            spawned = await spawn_pty_process("sh", ["-c", script], "/", ENV, None, TerminalSize(31, 99))
            await until(spawned.stdout_rx, "31 99\r\n")
            spawned.session.resize(TerminalSize(rows=50, cols=120))
            await spawned.session.writer_sender().send(b"\n")
            assert "50 120" in await text_of(spawned.stdout_rx)
            spawned.session.resize(TerminalSize())
            assert TerminalSize() == (24, 80)
            for size in (TerminalSize(0, 80), TerminalSize(24, 65536), TerminalSize(24, "80")):  # type: ignore[arg-type]
                with pytest.raises(InvalidParamsError, match="must be a whole number from 1 to 65535"):
                    spawned.session.resize(size)


async def test_resize_without_a_terminal_is_an_error() -> None:
    async with open_processes():
        spawned = await spawn_pipe_process("cat", [], "/", ENV)
        with pytest.raises(InvalidParamsError, match="not attached to a terminal"):
            spawned.session.resize(TerminalSize())


@pytest.mark.parametrize("in_thread", [False, True])
async def test_dropping_a_handle_kills(in_thread: bool) -> None:
    mark = new_mark()
    async with open_processes(own_process=True):
        script = f"exec -a {mark} sleep 1000 & exec -a {mark} sleep 1000"
        handles = [(await spawn_pipe_process("bash", ["-c", script], "/", ENV)).session]
        await until_marked(mark, 2)
        if in_thread:
            thread = threading.Thread(target=handles.clear)
            thread.start()
            await trio.to_thread.run_sync(thread.join)
        else:
            handles.clear()
        await until_gone(mark)


def test_conpty() -> None:
    assert conpty_supported()
    assert execsrv.processes.conpty_supported is conpty_supported


# -- the owner --


async def test_leaving_the_block_kills_what_is_left() -> None:
    mark = new_mark()
    with trio.fail_after(PATIENCE):
        async with open_processes(own_process=True) as processes:  # or what takes to flight at once may escape
            script = f"(setsid bash -c 'exec -a {mark} sleep 1000' &) ; exec -a {mark} sleep 1000"
            spawned = await spawn_pty_process("bash", ["-c", script], "/", ENV)
            await until_marked(mark, 2)
            assert repr(processes) == "<Processes open running=1>"
            assert repr(spawned.session) == f"<ProcessHandle pid={spawned.session.pid} running>"
        await until_gone(mark)
        assert await spawned.exit_rx.receive() == 137
        assert spawned.session.exit_code() == 137
        await text_of(spawned.stdout_rx)
        spawned.session.terminate()
        spawned.session.resize(TerminalSize())
        assert repr(processes) == "<Processes closed running=0>"


async def test_an_error_of_the_block_leaves_as_itself() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_processes():
            await spawn_pipe_process("sleep", ["1000"], "/", ENV)
            raise KeyError("mine")


async def test_without_an_owner_nothing_is_spawned() -> None:
    for spawn in SPAWNS:
        with pytest.raises(RuntimeError, match=r"open_processes\(\)"):
            await spawn("true", [], "/", ENV)


async def test_the_owner_is_that_of_the_task_that_started_this_one() -> None:
    async with trio.open_nursery() as outer:
        left = trio.Event()

        async def spawn_late() -> None:
            await left.wait()
            with pytest.raises(RuntimeError, match="was left"):
                await spawn_pipe_process("true", [], "/", ENV)

        async with open_processes() as first:
            async with open_processes() as second, trio.open_nursery() as inner:
                inner.start_soon(spawn_pipe_process, "sleep", ["1000"], "/", ENV)
                spawned = await spawn_pipe_process("sleep", ["1000"], "/", ENV)
                assert "running=0" in repr(first)
                assert "running" in repr(second)
                outer.start_soon(spawn_late)
            assert await spawned.exit_rx.receive() == 137
            spawned = await spawn_pipe_process("true", [], "/", ENV)
            assert await spawned.exit_rx.receive() == 0
        left.set()


async def test_what_outlives_the_leader_is_kept_until_the_handle_goes() -> None:
    mark = new_mark()
    async with open_processes():
        with trio.fail_after(PATIENCE):
            script = f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 & exit 3"
            spawned = await spawn_pipe_process("bash", ["-c", script], "/", ENV)
            assert await spawned.exit_rx.receive() == 3
            assert await text_of(spawned.stdout_rx) == ""
            await until_marked(mark, 1)
            spawned.session.terminate()
            await until_gone(mark)
            assert spawned.session.exit_code() == 3


async def test_a_cancelled_spawn_leaves_nothing() -> None:
    mark = new_mark()
    async with open_processes():
        for step in range(8):
            with trio.CancelScope() as scope:

                async def cancel(scope: trio.CancelScope = scope, step: int = step) -> None:
                    for _ in range(step):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel)
                    await spawn_pipe_process("bash", ["-c", f"exec -a {mark} sleep 1000"], "/", ENV)
                    await trio.sleep_forever()
        await until_gone(mark)


# -- receivers --


async def test_a_closed_receiver_holds_nobody_up() -> None:
    async with open_processes():
        with trio.fail_after(PATIENCE):
            spawned = await spawn_pipe_process_no_stdin("head", ["-c", "8000000", "/dev/zero"], "/", ENV)
            await spawned.stdout_rx.aclose()
            assert await spawned.exit_rx.receive() == 0
            with pytest.raises(trio.ClosedResourceError):
                await spawned.stdout_rx.receive()
            assert repr(spawned.stdout_rx) == "<OutputReceiver closed chunks=0>"


async def test_combined_receivers_are_used_up() -> None:
    async with open_processes():
        spawned = await spawn_pipe_process("cat", [], "/", ENV)
        with pytest.raises(ValueError, match="two receivers"):
            combine_output_receivers(spawned.stdout_rx, spawned.stdout_rx)
        both = combine_output_receivers(spawned.stdout_rx, spawned.stderr_rx)
        for receiver in (spawned.stdout_rx, spawned.stderr_rx):
            with pytest.raises(trio.ClosedResourceError, match="combined"):
                await receiver.receive()
        with pytest.raises(trio.ClosedResourceError, match="combined"):
            combine_output_receivers(spawned.stdout_rx, spawned.stderr_rx)
        await spawned.stdout_rx.aclose()  # which has nothing any more
        await spawned.session.writer_sender().send(b"still here")
        assert await both.receive() == b"still here"


async def test_one_reader_at_a_time() -> None:
    async with open_processes(), trio.open_nursery() as nursery:
        spawned = await spawn_pipe_process("cat", [], "/", ENV)
        nursery.start_soon(spawned.stdout_rx.receive)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(trio.BusyResourceError):
            await spawned.stdout_rx.receive()
        with pytest.raises(trio.BusyResourceError):
            combine_output_receivers(spawned.stdout_rx, spawned.stderr_rx)
        nursery.cancel_scope.cancel()


# -- bad input --


@pytest.mark.parametrize(
    ("program", "args", "cwd", "env", "error", "words"),
    [
        ("no-such-program", [], "/", ENV, SpawnError, "find `no-such-program` in PATH"),
        ("", [], "/", ENV, SpawnError, "missing program"),
        ("true", [], "/no/such/directory", ENV, SpawnError, "No such file or directory"),
        ("true", ["a\0b"], "/", ENV, SpawnError, "nul byte"),
        ("true", "abc", "/", ENV, TypeError, "args must be a list"),
        ("true", [3], "/", ENV, InvalidParamsError, r"args\[0\] must be a string"),
        ("true", [], b"/", ENV, InvalidParamsError, "cwd must be a string"),
        (b"true", [], "/", ENV, InvalidParamsError, "program must be a string, got bytes"),
        ("true", [], "/", {"A": 5}, InvalidParamsError, "env\\['A'\\] must be a string, got int"),
        ("true", [], "/", {5: "A"}, InvalidParamsError, r"env\[5\] must be a string, got int"),
        ("true", [], "/", {"A=B": "5"}, InvalidParamsError, "env: 'A=B' is no name of a variable"),
    ],
)
@pytest.mark.parametrize("spawn", SPAWNS)
async def test_what_cannot_be_spawned(
    spawn: Spawn, program: Any, args: Any, cwd: Any, env: Any, error: type[Exception], words: str
) -> None:
    async with open_processes() as processes:
        with pytest.raises(error, match=words):
            await spawn(program, args, cwd, env)
        assert repr(processes) == "<Processes open running=0>"


@pytest.mark.parametrize("size", [None, (1, 2, 3)])
async def test_a_size_that_is_none_is_refused(size: Any) -> None:
    async with open_processes():
        with pytest.raises(InvalidParamsError, match="size must be"):
            await spawn_pty_process("true", [], "/", ENV, None, size)


@pytest.mark.parametrize("value", [5, "text"])
async def test_only_bytes_are_sent(value: Any) -> None:
    async with open_processes():
        spawned = await spawn_pipe_process("cat", [], "/", ENV)
        with pytest.raises(TypeError, match="value must be bytes, got"):
            await spawned.session.writer_sender().send(value)


async def test_sends_that_were_cancelled_are_bounded() -> None:
    async with open_processes():
        spawned = await spawn_pipe_process("sleep", ["1000"], "/", ENV)
        writer = spawned.session.writer_sender()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.send, bytes(10 * 1024 * 1024))
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        with pytest.raises(LimitExceededError, match="queued_stdin_bytes"):
            await writer.send(b"x")
