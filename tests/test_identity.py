"""Who a peer is, by the user that the machine says it is: on a unix socket, and on the loopback address."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv import connect, serve
from execsrv._doors import peers
from execsrv._doors.peers import Peer
from execsrv._processes.supervisor import Supervisor
from execsrv._wire import inet_diag
from execsrv.limits import ServerConfig
from tests.peers import PATIENCE
from tests.test_reloading import running

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

BECOME = "import encodings.idna, json, os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
"""Begins a program that another user runs, even if that one may not run this Python."""

SPEAK = """
import json, os, socket, sys
kind, host, port = sys.argv[1:4]
token = sys.argv[4] if sys.argv[4:] else None
if kind == "unix":
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(host)
else:
    peer = socket.create_connection((host, int(port)))
    header = f"Authorization: Bearer {token}\\r\\n" if token else ""
    peer.sendall(f"GET / HTTP/1.1\\r\\nHost: localhost\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n{header}"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n".encode())
    print(peer.recv(65536).decode())
    sys.exit()
request = {"id": 1, "method": "initialize", "params": {"clientName": "x", "token": token}}
peer.sendall(json.dumps(request).encode() + b"\\n")
print(peer.recv(65536).decode())
"""
"""A client that needs nothing, for users who cannot read where ours is."""


def speak(url: str, token: str | None = None, *, before: str = "") -> str:
    """Say the first thing as somebody who runs a program, and return the answer."""
    kind, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":") if kind == "ws" else (rest, "", "0")
    argv = [sys.executable, "-c", before + SPEAK, kind, host.strip("[]"), port, *([token] if token else [])]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, cwd="/")
    assert not done.stderr
    return done.stdout


@asynccontextmanager
async def serving(listen: str, **settings: Any) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        config = ServerConfig(handshake_timeout=PATIENCE, **settings)
        url: str = await nursery.start(serve, listen, config)
        yield url
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["ws://127.0.0.1:0", "ws://[::1]:0", "unix"])
def listen(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param != "unix":
        return str(request.param)
    return f"unix://{tmp_path}/socket"


def is_in(answer: str) -> bool:
    return answer.startswith("HTTP/1.1 101") or "environmentInfo" in answer


def open_up(url: str) -> None:
    """Let other users reach a unix socket, as its owner may."""
    if url.startswith("unix://"):
        path = Path(url.removeprefix("unix://"))
        path.chmod(0o777)
        for parent in path.parents:
            if not parent.stat().st_mode & 0o001:
                parent.chmod(0o711)


# -- the machine's own word --


@pytest.mark.parametrize("ask", [inet_diag._asked, inet_diag._from_tables])
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_names_the_holder_of_a_socket(ask: Any, family: int, host: str) -> None:
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        server, _ = listener.accept()
        with server:
            addresses = client.getsockname()[:2], client.getpeername()[:2]
            ends = [inet_diag.End(inet_diag._plain(ip), port) for ip, port in addresses]
            held = inet_diag.Holder(os.geteuid(), os.fstat(client.fileno()).st_ino)
            assert ask(*ends) == held
            assert ask(*reversed(ends)) == (os.geteuid(), os.fstat(server.fileno()).st_ino)
            assert inet_diag.holder(*addresses) == held
            client.shutdown(socket.SHUT_WR)  # it has said all, and is still there
            assert ask(*ends) == held


def test_an_address_of_ipv4_in_ipv6_is_found_too() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")):
            with socket.socket(family) as client:
                client.connect((host, port))
                server, _ = listener.accept()
                with server:
                    inode = os.fstat(client.fileno()).st_ino
                    theirs, ours = server.getpeername()[:2], server.getsockname()[:2]
                    assert inet_diag.holder(theirs, ours) == (os.geteuid(), inode)
                    ends = [inet_diag.End(inet_diag._plain(ip), port) for ip, port in (theirs, ours)]
                    assert inet_diag._from_tables(*ends) == (os.geteuid(), inode)


def test_a_socket_that_nobody_holds_is_nobodys_and_not_of_root() -> None:
    """The kernel gives it the uid 0: whoever said what it wanted and hung up would be root."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with server:
            client.sendall(b"x")
            theirs, ours = server.getpeername()[:2], server.getsockname()[:2]
            ends = [inet_diag.End(inet_diag._plain(ip), port) for ip, port in (theirs, ours)]
            assert inet_diag.holder(theirs, ours)
            client.close()
            assert inet_diag.holder(theirs, ours) is None
            for ask in (inet_diag._asked, inet_diag._from_tables):
                try:
                    assert ask(*ends) is None
                except OSError:
                    pass  # it does not know that socket any more


def test_who_hangs_up_while_it_is_looked_up_is_nobody() -> None:
    """Its port may be another user's by then, and that one would be found."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close resets
        server, _ = listener.accept()

        class Resetting(NoCommands):
            def __bool__(self) -> bool:
                return True

            def has_socket(self, inode: int, uid: int) -> bool:
                client.close()
                return False

        with server:
            assert peers.look(server, Resetting(), lambda uid: True) == Peer(None, "it has hung up already")


def test_what_listens_is_not_taken_for_what_is_connected() -> None:
    """The kernel answers with a listener where no connection is found."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        assert inet_diag.holder(address, ("127.0.0.1", 1)) is None


class NoCommands:
    def __bool__(self) -> bool:
        return False

    def has_process(self, pid: int) -> bool:
        return False

    def has_socket(self, inode: int, uid: int) -> bool:
        return False


def test_a_user_without_a_number_here_is_not_taken_for_the_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peers.look(ours, NoCommands(), bool) == Peer(os.geteuid())
        monkeypatch.setattr(peers, "_overflow_uid", os.geteuid)
        assert peers.look(ours, NoCommands(), bool) == Peer(os.geteuid())  # here every user has a number
        monkeypatch.setattr(peers, "_has_all_uids", lambda: False)
        assert peers.look(ours, NoCommands(), bool).uid is None


# -- who is let in --


async def test_the_same_user_needs_nothing(listen: str) -> None:
    async with serving(listen) as url, connect(url) as client:
        assert (await client.run(["true"])).exit_code == 0


@as_root
async def test_another_user_needs_a_token(listen: str) -> None:
    async with serving(listen) as url:
        open_up(url)
        answer = await trio.to_thread.run_sync(lambda: speak(url, before=BECOME))
        assert not is_in(answer)
        assert f"missing websocket bearer token: uid {NOBODY} is neither the server's user nor in allow_uids" in answer
        assert ("HTTP/1.1 401" in answer) == url.startswith("ws")
        assert is_in(await trio.to_thread.run_sync(speak, url))


@as_root
async def test_users_that_are_listed_need_none(listen: str) -> None:
    async with serving(listen, allow_same_user=False, allow_uids=(NOBODY,)) as url:
        open_up(url)
        assert is_in(await trio.to_thread.run_sync(lambda: speak(url, before=BECOME)))
        answer = await trio.to_thread.run_sync(speak, url)
        assert "uid 0 is not in allow_uids, and allow_same_user is off" in answer


@as_root
async def test_users_that_are_listed_later_need_none_either(tmp_path: Path) -> None:
    """They can open the socket then, and cannot again when they are not listed any more."""
    settings, path = tmp_path / "execsrv.toml", tmp_path / "socket"
    settings.write_text("")
    with running("--listen", f"unix://{path}", "--config", str(settings)) as daemon:
        open_up(daemon.url)
        path.chmod(0o600)
        for listed, mode in ((f"[{NOBODY}]", 0o666), ("[]", 0o600)):
            settings.write_text(f"allow_uids = {listed}\n")
            daemon.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.until, "reloaded who may open the socket")
            assert stat.S_IMODE(path.stat().st_mode) == mode
            if mode == 0o666:
                assert is_in(await trio.to_thread.run_sync(lambda: speak(daemon.url, before=BECOME)))
        path.chmod(0o660)  # what the operator makes of it stays as long as nothing else is asked for
        daemon.process.send_signal(signal.SIGHUP)
        await trio.to_thread.run_sync(daemon.until, "reloaded who may open the socket")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        path.unlink()
        settings.write_text(f"allow_uids = [{NOBODY}]\n")
        daemon.process.send_signal(signal.SIGHUP)
        await trio.to_thread.run_sync(daemon.until, "cannot reload who may open the socket")


async def test_a_token_is_wrong_whoever_presents_it(listen: str) -> None:
    async with serving(listen) as url:
        answer = await trio.to_thread.run_sync(speak, url, "s3cret")
        assert not is_in(answer)
        assert "invalid websocket bearer token: this server has no tokens" in answer
        assert "s3cret" not in answer


@as_root
async def test_who_says_all_and_hangs_up_is_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever was said before the server has looked is not done."""
    mark = tmp_path / "mark"
    script = f"""
import socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
peer.sendall(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n")
for message in (b'{{"id":1,"method":"initialize","params":{{"clientName":"x"}}}}', b'{{"method":"initialized"}}',
    b'{{"id":2,"method":"process/start","params":{{"argv":["touch","{mark}"],"cwd":"/","env":{{"PATH":"/bin"}}}}}}'):
    peer.sendall(bytes([0x81, 0xFE]) + len(message).to_bytes(2, "big") + bytes(4) + message)
"""
    async with serving("ws://127.0.0.1:0") as url:
        argv = [sys.executable, "-c", BECOME + script, url.rpartition(":")[2]]
        # In the loop: the server has its turn only when this peer has hung up.
        subprocess.run(argv, cwd="/", check=True, timeout=PATIENCE)  # noqa: ASYNC221
        async with connect(url) as client:
            await client.run(["true"])
    assert "nobody knows whose this connection is" in caplog.text
    assert not mark.exists()


def test_a_process_that_is_gone_may_have_been_a_command(tmp_path: Path) -> None:
    """Its pid may be another's by now."""
    path = f"{tmp_path}/socket"
    script = "import os, socket, sys; peer = socket.socket(socket.AF_UNIX); peer.connect(sys.argv[1])"
    script += "; os.fork() and os._exit(0); sys.stdin.read()"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE)
        with process, listener.accept()[0] as peer:
            process.wait(PATIENCE)  # and its child still holds the connection
            assert peers.look(peer, NoCommands(), lambda uid: True) == Peer(os.geteuid(), is_ours=True)
            kin = Supervisor().kin
            assert kin.has_process(process.pid)
            assert not kin.has_process(os.getpid())


@pytest.mark.few
async def test_a_command_of_ours_needs_a_token(listen: str) -> None:
    """It must not find its way out through this door. Whoever comes from outside still gets in."""
    with ExitStack() as stack:
        daemon = stack.enter_context(running("--listen", listen))
        url = daemon.url
        async with connect(url) as client:
            kind, _, rest = url.partition("://")
            host, _, port = rest.rpartition(":") if kind == "ws" else (rest, "", "0")
            host = host.strip("[]")
            for wrap in ([], ["setsid", "-w"], ["sh", "-c", '"$@" & wait', "sh"], ["env", "-i"]):
                argv = [*wrap, sys.executable, "-c", SPEAK, kind, host, port]
                result = await client.run(argv, text=True)
                assert "it comes from a command of this server" in result.stdout, result.stderr
            async with client.start(["sleep", "1000"]):
                assert is_in(await trio.to_thread.run_sync(speak, url))
