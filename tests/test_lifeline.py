"""A server that listens ends with whoever started it, however that one ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from execsrv import connect_unix
from tests.peers import PATIENCE
from tests.processes import new_mark, until_gone, until_marked
from tests.test_daemon import EXECSRV, execsrv

STARTER = """
import subprocess, sys, time
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(server.stdout.readline().decode(), end="", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_server_ends_with_its_starter_and_with_it_all_that_runs(number: int, tmp_path: Path) -> None:
    mark, listen = new_mark(), f"unix://{tmp_path}/s"
    serve = [*EXECSRV, "serve", "--listen", listen, "--until-stdin-closes"]
    argv = [sys.executable, "-c", STARTER, *serve]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as starter:  # noqa: ASYNC220
        assert starter.stdout is not None
        assert starter.stdout.readline().strip() == listen
        async with (
            connect_unix(f"{tmp_path}/s") as client,
            client.start(["bash", "-c", f"exec -a {mark} sleep 1000"]) as process,
        ):
            await until_marked(mark, 1)
            starter.send_signal(number)
            await process.wait()
            assert process.reason == "shutdown"
            await until_gone(mark)


@pytest.mark.few
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_written_to_a_lifeline_is_left_alone(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if kind == "pipe":
            theirs, ours = os.pipe()
        else:
            theirs, ours = (end.detach() for end in socket.socketpair())
        argv = [*EXECSRV, "serve", "--listen", f"unix://{tmp_path}/s", "--lifeline", str(theirs)]
        server = stack.enter_context(
            subprocess.Popen(argv, pass_fds=[theirs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        stack.callback(server.kill)
        os.close(theirs)
        os.write(ours, b"x" * 1000)
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        listed = execsrv("run", "--url", url, "sh", "-c", "ls /proc/self/fd")
        assert listed.stdout.split() == ["0", "1", "2", "3"], "the last one is that of the directory"
        os.close(ours)
        assert server.wait(PATIENCE) == 0
        assert server.stderr is not None
        assert f"ending with whoever held the other end of descriptor {theirs}" in server.stderr.read()


def test_what_is_no_lifeline(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    listen = ["--listen", f"unix://{tmp_path}/s"]
    with file.open() as stdin:
        done = execsrv("serve", *listen, "--until-stdin-closes", stdin=stdin)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("execsrv: cannot use descriptor 0 as a lifeline: a file never closes\n")
    done = execsrv("serve", *listen, "--lifeline", "77")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("execsrv: cannot use descriptor 77 as a lifeline: Bad file descriptor\n")
    done = execsrv("serve", "--until-stdin-closes")
    assert (done.returncode, done.stdout) == (2, "")
    assert "on stdio:// the server ends with its stdin" in done.stderr
