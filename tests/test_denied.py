"""A machine that refuses a system call of containment: every promise is kept all the same, or is not made.

Container engines answer EPERM to calls that they do not know, sandboxes ENOSYS. `tests.deny` does the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests import deny
from tests.escapes import ESCAPES, alive, until_astray, until_none_lives
from tests.processes import marked, new_mark
from tests.test_survivors import Placement, _connected, open_daemon, start_escapes

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="system calls have other numbers here")

SOME = ["a daemon, leader gone", "a daemon, no environment", "setsid", "without its first thread", "forks and exits"]


@pytest.fixture(params=[(call, error) for call in deny.CALLS for error in deny.ERRORS], ids="-".join)
def denied(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A call and the error that it is answered with."""
    call, error = request.param
    if subprocess.run([*deny.command(call, error), "true"], check=False).returncode:
        pytest.skip("system calls cannot be refused here")
    return call, error


def placement(call: str, error: str) -> Placement:
    return [*deny.command(call, error), sys.executable, "-m", "execsrv", "serve", "--no-cgroup"], dict(os.environ)


@pytest.mark.parametrize("tty", [False, True], ids=["pipe", "terminal"])
async def test_nothing_survives(denied: tuple[str, str], tty: bool, tmp_path: Path) -> None:
    async with (
        open_daemon(placement(*denied), f"unix://{tmp_path}/s") as (daemon, url),
        _connected(url) as peer,
        _connected(url) as other,
    ):
        await peer.handshake()
        await other.handshake()
        beside = await start_escapes(other, tty, sys.executable, ["setsid"])
        marks = await start_escapes(peer, tty, sys.executable, SOME)
        for mark in marks:
            await peer.call("process/terminate", {"processId": mark})
            await peer.until_told(mark, "closed")
        assert not any(alive(marks).values())  # since the close said that nothing is left
        marks = await start_escapes(peer, tty, sys.executable, SOME)
        await peer.channel.aclose()
        await until_none_lives(marks)
        assert all(alive(beside).values())
        assert await other.run("x", ["sh", "-c", "echo hi; exit 3"]) == (3, b"hi\n", b"")
        marks = await start_escapes(other, tty, sys.executable, SOME)
        daemon.kill()
        await until_none_lives({**marks, **beside})


def test_run_is_what_it_is_elsewhere(denied: tuple[str, str]) -> None:
    run = [*deny.command(*denied), sys.executable, "-m", "execsrv", "run"]
    done = subprocess.run([*run, "--", "sh", "-c", "echo hi; exit 3"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"hi\n", b"")
    mark = new_mark()
    nap = f"setsid bash -c 'exec -a {mark} sleep 1000' & exec -a {mark} sleep 1000"
    done = subprocess.run([*run, "--timeout", "1", "--", "bash", "-c", nap], capture_output=True)
    assert done.returncode == 124
    assert not marked(mark)


def test_the_doctor_and_the_log_name_what_is_refused(denied: tuple[str, str]) -> None:
    call, error = denied
    doctor = [*deny.command(call, error), sys.executable, "-m", "execsrv", "doctor"]
    found = json.loads(subprocess.run([*doctor, "--json"], capture_output=True, check=True).stdout)
    tried = call not in ("close_range", "memfd_create")  # which are not needed
    assert found["refused"] == ({call: error} if tried else {})
    said = subprocess.run(doctor, capture_output=True, text=True, check=True).stdout
    assert (f"refused here: {call} ({error})" in said) == tried
    layers = {layer["name"]: layer["available"] for layer in found["layers"]}
    assert layers["subreaper"] == (call != "prctl(PR_SET_CHILD_SUBREAPER)")
    serve = [*deny.command(call, error), sys.executable, "-m", "execsrv", "serve", "--listen", "stdio://"]
    log = subprocess.run(serve, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stderr
    (line,) = [line for line in log.splitlines() if "keeping sessions together" in line]
    assert (f"refused here: {call} ({error})" in line) == tried
    assert ("child subreaper" in line) == layers["subreaper"]


GUEST = """
import execsrv, os, sys, trio
async def main():
    async with execsrv.connect_in_process() as client:
        for argv in ARGVS:
            async with client.start(argv, inherit_env=True, stdin=True) as process:
                await process.write(b"go\\n")
                print("started", flush=True)
                await trio.to_thread.run_sync(sys.stdin.readline)
            print("left", flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
trio.run(main)
"""


async def test_a_guest_leaves_nothing_where_it_can_mark(denied: tuple[str, str]) -> None:
    """Without `prlimit64` nobody can be marked from outside, so for a guest only who stays in the session is found."""
    names = ["a background child"] if denied[0] == "prlimit64" else SOME
    marks = {new_mark(): name for name in names}
    wait = ["sh", "-c", 'read go; exec "$@"', "sh"]
    argvs = [[*wait, *ESCAPES[name].argv(mark, sys.executable)] for mark, name in marks.items()]
    program = [*deny.command(*denied), sys.executable, "-c", GUEST.replace("ARGVS", repr(argvs))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guest:  # noqa: ASYNC220
        assert guest.stdin is not None
        assert guest.stdout is not None
        try:
            for mark, name in marks.items():
                assert await trio.to_thread.run_sync(guest.stdout.readline) == b"started\n"
                await until_astray(mark, ESCAPES[name].strays)
                os.write(guest.stdin.fileno(), b"\n")
                assert await trio.to_thread.run_sync(guest.stdout.readline) == b"left\n"
                assert not alive([mark])[mark]
                os.write(guest.stdin.fileno(), b"\n")
        finally:
            guest.kill()
