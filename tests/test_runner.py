"""Version 2 of a runner: many commands over one channel, each with its streams, its signals and its end."""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from execsrv._processes import proc
from execsrv._processes.own_streams import OwnInput
from execsrv._processes.supervisor import Supervisor
from execsrv._runner import input as inputs
from execsrv._runner import version_1_messages
from execsrv._runner.command import RunnerCommand
from execsrv._runner.frames import encode
from execsrv._runner.outgoing import Outgoing
from execsrv._runner.version_2 import MOST_COMMANDS
from execsrv._runner.version_2_messages import (
    STDIN_WINDOW_BYTES,
    CloseStdin,
    Credit,
    Data,
    Eof,
    Error,
    Exit,
    Forget,
    Hello,
    HelloBack,
    Look,
    Looked,
    Ping,
    Pong,
    Resize,
    Signal,
    Signaled,
    SpawnReady,
    StdinDone,
    Terminate,
    TreeEmpty,
)
from execsrv._threads import SharedThreads
from execsrv.protocol import EnvPolicy, Size
from execsrv.protocol.process_limits import ProcessLimits
from execsrv.protocol.sandbox import FileSystem, Permissions, PolicyEntry, Sandbox, Special, SpecialPlace
from tests import hanging
from tests.confined import needs_confinement
from tests.escapes import ESCAPES, until_astray, until_none_lives
from tests.peers import PATIENCE
from tests.processes import marked, new_mark, until_gone, until_in_front, until_marked
from tests.runners import Program, RunnerPeer, open_program, open_runner, request
from tests.test_survivors import as_ordinary_user


@pytest.fixture
async def runner() -> AsyncIterator[RunnerPeer]:
    async with open_runner() as peer:
        yield peer


async def test_a_command_with_all_of_its_life(runner: RunnerPeer) -> None:
    pid = await runner.start(1, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert pid > 1
    assert await runner.until_over(1, "stdout", "stderr") == Exit(1, 7)
    assert runner.bytes == {(1, "stdout"): b"out\n", (1, "stderr"): b"err\n"}


async def test_all_that_the_leader_wrote_comes_before_its_exit(runner: RunnerPeer) -> None:
    await runner.send(request(1, "sh", "-c", "sleep 1000 & head -c 300000 /dev/zero; exit 3"))
    await runner.until(Exit)
    assert runner.bytes[1, "stdout"] == bytes(300000)
    assert not [message for message in runner.came if isinstance(message, Eof)]  # somebody still holds the streams
    await runner.send(Terminate(1))
    assert (await runner.until(TreeEmpty)).layer is not None
    await runner.until(Eof)


async def test_the_exit_comes_while_others_print_on_and_on(runner: RunnerPeer) -> None:
    await runner.start(1, "sh", "-c", "cat /dev/zero & exit 3")
    assert (await runner.until(Exit)).exit_code == 3
    await runner.send(Terminate(1))
    await runner.until(Eof, lambda eof: eof.stream == "stdout")


async def test_many_commands_at_once_and_none_holds_up_another(runner: RunnerPeer) -> None:
    runner.gives = False
    await runner.send(*(request(number, "sh", "-c", "cat /dev/zero") for number in range(20)))
    await runner.send(*(request(number, "sh", "-c", f"echo {number}; exit {number}") for number in range(20, 40)))
    for number in range(20, 40):
        exit = await runner.until_over(number, "stdout", "stderr")
        assert exit.exit_code == number
        assert runner.bytes[number, "stdout"] == b"%d\n" % number


async def test_no_more_is_sent_of_a_stream_than_there_is_credit_for(runner: RunnerPeer) -> None:
    runner.gives = False
    await runner.start(1, "sh", "-c", "head -c 500000 /dev/zero", window=100_000)
    await runner.send(Ping())
    while len(runner.bytes[1, "stdout"]) < 100_000:
        await runner.read()
    await runner.send(Credit(1, "stdout", 1))
    await runner.send(Ping())
    await runner.until(Pong)
    await runner.until(Pong)
    while len(runner.bytes[1, "stdout"]) < 100_001:
        await runner.read()
    await runner.send(Look(1, 1))
    await runner.until(Looked)
    assert len(runner.bytes[1, "stdout"]) == 100_001
    await runner.send(Credit(1, "stdout", 1 << 40))
    await runner.until_over(1, "stdout", "stderr")
    assert len(runner.bytes[1, "stdout"]) == 500_000


async def test_input_to_its_end(runner: RunnerPeer) -> None:
    await runner.start(1, "sort", stdin_open=True)
    await runner.send(Data(1, "stdin", b"b\na"), Data(1, "stdin", b"\n"), CloseStdin(1))
    assert (await runner.until_over(1, "stdout", "stderr")).exit_code == 0
    assert runner.bytes[1, "stdout"] == b"a\nb\n"
    done = [message.bytes for message in runner.came if isinstance(message, StdinDone)]
    assert sum(done) == 4


async def test_a_command_without_input_reads_an_empty_one(runner: RunnerPeer) -> None:
    await runner.start(1, "cat")
    assert (await runner.until_over(1, "stdout")).exit_code == 0


async def test_much_input_goes_as_the_command_reads_it(runner: RunnerPeer) -> None:
    await runner.start(1, "sh", "-c", "sleep 0.1; cksum", stdin_open=True)
    credit, left = STDIN_WINDOW_BYTES, 3_000_000
    while left:
        if not credit:
            credit += (await runner.until(StdinDone)).bytes
        size = min(left, credit, 65536)
        await runner.send(Data(1, "stdin", bytes(size)))
        left, credit = left - size, credit - size
    await runner.send(CloseStdin(1))
    await runner.until_over(1, "stdout")
    assert runner.bytes[1, "stdout"].split()[1] == b"3000000"


async def test_input_that_nobody_reads_any_more_is_told(runner: RunnerPeer) -> None:
    await runner.start(1, "sh", "-c", "exec <&-; echo ready; sleep 1000", stdin_open=True)
    await runner.until_bytes(1, "stdout", b"ready")
    await runner.send(Data(1, "stdin", b"x"), Data(1, "stdin", b"y"))
    assert (await runner.until(StdinDone)) == StdinDone(1, 0, closed=True)


async def test_a_terminal(runner: RunnerPeer) -> None:
    mark = new_mark()
    script = f"stty size; read line; echo got $line; trap 'stty size' WINCH; (exec -a {mark} sleep 1000)"
    await runner.start(1, "bash", "-c", script, tty=True, size=Size(33, 99))
    await runner.until_bytes(1, "pty", b"33 99\r\n")
    await runner.send(Look(1, 5))
    assert (await runner.until(Looked)).echoes
    await runner.send(Data(1, "stdin", b"word\n"))
    await runner.until_bytes(1, "pty", b"got word\r\n")
    await until_in_front(mark)
    await runner.send(Signal(1, 6, signal.SIGINT, "foreground"))
    assert (await runner.until(Signaled)).received >= 1
    exit = await runner.until_over(1, "pty")
    assert exit.signal == "SIGINT" or exit.exit_code == 130


async def test_the_size_of_a_terminal_changes(runner: RunnerPeer) -> None:
    await runner.start(1, "sh", "-c", "read line; stty size", tty=True)
    await runner.send(Resize(1, 7, 70), Data(1, "stdin", b"\n"))
    await runner.until_over(1, "pty")
    assert b"7 70" in runner.bytes[1, "pty"]


async def test_the_end_of_a_terminals_input_is_its_key(runner: RunnerPeer) -> None:
    await runner.start(1, "cat", tty=True)
    await runner.send(Data(1, "stdin", b"line\n"), CloseStdin(1))
    assert (await runner.until_over(1, "pty")).exit_code == 0
    assert sum(message.bytes for message in runner.came if isinstance(message, StdinDone)) == 5


@pytest.mark.parametrize(("target", "received"), [("leader", 1), ("group", 2), ("tree", 3)])
async def test_a_signal_reaches_its_target(runner: RunnerPeer, target: str, received: int) -> None:
    mark = new_mark()
    script = f"(exec -a {mark} sleep 1000) & setsid bash -c 'exec -a {mark} sleep 1000' &"
    await runner.start(1, "bash", "-c", f"{script} exec -a {mark} sleep 1000")  # who waits for no child
    await until_marked(mark, 3)
    await runner.send(Signal(1, 9, signal.SIGTERM, target))  # type: ignore[arg-type]
    assert await runner.until(Signaled) == Signaled(9, received)
    assert await runner.until(Exit) == Exit(1, 143, "SIGTERM")


async def test_who_lives_of_it_and_what_it_takes(runner: RunnerPeer) -> None:
    pid = await runner.start(1, "sh", "-c", "sleep 1000 & wait")
    looked = Looked(0)
    while len(looked.members) < 2:
        await runner.send(Look(1, 4))
        looked = await runner.until(Looked)
    assert looked.request == 4
    assert pid in {member.pid for member in looked.members}
    assert looked.memory_bytes > 0


@pytest.mark.parametrize("tty", [False, True])
async def test_who_waits_for_input(runner: RunnerPeer, tty: bool) -> None:
    pid = await runner.start(1, "cat", stdin_open=True, tty=tty)
    looked = Looked(0)
    while looked.input_wait is None:
        await runner.send(Look(1, 4))
        looked = await runner.until(Looked)
    assert (looked.input_wait.pid, looked.input_wait.call, looked.input_wait.descriptor) == (pid, "read", 0)


@pytest.mark.skipif(not hanging.available(), reason="nothing of this user can make the kernel hang")
async def test_whose_wait_the_kernel_does_not_tell_holds_up_nobody(runner: RunnerPeer) -> None:
    pid = await runner.start(1, *hanging.argv(), stdin_open=True)
    await runner.until_bytes(1, "stdout", b"hanging")
    await runner.send(Look(1, 4))
    await runner.start(2, "true")
    looked = await runner.until(Looked)
    assert [member.pid for member in looked.members] == [pid]
    assert (looked.errno, looked.input_wait) == (None, None)
    assert proc.living(pid)  # nothing was answered because it had ended


async def test_terminate_takes_everything_and_terminate_with_a_grace_asks(runner: RunnerPeer) -> None:
    mark = new_mark()
    script = f"trap 'echo asked; exit 4' TERM; setsid bash -c 'trap \"\" TERM; exec -a {mark} sleep 1000' & wait"
    await runner.start(1, "bash", "-c", script)
    await until_marked(mark, 1)
    await runner.send(Terminate(1, 60_000))
    assert (await runner.until(Exit)).exit_code == 4
    assert runner.bytes[1, "stdout"] == b"asked\n"
    assert marked(mark)  # it kills nothing by itself
    await runner.send(Terminate(1))
    await runner.until(TreeEmpty)
    assert not marked(mark)


async def test_terminate_comes_through_while_nobody_reads(runner: RunnerPeer) -> None:
    """Neither output without credit nor a command that is deaf is in its way."""
    runner.gives = False
    await runner.start(1, "sh", "-c", "cat /dev/zero", stdin_open=True)
    await runner.send(*[Data(1, "stdin", bytes(65536))] * (STDIN_WINDOW_BYTES // 65536))
    while len(runner.bytes[1, "stdout"]) < 1024 * 1024:
        await runner.read()
    await runner.send(Terminate(1))
    assert (await runner.until(TreeEmpty)).layer is not None


async def test_forget_leaves_nothing(runner: RunnerPeer) -> None:
    mark = new_mark()
    await runner.start(1, "bash", "-c", f"echo; exec -a {mark} sleep 1000")
    await until_marked(mark, 1)
    await runner.send(Forget(1))
    await until_gone(mark)
    await runner.start(2, "true")
    await runner.until_over(2)
    assert not [message for message in runner.came if isinstance(message, Exit | TreeEmpty) and message.id == 1]


async def test_a_command_that_cannot_be_started(runner: RunnerPeer) -> None:
    await runner.send(request(1, "no-such-program"), request(2, "/etc/passwd"), request(3, "true", modes={"no": True}))
    assert (await runner.until(Error, lambda error: error.id == 1)).stage == "program"
    error = await runner.until(Error, lambda error: error.id == 2)
    assert (error.code, error.stage, error.errno) == ("spawn_failed", "permission", 13)
    assert (await runner.until(Error, lambda error: error.id == 3)).kind == "invalid-params"
    await runner.send(request(4, "x" * 1024 * 1024))
    assert len((await runner.until(Error, lambda error: error.id == 4)).message) < 5000
    await runner.start(5, "true")


async def test_the_environment_is_exact_or_laid_upon_that_of_the_runner(runner: RunnerPeer) -> None:
    await runner.start(1, "env")
    await runner.until_over(1, "stdout")
    assert runner.bytes[1, "stdout"] == b"PATH=%s\n" % os.environb[b"PATH"]
    policy = EnvPolicy("all", True, [], {"ADDED": "1"}, [])
    await runner.start(2, "env", env_policy=policy, env_remove=["HOME"])
    await runner.until_over(2, "stdout")
    names = {line.partition(b"=")[0].decode() for line in runner.bytes[2, "stdout"].splitlines()}
    assert "ADDED" in names
    assert "HOME" not in names


async def test_merged_and_dropped_streams_and_the_name_of_the_program(runner: RunnerPeer) -> None:
    await runner.start(1, "sh", "-c", "echo $0; echo err >&2", arg0="me", stderr="stdout")
    await runner.until_over(1, "stdout")
    assert runner.bytes[1, "stdout"] == b"me\nerr\n"
    await runner.start(2, "sh", "-c", "echo out; echo err >&2; umask", stdout="null", umask=0o27)
    await runner.until_over(2, "stderr")
    assert (2, "stdout") not in runner.bytes


async def test_passed_ends_are_the_commands_own(runner: RunnerPeer) -> None:
    stdin, to_stdin = os.pipe()
    from_stdout, stdout = os.pipe()
    await runner.send_with(request(1, "cat", stdin_passed=True, stdout="passed"), stdin, stdout)
    os.close(stdin)
    os.close(stdout)
    await runner.until(SpawnReady)
    os.write(to_stdin, b"directly")
    os.close(to_stdin)
    assert (await runner.until_over(1, "stderr")).exit_code == 0
    assert os.read(from_stdout, 100) == b"directly"
    assert os.read(from_stdout, 100) == b""  # the runner has kept no end of it
    os.close(from_stdout)
    assert (1, "stdout") not in runner.bytes


async def test_passed_ends_of_a_start_that_fails_are_closed(runner: RunnerPeer) -> None:
    from_stdout, stdout = os.pipe()
    await runner.send_with(request(1, "no-such-program", stdout="passed"), stdout)
    os.close(stdout)
    await runner.until(Error)
    assert os.read(from_stdout, 100) == b""
    os.close(from_stdout)


async def test_a_start_whose_ends_find_no_descriptor_is_refused_and_no_other_ends() -> None:
    async with open_program() as runner:
        await runner.send(Hello())
        await runner.until(HelloBack)
        await runner.start(1, "cat", stdin_open=True)
        null = os.open(os.devnull, os.O_RDWR)
        soft, hard = resource.prlimit(runner.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(runner.process.pid, resource.RLIMIT_NOFILE, (0, hard))
        await runner.send_with(request(2, "true", stdin_passed=True, stdout="passed"), null, null)
        error = await runner.until(Error)
        assert (error.id, error.code, error.stage, error.errno) == (2, "spawn_failed", "resources", errno.EMFILE)
        resource.prlimit(runner.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        await runner.send_with(request(3, "true", stdin_passed=True, stdout="passed"), null, null)
        os.close(null)
        assert (await runner.until_over(3, "stderr")).exit_code == 0
        await runner.send(Data(1, "stdin", b"lives"), CloseStdin(1))
        await runner.until_over(1, "stdout", "stderr")
        assert runner.bytes[1, "stdout"] == b"lives"


async def test_hello_tells_whether_descriptors_arrive() -> None:
    async with open_runner(says_hello=False) as runner:
        await runner.send_with(Hello(), 0)
        await runner.read()
        assert "descriptors=True" in repr(runner.came)


@needs_confinement
async def test_a_confined_command(runner: RunnerPeer) -> None:
    root = PolicyEntry(SpecialPlace(Special("root")), "read")
    sandbox = Sandbox(Permissions("managed", "restricted", FileSystem("restricted", [root])))
    await runner.send(request(1, "touch", "/tmp/execsrv-runner", sandbox=sandbox))
    assert (await runner.until(SpawnReady)).layers
    assert (await runner.until_over(1, "stderr")).exit_code == 1
    assert b"Read-only file system" in runner.bytes[1, "stderr"]
    unknown = Sandbox(Permissions("dance"))
    await runner.send(request(2, "true", sandbox=unknown))
    error = await runner.until(Error)
    assert (error.code, error.kind, error.field) == ("spawn_failed", "sandboxUnavailable", "sandbox")


@pytest.mark.slow
async def test_there_is_a_bound_on_commands(runner: RunnerPeer) -> None:
    for number in range(MOST_COMMANDS):
        await runner.start(number, "sleep", "1000", stdout="null", stderr="null")
    await runner.send(request(MOST_COMMANDS, "true"))
    assert (await runner.until(Error)).code == "busy"


async def test_limits_are_kept_and_the_one_that_it_died_of_is_told(runner: RunnerPeer, tmp_path: Path) -> None:
    limits = ProcessLimits(file_bytes=1000, open_files=20)
    script = f"ulimit -n; exec head -c 5000 /dev/zero > {tmp_path}/file"
    await runner.start(1, "bash", "-c", script, limits=limits)
    empty = await runner.until(TreeEmpty)
    assert empty.usage is not None
    assert empty.usage.cpu_seconds >= 0
    exit = await runner.until(Exit)
    assert (exit.signal, exit.limit) == ("SIGXFSZ", "file-size")
    assert runner.bytes[1, "stdout"] == b"20\n"


@pytest.mark.few
@pytest.mark.parametrize("ending", ["hang up", pytest.param("kill", marks=pytest.mark.slow)])
@pytest.mark.parametrize("tty", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_nothing_survives_whatever_it_does(ending: str, tty: bool) -> None:
    async with open_program() as program:
        await survive_nothing(program, ending, tty=tty)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["hang up", "kill"])
async def test_nothing_of_a_runner_of_another_user_survives(ending: str) -> None:
    """As a server that is no root has one by sudo."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        (*command, _), env = as_ordinary_user(Path(folder))
        python = command[command.index("-m") - 1]
        async with open_program([*command, "runner"], env) as program:
            await survive_nothing(program, ending, python, env=env)


async def survive_nothing(program: Program, ending: str, python: str = sys.executable, **terms: object) -> None:
    """Start every escape, end the runner, and see that nothing is left."""
    await program.send(Hello())
    marks = {new_mark(): name for name in ESCAPES}
    for number, (mark, name) in enumerate(marks.items()):
        await program.start(number, *ESCAPES[name].argv(mark, python), **terms)
    for mark, name in marks.items():
        await until_astray(mark, ESCAPES[name].strays)
    if ending == "kill":
        program.process.kill()
    program.hang_up()
    await program.wait()
    await until_none_lives(marks)


@pytest.mark.slow
async def test_many_commands_leave_nothing_in_the_runner(runner: RunnerPeer) -> None:
    await runner.start(0, "true")
    await runner.until_over(0, "stdout", "stderr")
    gc.collect()  # of the tests before
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 200):
        await runner.send(request(number, "cat", stdin_open=True, tty=number % 2 == 0), CloseStdin(number - 1))
        await runner.until(SpawnReady)
        await runner.send(CloseStdin(number) if number % 3 else Forget(number))
    for number in range(1, 200):
        if number % 3:
            await runner.until_over(number)
    await runner.send(request(1000, "sh", "-c", "exit"))
    await runner.until_over(1000, "stdout", "stderr")
    with trio.fail_after(PATIENCE):
        while True:  # those that were forgotten say nothing when they are over
            if len(os.listdir("/proc/self/fd")) <= before:
                break
            await trio.sleep(0.01)


BREACHES: dict[str, list[Struct]] = {
    "bytes for nobody": [Data(7, "stdin", b"x")],
    "an id that never was": [Terminate(7)],
    "an id twice": [request(1, "true"), request(1, "true")],
    "an id that goes down": [request(2, "true"), request(1, "true")],
    "a second hello": [Hello()],
    "descriptors that did not come": [request(1, "cat", stdin_passed=True)],
    "another version": [version_1_messages.Terminate()],
}


@pytest.mark.parametrize("name", BREACHES)
async def test_a_server_that_breaks_the_protocol_is_told_and_loses_everything(name: str) -> None:
    mark = new_mark()
    async with open_runner() as runner:
        await runner.start(0, "bash", "-c", f"exec -a {mark} sleep 1000")
        await until_marked(mark, 1)
        await runner.send(*BREACHES[name])
        assert (await runner.until(Error)).code == "protocol"
        await runner.until_end()
        assert not marked(mark)


async def test_keys_that_end_the_input_of_a_terminal_take_none_of_its_credit(runner: RunnerPeer) -> None:
    await runner.start(1, "sleep", "1000", tty=True)
    await runner.send(CloseStdin(1), *[Data(1, "stdin", b"\n" * 65536)] * (STDIN_WINDOW_BYTES // 65536))
    taken, given = (await runner.until(StdinDone)).bytes, 0
    while taken > given:  # until the terminal takes no more
        await runner.send(Data(1, "stdin", b"\n" * (taken - given)), Ping())
        given = taken
        await runner.until(Pong)
        done = [message for message in runner.came if isinstance(message, StdinDone)]
        runner.came = [message for message in runner.came if message not in done]
        taken += sum(message.bytes for message in done)
    await runner.send(Terminate(1))
    await runner.until_over(1, "pty")


async def test_a_file_for_input_grows_no_larger_than_what_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_BYTES", 3_000_000)
    monkeypatch.setattr(inputs, "MAX_PAYLOAD_BYTES", 100_000)
    gc.collect()  # of the tests before
    before = {*map(os.readlink, _open_files())}
    pieces = [os.urandom(100_000) for _ in range(160)]
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    its = inputs.Input(OwnInput(writing, is_terminal=False), lambda count: None, is_terminal=False)
    came, sizes = bytearray(), [0]

    async def read() -> bool:
        try:
            came.extend(data := os.read(reading, 65536))
        except BlockingIOError:
            data = b"later"
        await trio.lowlevel.checkpoint()
        return bool(data)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(its.feed)
            for piece in pieces:
                its.put(piece)
                while its.waiting_bytes > inputs.MOST_BYTES:
                    await read()
                sizes += [os.stat(file).st_size for file in _open_files() if os.readlink(file) not in before]
            its.end()
            while await read():
                pass
    os.close(reading)
    assert came == b"".join(pieces)
    assert 1_000_000 < max(sizes) <= 3_100_000


def _open_files() -> list[str]:
    """Return the descriptors of files that have no name, by their paths."""
    found = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [path for path in found if os.path.lexists(path) and os.readlink(path).endswith("(deleted)")]


async def test_words_may_come_until_the_very_end_of_a_command() -> None:
    async def send(data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    supervisor, outgoing = Supervisor(), Outgoing(send)
    threads = SharedThreads(supervisor.threads)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outgoing.run)
            for number in range(20):
                command = RunnerCommand(request(number, "true"), {}, outgoing)
                async with trio.open_nursery() as running:
                    running.start_soon(command.run, supervisor, threads)
                    await trio.lowlevel.checkpoint()
                    while running.child_tasks:  # in each turn of the loop
                        command.terminate(grace_ms=1)
                        await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("tty", [False, True])
async def test_of_a_command_that_cannot_be_told_each_descriptor_is_closed_once(tty: bool) -> None:
    class Speechless(Outgoing):
        def tell(self, message: Struct) -> None:
            if isinstance(message, SpawnReady):
                raise ValueError("there are no words for it")

    async def send(data: bytes) -> None:
        raise AssertionError

    supervisor = Supervisor()
    command = RunnerCommand(request(0, "cat", tty=tty, stdin_open=True), {}, Speechless(send))
    before = sorted(os.listdir("/proc/self/fd"))
    with trio.fail_after(PATIENCE), pytest.raises(ValueError, match="no words"):  # nor that a descriptor is not open
        await command.run(supervisor, SharedThreads(supervisor.threads))
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_more_input_than_its_credit_is_a_breach() -> None:
    async with open_runner() as runner:
        await runner.start(1, "sleep", "1000", stdin_open=True)
        with suppress(OSError):  # it may hang up while we send
            await runner.send(*[Data(1, "stdin", bytes(65536))] * (3 * STDIN_WINDOW_BYTES // 65536))
        await runner.until_end()
    assert "more input than its credit" in runner.complaint


async def test_an_unknown_version_is_answered_with_those_that_are_known() -> None:
    async with open_runner(says_hello=False) as runner:
        payload = b'{"version": 7, "type": "hello", "payload": {}}'
        await runner.send_bytes(len(payload).to_bytes(4, "little") + payload)
        error = await runner.until(Error)
        assert (error.id, error.code, error.versions) == (None, "unsupported_version", [1, 2])


async def test_a_hostile_server_that_reads_nothing_is_read_from_no_more(runner: RunnerPeer) -> None:
    """Answers that nobody reads do not pile up."""
    sent = 0
    ping = encode(Ping()) * 1000
    while sent < 64 * 1024 * 1024:
        with trio.move_on_after(1) as patience:
            sent += await runner.socket.send(ping)
        if patience.cancelled_caught:
            break
    assert sent < 32 * 1024 * 1024


# -- as a program --


async def test_the_program_ends_with_its_channel_and_so_does_everything() -> None:
    mark = new_mark()
    async with open_program() as program:
        await program.send(Hello())
        script = f"trap '' TERM HUP; setsid bash -c 'exec -a {mark} sleep 1000' & exec -a {mark} sleep 1000"
        await program.start(1, "bash", "-c", script)
        await until_marked(mark, 2)
        program.hang_up()
        assert await program.wait() == 0
        assert not marked(mark)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_everything_ends_with_the_program(number: signal.Signals) -> None:
    mark = new_mark()
    async with open_program() as program:
        await program.send(Hello())
        await program.start(1, "bash", "-c", f"setsid bash -c 'exec -a {mark} sleep 1000' & wait")
        await until_marked(mark, 1)
        program.process.send_signal(number)
        await program.until_end()
        await program.wait()
        await until_gone(mark)


async def test_a_command_has_none_of_its_descriptors_and_cannot_read_its_memory() -> None:
    script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))); open(f'/proc/{os.getppid()}/environ')"
    async with open_program() as program:
        await program.send(Hello())
        await program.start(1, sys.executable, "-c", script)
        exit = await program.until_over(1, "stdout", "stderr")
        assert program.bytes[1, "stdout"] == b"[0, 1, 2, 3]\n"  # 3 is that of the listing
        assert exit.exit_code == (0 if os.geteuid() == 0 else 1)


# -- a hostile server --


@given(st.data())
@settings(max_examples=25)
def test_whatever_a_server_sends_nothing_fails_and_nothing_is_left(data: st.DataObject) -> None:
    """Frames of both versions, some of them spoiled, in any order."""
    mark = new_mark()
    sane = [
        Hello(),
        request(1, "bash", "-c", f"exec -a {mark} sleep 1000", stdin_open=True),
        request(2, "true", tty=True),
        Data(1, "stdin", b"x"),
        CloseStdin(1),
        Resize(2, 1, 1),
        Signal(1, 0, 64, "group"),
        Terminate(2, 5),
        Look(1, 2**32 - 1),
        Credit(1, "pty", 2**53),
        Forget(2),
        Ping(),
        version_1_messages.Terminate(),
    ]
    said = [encode(Hello()), *(encode(message) for message in data.draw(st.lists(st.sampled_from(sane), max_size=8)))]
    spoiled = data.draw(st.integers(0, len(said) - 1))
    at = data.draw(st.integers(0, len(said[spoiled])))
    said[spoiled] = said[spoiled][:at] + data.draw(st.binary(max_size=4)) + said[spoiled][at:]

    async def talk() -> None:
        async with open_runner(says_hello=False) as runner:
            with suppress(OSError):
                await runner.send_bytes(b"".join(said))
                runner.socket.shutdown(trio.socket.SHUT_WR)
            await runner.until_end()
            assert not [message for message in runner.came if isinstance(message, Error) and message.code == "failed"]
        assert runner.status is not None
        assert not marked(mark)

    trio.run(talk)
