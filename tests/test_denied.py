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
from tests.peers import Peer
from tests.processes import marked, new_mark, until_gone, until_marked
from tests.test_survivors import Placement, _connected, open_daemon

CALLS = {
    "pidfd_open": "434",
    "pidfd_send_signal": "424",
    "prlimit64": "302",
    "prctl(PR_SET_CHILD_SUBREAPER)": "157:36",
    "close_range": "436",
    "memfd_create": "319",
}
ERRORS = {"EPERM": 1, "ENOSYS": 38}

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="system calls have other numbers here")

QUIET = "</dev/null >/dev/null 2>&1"
NAP = "bash -c 'exec -a @ sleep 1000'"
SCRIPTS = [
    f"setsid {NAP} {QUIET} & wait",
    f"setsid env -i {NAP} {QUIET} & exec sleep 1000",
    f"trap '' HUP; (setsid {NAP} {QUIET} &) ; exit",
    f"trap '' HUP; setsid bash -c '(exec -a @ sleep 1000) & (exec -a @ sleep 1000) & sleep 0.1' {QUIET} & exit",
]
"""Not the escapes of the other tests, which carry a limit. `@` is the mark of their strays, five in all."""
STRAYS = 5


# Each call with one of the errors; with the other one too where there is time.
CASES = [
    pytest.param((call, error), id=f"{call}-{error}", marks=() if (number + turn) % 2 else pytest.mark.slow)
    for number, call in enumerate(CALLS)
    for turn, error in enumerate(ERRORS)
]


@pytest.fixture(params=CASES)
def denied(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A call and the error that it is answered with."""
    call, error = request.param
    if subprocess.run([*denying(call, error), "true"], check=False).returncode:
        pytest.skip("system calls cannot be refused here")
    return call, error


def denying(call: str, error: str) -> list[str]:
    return [sys.executable, deny.__file__, f"{ERRORS[error]}", CALLS[call]]


def placement(call: str, error: str) -> Placement:
    return [*denying(call, error), sys.executable, "-m", "execsrv", "serve", "--no-cgroup"], dict(os.environ)


@pytest.mark.few(3)
async def test_nothing_survives(denied: tuple[str, str], tmp_path: Path) -> None:
    tty = denied[1] == "ENOSYS"
    async with (
        open_daemon(placement(*denied), f"unix://{tmp_path}/s") as (daemon, url),
        _connected(url) as peer,
        _connected(url) as other,
    ):
        await peer.handshake()
        await other.handshake()
        mark, beside = new_mark(), new_mark()
        await start(other, beside, tty)
        ids = await start(peer, mark, tty)
        for id in ids:
            await peer.call("process/terminate", {"processId": id})
        await until_gone(mark)
        await start(peer, mark, tty)
        await peer.channel.aclose()
        await until_gone(mark)
        assert len(marked(beside)) == STRAYS
        assert await other.run("x", ["sh", "-c", "echo hi; exit 3"]) == (3, b"hi\n", b"")
        daemon.kill()
        await until_gone(beside)


async def start(peer: Peer, mark: str, tty: bool) -> list[str]:
    """Start all scripts, each in a session of its own, and wait for their strays. Return the ids of the sessions."""
    ids = [new_mark() for _ in SCRIPTS]
    for id, script in zip(ids, SCRIPTS, strict=True):
        await peer.start(id, ["bash", "-c", script.replace("@", mark)], tty=tty)
    await until_marked(mark, STRAYS)
    return ids


@pytest.mark.few(3)
def test_run_is_what_it_is_elsewhere(denied: tuple[str, str]) -> None:
    run = [*denying(*denied), sys.executable, "-m", "execsrv", "run"]
    done = subprocess.run([*run, "--", "sh", "-c", "echo hi; exit 3"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"hi\n", b"")
    mark = new_mark()
    nap = f"setsid bash -c 'exec -a {mark} sleep 1000' & exec -a {mark} sleep 1000"
    done = subprocess.run([*run, "--timeout", "1", "--", "bash", "-c", nap], capture_output=True)
    assert done.returncode == 124
    assert not marked(mark)


@pytest.mark.few(3)
def test_the_doctor_and_the_log_name_what_is_refused(denied: tuple[str, str]) -> None:
    call, error = denied
    doctor = [*denying(call, error), sys.executable, "-m", "execsrv", "doctor"]
    found = json.loads(subprocess.run([*doctor, "--json"], capture_output=True, check=True).stdout)
    tried = call not in ("close_range", "memfd_create")  # which are not needed
    assert found["refused"] == ({call: error} if tried else {})
    said = subprocess.run(doctor, capture_output=True, text=True, check=True).stdout
    assert (f"refused here: {call} ({error})" in said) == tried
    layers = {layer["name"]: layer["available"] for layer in found["layers"]}
    assert layers["subreaper"] == (call != "prctl(PR_SET_CHILD_SUBREAPER)")
    serve = [*denying(call, error), sys.executable, "-m", "execsrv", "serve", "--listen", "stdio://"]
    log = subprocess.run(serve, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stderr
    (line,) = [line for line in log.splitlines() if "keeping sessions together" in line]
    assert (f"refused here: {call} ({error})" in line) == tried
    assert ("child subreaper" in line) == layers["subreaper"]


ALL = {"prlimit64": "302", "setrlimit": "160", "prctl(PR_SET_CHILD_SUBREAPER)": "157:36"}
"""All by which processes are kept hold of. Without a mark there is no guardian, and no control group."""


@pytest.mark.few
@pytest.mark.parametrize("error", ERRORS)
async def test_without_any_means_starts_are_refused(error: str, tmp_path: Path) -> None:
    before = [word for call in ALL.values() for word in (sys.executable, deny.__file__, f"{ERRORS[error]}", call)]
    if subprocess.run([*before, "true"], check=False).returncode:  # noqa: ASYNC221
        pytest.skip("system calls cannot be refused here")
    execsrv = [*before, sys.executable, "-m", "execsrv"]
    mark = new_mark()
    argv = ["bash", "-c", NAP.replace("@", mark)]
    async with (
        open_daemon(([*execsrv, "serve"], dict(os.environ)), f"unix://{tmp_path}/s") as (daemon, url),
        _connected(url) as peer,
    ):
        await peer.handshake()
        for method, params in [
            ("process/start", peer.start_params("a", argv)),
            ("process/start", peer.start_params("b", argv, tty=True)),
            ("command/exec", {"argv": argv, "cwd": "/", "env": {}, "tty": False}),
        ]:
            _, message, data = await peer.refused(method, params)
            assert (data["kind"], data["stage"]) == ("spawnFailed", "resources")
            assert "no means to keep hold of processes" in message
        assert await peer.call("process/list") == {"processes": []}
        assert daemon.poll() is None
    run = subprocess.run([*execsrv, "run", "--", *argv], capture_output=True, text=True)  # noqa: ASYNC221
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (125, "", 1)
    assert "no means to keep hold of processes" in run.stderr
    assert not marked(mark)
    leave = subprocess.run([*execsrv, "run", "--leave", "--", "echo", "hi"], capture_output=True)  # noqa: ASYNC221
    assert (leave.returncode, leave.stdout) == (0, b"hi\n"), leave.stderr
    said = subprocess.run([*execsrv, "doctor"], capture_output=True, text=True, check=True)  # noqa: ASYNC221
    assert "no command is started" in said.stdout
    serve = subprocess.run([*execsrv, "serve"], stdin=subprocess.DEVNULL, capture_output=True, text=True)  # noqa: ASYNC221
    assert "keeping sessions together by nothing, so starts are refused" in serve.stderr
    code = "import execsrv, trio\nasync def main():\n  async with execsrv.connect_in_process(%s) as client:\n"
    code += "    print(await client.run(['true']))\ntrio.run(main)"
    own, guest = (
        subprocess.run([*before, sys.executable, "-c", code % how], capture_output=True, text=True)  # noqa: ASYNC221
        for how in ("own_process=True", "")
    )
    assert "no means to keep hold of processes" in own.stderr
    assert guest.returncode == 0, guest.stderr


GUEST = """
import execsrv, os, sys, trio
async def main():
    async with execsrv.connect_in_process() as client:
        for argv in ARGVS:
            async with client.start(argv, stdin=True) as process:
                await process.write(b"go\\n")
                print("started", flush=True)
                await trio.to_thread.run_sync(sys.stdin.readline)
            print("left", flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
trio.run(main)
"""


@pytest.mark.few(2)
async def test_a_guest_leaves_nothing_where_it_can_mark(denied: tuple[str, str]) -> None:
    """Without `prlimit64` nobody can be marked from outside, so for a guest only who stays in the session is found."""
    scripts = [f"{NAP} {QUIET} & wait"] if denied[0] == "prlimit64" else SCRIPTS[:3]
    marks = [new_mark() for _ in scripts]
    wait = ["sh", "-c", 'read go; exec "$@"', "sh", "bash", "-c"]
    argvs = [[*wait, script.replace("@", mark)] for mark, script in zip(marks, scripts, strict=True)]
    program = [*denying(*denied), sys.executable, "-c", GUEST.replace("ARGVS", repr(argvs))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guest:  # noqa: ASYNC220
        assert guest.stdin is not None
        assert guest.stdout is not None
        try:
            for mark in marks:
                assert await trio.to_thread.run_sync(guest.stdout.readline) == b"started\n"
                await until_marked(mark, 1)
                os.write(guest.stdin.fileno(), b"\n")
                assert await trio.to_thread.run_sync(guest.stdout.readline) == b"left\n"
                await until_gone(mark)
                os.write(guest.stdin.fileno(), b"\n")
        finally:
            guest.kill()
