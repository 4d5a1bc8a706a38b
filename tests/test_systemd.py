"""A service manager and its server: sockets that are passed, and what is told."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import execsrv
from execsrv import connect_unix
from tests.peers import PATIENCE
from tests.test_daemon import EXECSRV
from tests.test_daemon import execsrv as run_execsrv

LAUNCHER = """
import os, sys
os.environ["LISTEN_PID"] = os.environ.pop("PID", str(os.getpid()))
os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Does what a manager does between fork and exec."""

UNITS = Path(execsrv.__file__).parent / "systemd"


class Manager:
    """Hears what a server tells."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(PATIENCE)

    def until(self, *facts: str) -> list[str]:
        """Wait for a message with these facts, and return all of it."""
        while not {*facts} <= {*(said := self._socket.recv(4096).decode().split("\n"))}:
            pass
        return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    name = f"{tmp_path}/notify"
    manager = Manager(name if request.param == "path" else "\0" + name)
    yield manager, name if request.param == "path" else "@" + name
    manager.close()


@contextmanager
def launched(*args: str, passed: list[socket.socket] | None = None, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A server as a manager starts it, with these sockets as its descriptors from 3 on."""
    code = "".join(f"os.dup2({each.fileno()}, {100 + n}); " for n, each in enumerate(passed or []))
    code += "".join(f"os.dup2({100 + n}, {3 + n}); " for n in range(len(passed or [])))
    launcher = LAUNCHER.replace("os.execv", code + "os.execv")
    argv = [sys.executable, "-c", launcher, *EXECSRV, "serve", *args]
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        pass_fds=[each.fileno() for each in passed or []],
        start_new_session=True,
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def listening(family: int, address: str | tuple[str, int]) -> socket.socket:
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen()
    return listener


# -- what is told --


async def test_the_manager_is_told(manager: tuple[Manager, str], tmp_path: Path) -> None:
    heard, address = manager
    listen = f"unix://{tmp_path}/s"
    with launched("--listen", listen, NOTIFY_SOCKET=address, WATCHDOG_USEC="200000") as server:
        assert heard.until("READY=1") == ["READY=1", f"STATUS=listening on unix://{tmp_path}/s"]
        for _ in range(3):
            heard.until("WATCHDOG=1")
        async with connect_unix(f"{tmp_path}/s") as client:
            env_of_commands = await client.run(["env"], text=True)
            for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
                assert name not in env_of_commands.stdout
            async with client.start(["sleep", "1000"]):
                heard.until(f"STATUS=listening on unix://{tmp_path}/s; 1 commands run")
            server.send_signal(signal.SIGHUP)
            assert any(fact.startswith("MONOTONIC_USEC=") for fact in heard.until("RELOADING=1"))
            heard.until("READY=1", f"STATUS=listening on unix://{tmp_path}/s")
            server.send_signal(signal.SIGTERM)
            heard.until("STOPPING=1", "STATUS=ending")
        assert server.wait(PATIENCE) == 0


def test_an_address_that_is_no_text_is_told_too(tmp_path: Path) -> None:
    heard = Manager(f"{tmp_path}/notify")
    listen = f"unix://{tmp_path}/" + os.fsdecode(b"\xff")
    with launched("--listen", listen, NOTIFY_SOCKET=f"{tmp_path}/notify") as server:
        assert heard.until("READY=1") == ["READY=1", rf"STATUS=listening on unix://{tmp_path}/\udcff"]
        server.terminate()
        assert server.wait(PATIENCE) == 0
    heard.close()


def test_a_loop_that_stands_still_is_not_alive(tmp_path: Path) -> None:
    heard = Manager(f"{tmp_path}/notify")
    with launched(
        "--listen", f"unix://{tmp_path}/s", NOTIFY_SOCKET=f"{tmp_path}/notify", WATCHDOG_USEC="100000"
    ) as server:
        heard.until("READY=1")
        heard.until("WATCHDOG=1")
        server.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, server.pid, os.WSTOPPED)
        heard._socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:  # what was told before it stood still
                heard._socket.recv(4096)
        heard._socket.settimeout(PATIENCE)
        server.send_signal(signal.SIGCONT)
        heard.until("WATCHDOG=1")
    heard.close()


@pytest.mark.few
@pytest.mark.parametrize("address", ["", "nonsense", "/nowhere/notify", "@nobody-listens-here"])
def test_a_manager_that_is_not_there(address: str, tmp_path: Path) -> None:
    with launched("--listen", f"unix://{tmp_path}/s", NOTIFY_SOCKET=address, WATCHDOG_USEC="x") as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert run_execsrv("run", "--url", url, "echo", "hi").stdout == "hi\n"
        server.terminate()
        assert server.wait(PATIENCE) == 0


# -- what is passed --


@pytest.mark.parametrize("kind", ["unix", "websocket"])
def test_a_socket_that_is_passed(kind: str, tmp_path: Path) -> None:
    if kind == "unix":
        passed = listening(socket.AF_UNIX, f"{tmp_path}/s")
        os.chmod(f"{tmp_path}/s", 0o600)
        expected = f"unix://{tmp_path}/s"
    else:
        passed = listening(socket.AF_INET, ("127.0.0.1", 0))
        expected = f"ws://127.0.0.1:{passed.getsockname()[1]}"
    with passed, launched("--listen", "fd://", passed=[passed], LISTEN_FDS="1") as server:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == expected
        script = "env | grep LISTEN_; ls /proc/self/fd | wc -l"
        assert run_execsrv("run", "--url", expected, "sh", "-c", script).stdout.split()[-1:] == ["4"]
        server.terminate()
        assert server.wait(PATIENCE) == 0
    assert kind == "websocket" or os.path.exists(f"{tmp_path}/s"), "it is the manager's"


@pytest.mark.slow
def test_one_of_several_sockets_is_named(tmp_path: Path) -> None:
    first, second = (listening(socket.AF_UNIX, f"{tmp_path}/{name}") for name in ("a", "b"))
    with first, second:
        passed = {"passed": [first, second], "LISTEN_FDS": "2", "LISTEN_FDNAMES": "one:two"}
        with launched("--listen", "fd://two", **passed) as server:  # type: ignore[arg-type]
            assert server.stdout is not None
            assert server.stdout.readline().strip() == f"unix://{tmp_path}/b"
        for listen, complaint in [
            ("fd://", "cannot listen on fd://: 2 sockets were passed; say which one, as `fd://NAME`"),
            ("fd://x", "cannot listen on fd://x: no socket of that name was passed; there are one, two"),
        ]:
            with launched("--listen", listen, **passed) as server:  # type: ignore[arg-type]
                _, said = server.communicate(timeout=PATIENCE)
                assert (server.returncode, f"execsrv: {complaint}\n" in said) == (1, True), said


@pytest.mark.slow
def test_sockets_that_are_none_of_ours(tmp_path: Path) -> None:
    nothing = "no socket was passed to this process: that is done by systemd, with a socket unit"
    with socket.socket(socket.AF_UNIX) as plain, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for passed, env, complaint in [
            ([], {}, nothing),
            ([plain], {"LISTEN_FDS": "1", "PID": "1"}, nothing),
            ([plain], {"LISTEN_FDS": "x"}, nothing),
            ([plain], {"LISTEN_FDS": "1"}, "the socket that was passed is none that listens for streams"),
            ([datagrams], {"LISTEN_FDS": "1"}, "the socket that was passed is none that listens for streams"),
        ]:
            with launched("--listen", "fd://", passed=passed, **env) as server:
                _, said = server.communicate(timeout=PATIENCE)
                assert (server.returncode, f"execsrv: cannot listen on fd://: {complaint}\n" in said) == (1, True), said


def test_a_socket_of_another_family_is_refused() -> None:
    try:
        passed = socket.socket(socket.AF_VSOCK)
    except OSError as error:
        pytest.skip(f"no such sockets here: {error}")
    with passed:
        passed.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        passed.listen()
        with launched("--listen", "fd://", passed=[passed], LISTEN_FDS="1") as server:
            _, said = server.communicate(timeout=PATIENCE)
            assert server.returncode == 1
            assert (
                "cannot listen on fd://: the socket that was passed is neither a unix socket nor one of TCP\n" in said
            )
            assert "Traceback" not in said


def test_an_address_that_others_reach_needs_what_it_needs_elsewhere() -> None:
    with listening(socket.AF_INET, ("0.0.0.0", 0)) as passed:
        with launched("--listen", "fd://", passed=[passed], LISTEN_FDS="1") as server:
            _, said = server.communicate(timeout=PATIENCE)
        assert server.returncode == 1
        assert "it is not the loopback, and there is no TLS" in said


# -- the units --


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_units_are_right(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        shutil.copy(unit, tmp_path)
    names = ["execsrv.service", "execsrv.socket", "execsrv@root.service", "execsrv@root.socket"]
    checked = subprocess.run(
        ["systemd-analyze", "verify", *(f"{tmp_path}/{name}" for name in names)], capture_output=True, text=True
    )
    said = [line for line in checked.stderr.splitlines() if "execsrv" in line]
    assert (checked.returncode, said) == (0, [])


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="needs systemd-socket-activate")
def test_a_socket_of_systemd_itself(tmp_path: Path) -> None:
    path = f"{tmp_path}/s"
    argv = ["systemd-socket-activate", "-l", path, *EXECSRV, "serve", "--listen", "fd://"]
    argv[1:1] = ["-E", f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}", "-E", f"PATH={os.environ['PATH']}"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as manager:
        try:
            assert manager.stderr is not None
            while "Listening on" not in (line := manager.stderr.readline()):
                assert line, "it does not listen"
            assert run_execsrv("run", "--url", f"unix://{path}", "echo", "hi").stdout == "hi\n"
            manager.terminate()
            assert manager.wait(PATIENCE) == 0, "it has become the server"
        finally:
            manager.kill()
