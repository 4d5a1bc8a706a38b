"""Version 1 of a runner, line by line: one command, confined by a policy, and the runner ends with its exit code."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from execsrv._runner.frames import encode
from execsrv._runner.preset import sandbox_of
from execsrv._runner.version_1_messages import (
    OUTPUT_BYTES,
    Error,
    Exit,
    Output,
    SpawnReady,
    SpawnRequest,
    Stdin,
    Terminate,
)
from execsrv.errors import InvalidParamsError, SandboxUnavailableError
from tests.confined import needs_confinement
from tests.peers import b64
from tests.processes import marked, new_mark, until_gone, until_in_front, until_marked
from tests.runners import RunnerPeer, open_program, open_runner

pytestmark = needs_confinement


def request(*command: str, **terms: object) -> SpawnRequest:
    """Return a request of version 1."""
    given: dict[str, object] = {"policy_json_or_preset": "read-only", "sandbox_policy_cwd": "/", "tty": False, **terms}
    return SpawnRequest(list(command), "/", {"PATH": "/usr/bin:/bin"}, **given)  # type: ignore[arg-type]


async def run(*said: SpawnRequest | Stdin | Terminate) -> tuple[RunnerPeer, Exit]:
    """Run a command to its end."""
    async with open_runner(says_hello=False) as runner:
        await runner.send(*said)
        exit = await runner.until(Exit)
        await runner.until_end()
        return runner, exit


async def test_a_command_with_all_of_its_life() -> None:
    runner, exit = await run(request("sh", "-c", "echo out; echo err >&2; cat; exit 7"))
    assert exit == Exit(7, timed_out=False)
    assert runner.bytes == {(0, "stdout"): b"out\n", (0, "stderr"): b"err\n"}
    assert isinstance(runner.came[0], SpawnReady)
    assert all(isinstance(message, Output) for message in runner.came[1:])  # and nothing behind `exit`


async def test_the_program_ends_with_the_code_of_its_command() -> None:
    async with open_program() as program:
        await program.send(request("sh", "-c", "exit 7"))
        await program.until(Exit)
        assert await program.wait() == 7


async def test_output_comes_in_pieces_of_8_kib() -> None:
    runner, _ = await run(request("head", "-c", "100000", "/dev/zero"))
    sizes = [len(message.data_b64) for message in runner.came if isinstance(message, Output)]
    assert sum(sizes) == 100_000
    assert max(sizes) == OUTPUT_BYTES


async def test_input_without_an_end_and_what_is_no_base64_is_passed_over() -> None:
    said = Stdin("b25l"), Stdin("@@@@"), Stdin("dHdv="), Stdin("dHdvCg==")
    runner, _ = await run(request("sh", "-c", "read line; echo $line", stdin_open=True), *said)
    assert runner.bytes[0, "stdout"] == b"onetwo\n"


async def test_input_where_there_is_none_is_dropped() -> None:
    runner, exit = await run(request("cat"), Stdin("b25l"))
    assert (exit.exit_code, runner.bytes) == (0, {})


async def test_a_later_request_and_what_a_runner_says_are_passed_over() -> None:
    other = request("echo", "other")
    runner, _ = await run(request("cat", stdin_open=True), other, Exit(1, False), Terminate())  # type: ignore[arg-type]
    assert not runner.bytes


async def test_a_terminal_is_only_stdout() -> None:
    runner, exit = await run(request("sh", "-c", "stty size; echo err >&2; exit 3", tty=True))
    assert exit.exit_code == 3
    assert runner.bytes == {(0, "stdout"): b"24 80\r\nerr\r\n"}


async def test_the_end_of_its_time() -> None:
    _, exit = await run(request("sleep", "1000", timeout_ms=300))
    assert exit == Exit(192, timed_out=True)


async def test_a_command_that_does_not_start_is_an_error_and_a_failure() -> None:
    async with open_runner(says_hello=False) as runner:
        await runner.send(request("no-such-program"))
        assert (await runner.until(Error)).code == "spawn_failed"
        await runner.until_end()
    assert runner.status == 1


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ("danger-full-access", "confines what it starts"),
        ('{"type": "external-sandbox", "network_access": "enabled"}', "confines what it starts"),
        ('{"type": "read-only", "access": {"type": "restricted"}}', "restricted read-only access is not supported"),
        ('{"type": "read-only", "atLeast": "landlock"}', "version 1 knows no `atLeast` of `landlock`; version 2 does"),
        ('{"type": "workspace-write", "atLeast": "landlock"}', "version 1 knows no `atLeast`"),
        ('{"type": "read-only", "atLeast": "hunter2"}', "parse policy_json_or_preset"),
        ("hunter2", "parse policy_json_or_preset"),
        ('{"type": "hunter2"}', "parse policy_json_or_preset"),
    ],
)
async def test_a_policy_that_is_not_kept_is_refused(policy: str, complaint: str) -> None:
    async with open_runner(says_hello=False) as runner:
        await runner.send(request("true", policy_json_or_preset=policy))
        message = (await runner.until(Error)).message
        assert complaint in message
        assert "hunter2" not in message
        await runner.until_end()


def test_the_words_of_a_policy() -> None:
    def writable(policy: str) -> set[str]:
        files = sandbox_of(policy, "/work").permissions.file_system
        assert files is not None
        places = {repr(entry.path) for entry in files.entries if entry.access == "write"}
        return {name for name in ("/work", "/more", "slash_tmp", "tmpdir") if any(name in place for place in places)}

    assert writable("read-only") == set()
    assert writable('{"type": "read-only", "access": {"type": "full-access"}}') == set()
    assert writable('{"type": "read-only", "atLeast": "view"}') == set()
    assert writable(" workspace-write ") == {"/work", "slash_tmp", "tmpdir"}
    only = '{"type": "workspace-write", "writable_roots": ["/more"], "exclude_slash_tmp": true,'
    assert writable(only + ' "exclude_tmpdir_env_var": true}') == {"/work", "/more"}
    networked = sandbox_of('{"type": "workspace-write", "network_access": true}', "/work")
    assert networked.permissions.network == "enabled"
    for refused in ("external-sandbox", "danger-full-access"):
        with pytest.raises(SandboxUnavailableError):
            sandbox_of(refused, "/")
    with pytest.raises(InvalidParamsError):
        sandbox_of("", "/")


async def test_what_a_policy_promises_is_kept(tmp_path: Path) -> None:
    script = f"cd {tmp_path}; touch file && echo touched; touch /usr/there; mkdir .git/x"
    (tmp_path / ".git").mkdir()
    asked = request("sh", "-c", script, policy_json_or_preset="workspace-write", sandbox_policy_cwd=str(tmp_path))
    runner, exit = await run(asked)
    assert exit.exit_code == 1
    assert runner.bytes[0, "stdout"] == b"touched\n"
    assert runner.bytes[0, "stderr"].count(b"Read-only file system") == 2


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"", "pipe closed before spawn_request"),
        (b"\1\2", "the end came in the middle of a frame"),
        (encode(Terminate()), "expected spawn_request, got Terminate"),
        (encode(Stdin("aHVudGVyMg==")), "expected spawn_request, got Stdin"),
    ],
)
async def test_a_channel_that_does_not_begin_with_a_request(said: bytes, complaint: str) -> None:
    async with open_runner(says_hello=False) as runner:
        await runner.send_bytes(said)
        runner.socket.shutdown(trio.socket.SHUT_WR)
        await runner.until_end()
    assert runner.status == 1
    assert complaint in runner.complaint


# -- the faults of the founding runner --


async def test_fault_1_terminate_comes_through_input_that_nobody_reads() -> None:
    """Its input thread was blocked by a child that did not read."""
    piece = Stdin("A" * 4 * 1024 * 1024)
    _, exit = await run(request("sleep", "1000", stdin_open=True), *[piece] * 8, Terminate())
    assert exit == Exit(1, timed_out=False)


ON_A_SMALL_DISK = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs "$TMPDIR" && exec "$@"', "sh"]


@pytest.fixture
def small_disk(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a program whose TMPDIR has room for one MiB, once `ON_A_SMALL_DISK` is in front of it."""
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    if shutil.which("unshare") is None or subprocess.run([*ON_A_SMALL_DISK, "true"], env=env).returncode:
        pytest.skip("not allowed to mount a small disk")
    return env


async def test_a_full_disk_is_told_and_ends_the_command(small_disk: dict[str, str]) -> None:
    mark = new_mark()
    runner = [sys.executable, "-m", "execsrv", "runner"]
    async with open_program([*ON_A_SMALL_DISK, *runner], small_disk) as program:
        await program.send(request("bash", "-c", f"exec -a {mark} sleep 1000", stdin_open=True))
        await program.until(SpawnReady)
        await until_marked(mark, 1)
        await program.send(*(Stdin(b64(bytes(1 << 20))) for _ in range(4)))
        error = await program.until(Error)
        cause = os.strerror(errno.ENOSPC)
        assert error == Error(f"cannot keep input that the command does not read: {cause}", "failed")
        await until_gone(mark)
        assert await program.wait() == 1


@pytest.mark.slow
async def test_fault_1_with_a_gib() -> None:
    async with open_runner(says_hello=False) as runner:
        await runner.send(request("sleep", "1000", stdin_open=True))
        piece = encode(Stdin("A" * 4 * 1024 * 1024))
        for _ in range(1024**3 // (3 * 1024 * 1024)):
            await runner.send_bytes(piece)
        await runner.send(Terminate())
        assert await runner.until(Exit) == Exit(1, timed_out=False)


async def test_fault_2_no_input_is_lost_by_a_write_that_was_short() -> None:
    piece = Stdin("A" * 4 * 1024 * 1024)
    runner, _ = await run(request("sh", "-c", "sleep 0.2; head -c 12582912 | cksum", stdin_open=True), *[piece] * 4)
    assert runner.bytes[0, "stdout"].split()[1] == b"12582912"


async def test_fault_3_the_end_of_the_parent_ends_the_command() -> None:
    mark = new_mark()
    async with open_runner(says_hello=False) as runner:
        await runner.send(request("bash", "-c", f"trap '' TERM HUP; exec -a {mark} sleep 1000"))
        await until_marked(mark, 1)
        runner.hang_up()
        await until_gone(mark)


async def test_fault_4_what_is_started_in_the_first_instant_is_ended_too() -> None:
    """Its job was joined when the child ran already."""
    mark = new_mark()
    script = f"setsid bash -c 'exec -a {mark} sleep 1000' & setsid bash -c 'exec -a {mark} sleep 1000' & exit 5"
    _, exit = await run(request("bash", "-c", script))
    assert exit.exit_code == 5
    assert not marked(mark)


async def test_fault_5_terminate_spares_no_descendant() -> None:
    mark = new_mark()
    async with open_runner(says_hello=False) as runner:
        script = f"setsid bash -c 'trap \"\" TERM; exec -a {mark} sleep 1000' & wait"
        await runner.send(request("bash", "-c", script))
        await until_marked(mark, 1)
        await runner.send(Terminate())
        assert await runner.until(Exit) == Exit(1, timed_out=False)
        assert not marked(mark)


async def test_fault_6_no_error_shows_the_environment() -> None:
    async with open_program() as program:
        payload = b'{"version": 1, "type": "spawn_request", "payload": {"env": {"A": "hunter2"}, "cwd": 5}}'
        await program.send_bytes(len(payload).to_bytes(4, "little") + payload)
        assert await program.wait() == 1
        said = await program.said()
        assert "malformed spawn_request" in said
        assert "hunter2" not in said


async def test_fault_7_is_what_version_2_is_for() -> None:
    """It has no end of input and no resize. In version 1 that stays so: a message of version 2 is none."""
    async with open_runner(says_hello=False) as runner:
        payload = b'{"version": 1, "type": "close_stdin", "payload": {}}'
        await runner.send(request("cat", stdin_open=True))
        await runner.send_bytes(len(payload).to_bytes(4, "little") + payload)
        await runner.until_end()
        assert not [message for message in runner.came if isinstance(message, Exit)]


async def test_fault_8_a_reader_that_is_slow_holds_up_nothing_but_output() -> None:
    mark = new_mark()
    async with open_runner(says_hello=False) as runner:
        await runner.send(request("bash", "-c", f"(exec -a {mark} cat /dev/zero) | cat"))
        await runner.until(SpawnReady)
        await runner.until(Output)
        await runner.send(Terminate())  # and nobody reads
        await until_gone(mark)


async def test_fault_9_a_time_is_not_cut_to_32_bits() -> None:
    _, exit = await run(request("sleep", "0.3", timeout_ms=2**32 + 1))
    assert exit == Exit(0, timed_out=False)


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_fault_10_a_part_of_a_length_is_no_end(size: int) -> None:
    async with open_runner(says_hello=False) as runner:
        await runner.send(request("sleep", "1000"))
        await runner.until(SpawnReady)
        await runner.send_bytes(b"\1\2\3"[:size])
        runner.socket.shutdown(trio.socket.SHUT_WR)
        await runner.until_end()
    assert runner.status == 1
    assert "in the middle of a frame" in runner.complaint


async def test_a_signal_that_ends_the_runner_ends_its_command() -> None:
    mark = new_mark()
    async with open_program() as program:
        await program.send(request("bash", "-c", f"exec -a {mark} sleep 1000", tty=True))
        await until_in_front(mark)
        program.process.send_signal(signal.SIGTERM)
        assert await program.wait() == 1
        assert not marked(mark)
