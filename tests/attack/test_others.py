"""Other users, neighbours and commands at the door of a real daemon, without a token or with one of too low a role."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv import ClientConfig, connect
from execsrv._doors.tokens import new_token, sha256
from tests.faults.daemon import Daemon, running_daemon
from tests.faults.surroundings import somebody
from tests.peers import PATIENCE
from tests.processes import may_become_nobody
from tests.test_identity import NOBODY, is_in, open_up, speak
from tests.test_survivors import open_path as open_path

as_root = pytest.mark.skipif(not may_become_nobody(), reason="only root can be somebody else")

ASK = """
import encodings.idna, json, os, socket, sys

UPGRADE = (b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n")

def line_to(url):
    kind, _, rest = url.partition("://")
    if kind == "unix":
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(rest)
        return peer
    host, _, port = rest.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)))

def say(peer):
    text = b'{"id":1,"method":"initialize","params":{"clientName":"x"}}'
    peer.sendall(text + b"\\n" if peer.family == socket.AF_UNIX else UPGRADE)

def hear(peer):
    return peer.recv(65536).decode()
"""
"""Begins a program that knocks at the door, of somebody who cannot read where our client is."""


@pytest.fixture(params=["unix", "websocket"])
def daemon(request: pytest.FixtureRequest, open_path: Path) -> Iterator[Daemon]:
    with running_daemon(open_path, request.param) as daemon:
        open_up(daemon.url)
        yield daemon


def said_by(*argv: str, **kwargs: Any) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, cwd="/", **kwargs)
    assert not done.stderr, done.stderr
    return str(done.stdout)


REFUSED = f"missing websocket bearer token: uid {NOBODY} is neither the server's user nor in allow_uids"


# -- another user --

IN_SANDBOX = {
    "no new privileges": ["setpriv", "--no-new-privs"],
    "other namespaces": ["unshare", "--mount", "--ipc", "--uts", "--pid", "--fork"],
    "root in a user namespace": ["unshare", "--user", "--map-root-user"],
}


@pytest.mark.few
@as_root
@pytest.mark.parametrize(
    "wrap",
    [pytest.param(IN_SANDBOX[what], id=what, marks=pytest.mark.slow if "new" in what else ()) for what in IN_SANDBOX],
)
def test_a_neighbour_of_another_user_is_refused(daemon: Daemon, wrap: list[str]) -> None:
    """Whatever he thinks that he is, as long as the network is the same."""
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    before, after = (drop, wrap) if "--user" in wrap else (wrap, drop)
    if subprocess.run([*before, *after, "true"], capture_output=True, cwd="/").returncode:
        pytest.skip(f"not allowed: {' '.join([*before, *after])}")
    script = ASK + "peer = line_to(sys.argv[1]); say(peer); print(os.geteuid(), hear(peer))"
    python = next(filter(os.path.exists, ["/usr/bin/python3", "/usr/local/bin/python3", sys.executable]))
    said = said_by(*before, *after, python, "-I", "-S", "-c", script, daemon.url)
    uid, _, answer = said.partition(" ")
    assert uid == ("0" if "--user" in wrap else f"{NOBODY}")
    assert REFUSED in answer
    assert is_in(speak(daemon.url))


@as_root
def test_a_connection_of_another_user_stays_his_in_other_hands(daemon: Daemon) -> None:
    """He passes it on to somebody who may come in, and who says everything."""
    script = f"""
ours, theirs = socket.socketpair()
if not os.fork():
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
    ours.close()
    peer = line_to(sys.argv[1])
    socket.send_fds(theirs, [b"x"], [peer.fileno()])
    os.read(theirs.fileno(), 1)
    os._exit(0)
theirs.close()
_, [descriptor], _, _ = socket.recv_fds(ours, 1, 1)
peer = socket.socket(fileno=descriptor)
say(peer); print(os.geteuid(), hear(peer))
"""
    said = said_by(sys.executable, "-I", "-S", "-c", ASK + script, daemon.url)
    assert said.startswith("0 ")
    assert not is_in(said.partition(" ")[2])
    assert REFUSED in said


@as_root
def test_another_user_with_a_token_of_too_low_a_role(open_path: Path) -> None:
    made = {name: new_token() for name in ("health", "viewer", "writer", "owner")}
    tokens = open_path / "tokens"
    tokens.write_text("".join(f"{name} {name} {sha256(token)} never\n" for name, token in made.items()))
    tokens.chmod(0o600)
    script = f"""
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
peer = line_to(sys.argv[1])
lines = peer.makefile("rw")
def ask(method, params):
    lines.write(json.dumps({{"id": 1, "method": method, "params": params}}) + "\\n"); lines.flush()
    return json.loads(lines.readline())
print(ask("initialize", {{"clientName": "x", "token": sys.argv[2]}}).get("error"))
lines.write('{{"method":"initialized"}}\\n')
start = {{"processId": "p", "argv": ["id", "-u"], "cwd": "/", "env": {{"PATH": "/bin:/usr/bin"}}, "tty": False}}
said = [ask("process/start", start), ask("fs/readFile", {{"path": "/etc/shadow"}}),
    ask("http/request", {{"method": "GET", "url": "http://127.0.0.1:1/", "requestId": "r"}}),
    ask("process/write", {{"processId": "p", "chunk": "", "writeId": "w"}})]
print(json.dumps([each.get("error", {{}}).get("data", {{}}).get("kind") for each in said]))
"""
    with running_daemon(open_path, "unix", "--token-file", str(tokens)) as daemon:
        open_up(daemon.url)
        for role, token in made.items():
            if role == "owner":
                continue
            greeting, kinds = said_by(sys.executable, "-I", "-S", "-c", ASK + script, daemon.url, token).splitlines()
            assert greeting == "None"
            assert json.loads(kinds)[:3] == ["forbidden"] * 3
            assert (json.loads(kinds)[3] == "forbidden") == (role != "writer")
        daemon.check()
        assert not [token for token in made.values() if token in daemon.log]


# -- another network --


def test_root_of_another_network_is_nobody(open_path: Path) -> None:
    """It comes by a wire between two networks: its uid is a number, of whichever machine."""
    names = [f"attack{os.getpid()}{side}" for side in "ab"]
    commands = [
        *(["ip", "netns", "add", name] for name in names),
        ["ip", "-n", names[0], "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", names[1]],
        ["ip", "-n", names[0], "address", "add", "192.0.2.1/30", "dev", "here"],
        ["ip", "-n", names[1], "address", "add", "192.0.2.2/30", "dev", "there"],
        *(["ip", "-n", name, "link", "set", link, "up"] for name, link in zip(names, ("here", "there"), strict=True)),
    ]
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"not allowed: {' '.join(command)}: {done.stderr.strip()}")
        token = new_token()
        (open_path / "tokens").write_text(f"ci owner {sha256(token)} never\n")
        (open_path / "tokens").chmod(0o600)
        options = ["--listen", "ws://0.0.0.0:0", "--allow-plain-network", "--token-file", f"{open_path}/tokens"]
        inside = [["ip", "netns", "exec", name] for name in names]
        with running_daemon(open_path, "websocket", *options, prefix=inside[0]) as daemon:
            url = f"ws://192.0.2.1:{daemon.url.rpartition(':')[2]}"
            script = ASK + "peer = line_to(sys.argv[1]); UPGRADE = UPGRADE.replace(b'localhost', b'192.0.2.1')"
            script += ".replace(b'\\r\\n\\r\\n', sys.argv[2].encode() + b'\\r\\n\\r\\n'); say(peer); print(hear(peer))"
            argv = [*inside[1], sys.executable, "-I", "-S", "-c", script, url]
            answer = said_by(*argv, "")
            assert answer.startswith("HTTP/1.1 401")
            assert "nobody knows whose this connection is, since it does not come from the loopback address" in answer
            assert said_by(*argv, f"\r\nAuthorization: Bearer {token}x").startswith("HTTP/1.1 401")
            assert is_in(said_by(*argv, f"\r\nAuthorization: Bearer {token}"))
            daemon.check()
            assert token not in daemon.log
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


# -- a command of the server itself --

DAEMONISE = """
import resource
out = os.open(sys.argv[2], os.O_WRONLY)
if os.fork():
    sys.exit()
os.setsid()
middle = os.getpid()
if os.fork():
    os._exit(0)
os.closerange(0, out)
os.closerange(out + 1, 100)
while os.getppid() == middle:
    pass
"""

SHED = """
_, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
resource.setrlimit(resource.RLIMIT_RTTIME, (hard, hard))
"""
ESCAPES = {"daemonised": DAEMONISE, "and without its mark": DAEMONISE + SHED}
KNOCK = """
peer = line_to(sys.argv[1])
say(peer)
os.write(out, hear(peer).encode() + b"\\n\\0")
"""


@pytest.mark.few
@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
async def test_a_command_that_has_daemonised_is_still_a_command(daemon: Daemon, escape: str, open_path: Path) -> None:
    fifo = f"{open_path}/answer"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    try:
        async with connect(daemon.url) as client, client.start(["sleep", "1000"]):
            script = ASK + escape + KNOCK
            argv = [sys.executable, "-I", "-S", "-c", script, daemon.url, fifo]
            async with client.start(argv) as process:
                answer = await trio.to_thread.run_sync(os.read, reader, 65536)
                await process.wait()
        assert b"it comes from a command of this server" in answer
    finally:
        os.close(reader)


HIDE = """
import select
keep, other = socket.socketpair()
peer = line_to(sys.argv[1])
socket.send_fds(keep, [b"x"], [peer.fileno()])
say(peer)
peer.close()
select.select([], [], [], 0.5)
_, [descriptor], _, _ = socket.recv_fds(other, 1, 1)
peer = socket.socket(fileno=descriptor)
print(hear(peer))
"""


@as_root
@pytest.mark.parametrize("user", ["root", "another"])
async def test_a_command_that_holds_its_connection_nowhere(user: str, open_path: Path) -> None:
    """It is in a message that nobody has received yet, while the server looks for who holds it."""
    words: dict[str, Any] = {}
    python = [sys.executable]
    if user == "another":
        command, env = somebody(open_path, NOBODY)
        words, python = {"command": command, "env": env}, command[-3:-2]
    with running_daemon(open_path, "websocket", **words) as daemon:
        async with connect(daemon.url, config=ClientConfig(server_uids=(NOBODY,))) as client:
            argv = [*python, "-I", "-S", "-c", ASK + HIDE, daemon.url]
            result = await client.run(argv, text=True)
        assert "it comes from a command of this server" in result.stdout, result
        daemon.check()
