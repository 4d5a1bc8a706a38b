"""Who may open a runner's channel by its name, and the request file of the old way, which is gone each time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv._cli.app import called
from execsrv._processes.supervisor import Supervisor
from execsrv._runner import named
from execsrv._runner.frames import encode
from execsrv._runner.named import open_fifo, open_socket
from execsrv._runner.version_1_files import run_filed, taken
from execsrv._runner.version_1_messages import Exit, SpawnRequest
from execsrv._runner.version_2_messages import Hello, HelloBack
from execsrv.errors import ConnectionFailedError, ExecsrvError, ProtocolError
from tests.confined import needs_confinement
from tests.peers import PATIENCE
from tests.processes import marked, may_become_nobody, new_mark, until_gone, until_marked
from tests.runners import RunnerPeer

NOBODY = 65534
as_root = pytest.mark.skipif(not may_become_nobody(), reason="needs another user")


@asynccontextmanager
async def program(*options: str) -> AsyncIterator[trio.Process]:
    """Run a runner whose stdin says nothing."""
    command = [sys.executable, "-m", "execsrv", "runner", *options]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        with trio.move_on_after(PATIENCE, shield=True) as patience:
            await process.wait()
        if patience.cancelled_caught:
            process.send_signal(signal.SIGKILL)
            raise AssertionError("the runner did not end")


async def test_a_unix_socket_by_its_name(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen()
    async with program("--pipe", path):
        stream, _ = await listener.accept()
        peer = RunnerPeer(socket.socket(fileno=stream.detach()))
        await peer.send(Hello())
        await peer.until(HelloBack)
        peer.hang_up()
    listener.close()


@needs_confinement
async def test_two_fifos_by_their_names(tmp_path: Path) -> None:
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name, 0o600)
    request = SpawnRequest(["sh", "-c", "exit 7"], "/", {"PATH": "/bin"}, "read-only", "/", tty=False)
    async with program(f"--pipe-in={tmp_path}/in", f"--pipe-out={tmp_path}/out", "--pipe=/nowhere") as process:
        to_it = await trio.to_thread.run_sync(os.open, tmp_path / "in", os.O_WRONLY)
        from_it = await trio.to_thread.run_sync(os.open, tmp_path / "out", os.O_RDONLY)
        os.write(to_it, encode(request))
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 7
        assert encode(Exit(7, timed_out=False)) in os.read(from_it, 65536)
        os.close(to_it)
        os.close(from_it)


@pytest.mark.parametrize(("given", "missing"), [("--pipe-out", "pipe-in"), ("--pipe-in", "pipe-out")])
def test_half_a_channel_is_none(given: str, missing: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert called(["runner", given, "/nowhere"]) == 2
    assert f"no {missing} provided" in capfd.readouterr().err


async def refused(path: Path, *peers: int) -> str:
    """Return why a FIFO is not opened."""
    with pytest.raises(ConnectionFailedError) as caught:
        await open_fifo(str(path), os.O_RDONLY, peers)
    return str(caught.value)


async def test_what_is_no_fifo_of_ours_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "open", 0o600)
    os.chmod(tmp_path / "open", 0o620)
    assert "others may open it" in await refused(tmp_path / "open")
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    assert "it is no FIFO" in await refused(tmp_path / "link")
    (tmp_path / "file").touch(0o600)
    assert "it is no FIFO" in await refused(tmp_path / "file")
    assert "No such file" in await refused(tmp_path / "nothing")


@as_root
async def test_what_belongs_to_another_user_is_opened_only_where_he_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    os.chown(tmp_path / "fifo", NOBODY, NOBODY)
    assert "it belongs to another user (uid 65534)" in await refused(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    os.close(await open_fifo(str(tmp_path / "fifo"), os.O_RDONLY, [NOBODY]))
    os.close(writer)


@contextmanager
def nobody_listens() -> Iterator[str]:
    """Have the user nobody listen at a path, and give that."""
    script = "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])"
    script += "; s.listen(); print(flush=True); sys.stdin.read()"
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)
        path = f"{folder}/socket"
        command = [sys.executable, "-c", script, path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
            assert listener.stdout is not None
            listener.stdout.readline()
            yield path
            listener.communicate()


@as_root
async def test_a_socket_on_which_another_user_listens_is_refused() -> None:
    with nobody_listens() as path:
        with pytest.raises(ConnectionFailedError, match=r"another user \(uid 65534\) listens there"):
            await open_socket(path, [])
        os.close(await open_socket(path, [NOBODY]))


async def test_nobody_at_the_other_end(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert f"within {named.CONNECT_SECONDS} s" in await refused(tmp_path / "fifo")
    os.close(os.open(tmp_path / "fifo", os.O_RDWR))  # lets the thread go that still waits


# -- the request file --


def written(path: Path, **members: Any) -> Path:
    """Write a request file, with pipes beside it."""
    folder = path.parent
    content = {
        "command": ["true"],
        "cwd": "/",
        "env_map": {"PATH": "/usr/bin:/bin"},
        "policy_json_or_preset": "read-only",
        "sandbox_policy_cwd": "/",
        "codex_home": "/h",
        "real_codex_home": "/h",
        "cap_sids": ["S-1-1-0"],
        "timeout_ms": None,
        "use_private_desktop": False,
        **{f"{name}_pipe": str(folder / name) for name in ("stdin", "stdout", "stderr")},
        **members,
    }
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    return path


def test_the_content_of_a_request_file_comes_back_and_the_file_is_gone(tmp_path: Path) -> None:
    request = taken(str(written(tmp_path / "request", command=["make"])), [])
    assert (request.command, request.timeout_ms) == (["make"], None)
    assert not (tmp_path / "request").exists()


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


WRONG_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (_link, "Too many levels of symbolic links"),
    "open to others": (lambda path: path.chmod(0o640), "others may open it"),
    "too large": (lambda path: os.truncate(path, 8 * 1024 * 1024 + 1), "more than 8388608 bytes"),
    "malformed": (lambda path: path.write_text("{hunter2"), "parse runner request json"),
    "incomplete": (lambda path: path.write_text('{"command": ["hunter2"]}'), "parse runner request json"),
    "a FIFO": (_fifo, "no regular file"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_that_is_not_to_be_trusted_is_refused_and_gone_too(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "request")
    spoil, complaint = WRONG_FILES[name]
    spoil(path)
    with pytest.raises(ExecsrvError) as caught:
        taken(str(path), [])
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert not os.path.lexists(path)


@as_root
def test_a_file_of_another_user_is_refused_unless_he_is_named(tmp_path: Path) -> None:
    for peers in ([], [NOBODY]):
        path = written(tmp_path / "request")
        os.chown(path, NOBODY, NOBODY)
        if peers:
            assert taken(str(path), peers).command == ["true"]
        else:
            with pytest.raises(ConnectionFailedError, match="another user"):
                taken(str(path), peers)
        assert not path.exists()


async def filed(tmp_path: Path, **members: Any) -> tuple[int, bytes]:
    """Run a request file. Return the exit status, and what came on stdout."""
    for name in ("stdin", "stdout", "stderr"):
        os.mkfifo(tmp_path / name, 0o600)
    path = written(tmp_path / "request", **members)
    ends = {name: os.open(tmp_path / name, os.O_RDWR) for name in ("stdin", "stdout", "stderr")}
    os.write(ends["stdin"], b"line\n")
    status = await run_filed(Supervisor(), str(path), [])
    os.write(ends["stdout"], b"\n")  # so that there is something to be read
    output = os.read(ends["stdout"], 65536)[:-1]
    for end in ends.values():
        os.close(end)
    return status, output


@needs_confinement
async def test_a_request_file_is_obeyed(tmp_path: Path) -> None:
    assert await filed(tmp_path, command=["sh", "-c", "read word; echo got $word; exit 7"]) == (7, b"got line\n")


@needs_confinement
async def test_the_time_of_a_request_file(tmp_path: Path) -> None:
    mark = new_mark()
    script = f"trap '' TERM; exec -a {mark} sleep 1000"
    status, _ = await filed(tmp_path, command=["bash", "-c", script], timeout_ms=300)
    assert status == 192
    assert not marked(mark)


@needs_confinement
@pytest.mark.parametrize("is_told", [False, True])
async def test_the_program_obeys_a_request_file_or_a_signal(is_told: bool, tmp_path: Path) -> None:
    mark = new_mark()
    for name in ("stdin", "stdout", "stderr"):
        os.mkfifo(tmp_path / name, 0o600)
    path = written(tmp_path / "request", command=["bash", "-c", f"(exec -a {mark} cat); exit 7"])
    ends = [os.open(tmp_path / name, os.O_RDWR) for name in ("stdout", "stderr")]
    async with program(f"--request-file={path}", "--pipe-in=/nowhere") as process:
        to_it = await trio.to_thread.run_sync(os.open, tmp_path / "stdin", os.O_WRONLY)
        await until_marked(mark, 1)
        assert not path.exists()
        if is_told:
            process.send_signal(signal.SIGTERM)
        else:
            os.close(to_it)
        with trio.fail_after(PATIENCE):
            assert await process.wait() == (1 if is_told else 7)
        assert process.stderr is not None
        said = bytes(await process.stderr.receive_some())
        assert is_told or b"runner child exited with code 7" in said
        await until_gone(mark)
        if is_told:
            os.close(to_it)
    for end in ends:
        os.close(end)


async def test_a_request_file_that_is_no_request(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="parse runner request json"):
        await run_filed(Supervisor(), str(written(tmp_path / "request", command=5)), [])
