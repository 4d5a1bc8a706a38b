"""Record the corpus: `python -m tests.fuzz.record [TRANSCRIPTS]`.

Our own client talks with a daemon by way of a proxy that writes down each line. TRANSCRIPTS are conversations of the
Codex CLI with its own server, one in a line: `{"name": ..., "steps": [{"dir": "c2s", "msg": ...}, ...]}`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

import execsrv
from execsrv import Client, connect
from execsrv._wire.lines import LineChannel
from execsrv.limits import ClientConfig, Limits
from tests.faults.daemon import running_daemon
from tests.fuzz.scripts import CORPUS, FOLDER, SESSION, WEB, Again, Hear, Say, Script
from tests.peers import Peer, b64, open_peer
from tests.web import Web, open_web

ENV = {"PATH": "/usr/bin:/bin"}
LINES = ClientConfig(encoding="json")


class Recorder:
    """A line between a client and a daemon that writes down what the client says, and how much it hears between."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.steps: list[Say | Hear | Again] = []
        self._cut: trio.CancelScope | None = None

    def cut(self) -> None:
        """Cut the connection that there is."""
        assert self._cut is not None
        self._cut.cancel()

    async def carry(self, client: trio.SocketStream) -> None:
        """Carry one connection."""
        if self.steps:
            self.steps.append(Again(reset=True))
        server = await trio.open_unix_socket(self._target)
        async with client, server, trio.open_nursery() as nursery:
            self._cut = nursery.cancel_scope
            nursery.start_soon(self._pass, client, server, self._said)
            nursery.start_soon(self._pass, server, client, self._heard)

    async def _pass(self, source: trio.SocketStream, sink: trio.SocketStream, note: Callable[[bytes], None]) -> None:
        rest = b""
        try:
            async for data in source:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    note(line)
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        self.cut()

    def _said(self, line: bytes) -> None:
        self.steps.append(Say(line.decode()))

    def _heard(self, line: bytes) -> None:
        before = self.steps[-1]
        if isinstance(before, Hear):
            self.steps[-1] = Hear(before.count + 1)
        else:
            self.steps.append(Hear(1))


# -- what our client does --


async def commands(client: Client, folder: str, recorder: Recorder, web: str) -> None:
    await client.run(["cat"], input=b"typed\n", env=ENV, cwd=folder)
    await client.run(["sh", "-c", "echo out; echo err >&2; exit 3"], text=True, env=ENV, umask=0o77, nice=3)
    await client.run(["head", "-c", "300000", "/dev/zero"], env=ENV, stderr=execsrv.STDOUT)
    await client.run(
        ["sh", "-c", "setsid sleep 5 >/dev/null 2>&1 & echo left"], env_add={"A": "b"}, env_remove=["LANG"]
    )
    await client.run(["echo", "in a file"], env=ENV, stdout=execsrv.DEVNULL, stderr=f"{folder}/errors")


async def terminal(client: Client, folder: str, recorder: Recorder, web: str) -> None:
    argv = ["sh", "-c", "stty size; cat"]
    async with client.start(argv, tty=True, size=(30, 90), modes={"echo": False}, env=ENV, cwd=folder) as process:
        await process.wait_for(output=b"30 90")
        await process.resize(40, 100, 7, 9)
        await process.write(b"a line\n")
        await process.wait_for(output=b"a line")
        await process.snapshot()
        await client.processes()
        await process.interrupt()
        await process.wait()


async def ends(client: Client, folder: str, recorder: Recorder, web: str) -> None:
    async with client.start(["sh", "-c", "trap '' TERM; echo ready; sleep 5"], env=ENV, overflow="drop") as process:
        await process.wait_for(output=b"ready")
        await process.send_signal("USR1", "tree")
        await process.terminate(0.1)
        await process.wait_for(tree_empty=True)
    async with client.start(["sleep", "5"], env=ENV, timeout=0.1, idle_timeout=5) as process:
        await process.wait()


async def files(client: Client, folder: str, recorder: Recorder, web: str) -> None:
    files = client.files
    await files.make(f"{folder}/new/deep")
    await files.write(f"{folder}/new/a", b"content", mode=0o640)
    await files.append(f"{folder}/new/a", b" and more")
    await files.read(f"{folder}/new/a")
    await files.stat(f"{folder}/new/a")
    await files.list(f"{folder}/new")
    await files.copy(f"{folder}/new", f"{folder}/copy")
    await files.move(f"{folder}/copy/a", f"{folder}/copy/b")
    await files.link(f"{folder}/link", "new")
    await files.resolve(f"{folder}/link/a")
    await files.change(f"{folder}/new/a", mode=0o600)
    async with files.open(f"{folder}/new/big", "wb") as file:
        await file.write(bytes(3_000))
    async with files.open(f"{folder}/new/big", "rb") as file:
        await file.seek(1_000)
        await file.read(50)
    [found async for found in files.walk(folder)]
    await files.remove(f"{folder}/copy", recursive=True)


async def moves(client: Client, folder: str, recorder: Recorder, web: str) -> None:
    local = Path(folder) / "local"
    local.mkdir()
    (local / "f").write_bytes(os.urandom(50))
    (local / "g").write_bytes(b"g")
    await client.files.put(local, f"{folder}/there")
    (local / "f").write_bytes(bytes(60))
    await client.files.put(local, f"{folder}/there")
    await client.files.get(f"{folder}/there", f"{folder}/back")
    await client.files.write(f"{folder}/long", b"")
    await client.files.change(f"{folder}/long", size=300_000)
    await client.files.get(f"{folder}/long", f"{folder}/long again")


async def watch(client: Client, folder: str, recorder: Recorder, web: str) -> None:
    async with client.files.watch(folder, recursive=True) as changes:
        await client.files.write(f"{folder}/watched", b"1")
        async for _ in changes:
            break


async def relay(client: Client, folder: str, recorder: Recorder, web: str) -> None:
    http = client.http
    await http.request("POST", f"{web}/page", headers={"A": "b"}, body=b"body", timeout=5)
    await http.request("GET", f"{web}/moved")
    async with http.stream("GET", f"{web}/large") as stream:
        async for _ in stream:
            break


async def resumes(client: Client, folder: str, recorder: Recorder, web: str) -> None:
    async with client.start(["cat"], stdin=True, env=ENV) as process:
        await process.write(b"before\n")
        await process.wait_for(output=b"before")
        recorder.cut()
        await process.write(b"after\n")
        await process.wait_for(output=b"after")


CLIENTS = (commands, terminal, ends, files, moves, watch, relay, resumes)


# -- what a client of ours does not say --


async def old_commands(peer: Peer, folder: str) -> None:
    await peer.call("command/exec", {"argv": ["cat"], "cwd": folder, "env": ENV, "tty": True})
    await peer.call("command/exec/write", {"sessionId": "session-1", "chunk": b64(b"typed\n")})
    await peer.until_output("session-1", b"typed")
    await peer.call("command/exec/terminate", {"sessionId": "session-1"})
    await peer.until_told("session-1", "exited")


async def host(peer: Peer, folder: str) -> None:
    await peer.call("environment/info")
    await peer.call("environment/status", {})
    await peer.call("environmentConfig/read", {"cwd": folder, "configPaths": [["a"]], "requirementsPaths": [["b"]]})
    await peer.call("capabilityRoots/discoverV1", {"roots": []})
    await peer.call("capabilities/discoverV2", {"cwd": folder})
    await peer.call("fs/watchMissing", {"watchId": 1, "missing": [f"{folder}/later"], "present": None})
    await peer.call("fs/writeFile", {"path": f"{folder}/later", "dataBase64": b64(b"now")})
    await peer.call("server/limits", {"settings": ["max_sessions"]})


async def windows(peer: Peer, folder: str) -> None:
    """Say the few things that a client says of its own accord only when output is long, or its reader slow."""
    policy = {"inherit": "core", "ignoreDefaultExcludes": True, "exclude": ["A*"], "set": {"B": "c"}, "includeOnly": []}
    argv = ["head", "-c", "100000", "/dev/zero"]
    await peer.start("w", argv, windowBytes=1000, envPolicy=policy, env={}, graceMs=100, times=True)
    for seq in range(1, 4):
        await peer.until_told("w", "output")
        await peer.call("process/ack", {"processId": "w", "seq": seq})
    await peer.call("process/read", {"processId": "w", "afterSeq": 0, "maxBytes": 500, "waitMs": 10})
    await peer.call("process/wait", {"processId": "w", "timeoutMs": 10})
    waiting = {"processId": "w", "idleMs": 5, "exited": True, "waitId": "x", "port": {"port": 1, "host": "127.0.0.1"}}
    await peer.call("process/waitFor", waiting)
    await peer.call("process/terminate", {"processId": "w", "mode": {"graceful": {"timeoutMs": 50}}})
    await peer.until_told("w", "closed")


PEERS = (old_commands, host, windows)


# -- one after another --


async def sharing(url: str, folder: str) -> None:
    """Keep a connection with a command, and come to it as somebody else and as its owner again."""
    async with (
        connect(url, name="build", keep=60, config=LINES) as client,
        client.start(["cat"], stdin=True, env=ENV, cwd=folder, key="cat") as process,
    ):
        granted = await client.grant("viewer", expires=60)
        await client.grant("writer", principal="token ci")
        await client.revoke(granted.grant_id)
        await process.write(b"before\n")
        await process.wait_for(output=b"before")
        process.leave_running()
    async with connect(url, config=LINES) as client:
        await client.connections()
        await client.processes(all=True, usage=True)
        async with client.join("build", "owner") as build:
            async with build.attach("cat", after=0) as process:
                await process.write(b"after\n")
                await process.wait_for(output=b"after")
            await build.end()


VISITS = (sharing,)


def pages(web: Web) -> None:
    """Say what recorded and mutated requests are answered."""
    web.page("/page", "Content-Type: text/plain", body=b"a page")
    web.page("/moved", f"Location: {web.url}/page", status="302 Found")
    web.page("/large", body=bytes(400_000))
    web.pages["/never"] = web.never
    web.pages["/half"] = web.half


async def record(corpus: Path) -> None:
    """Record every conversation in a daemon of its own."""
    for job in (*CLIENTS, *PEERS, *VISITS):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder, "w")
            os.mkdir(work)
            options = ("--resume-grace", "10", "--max-keep", "60", "--allow-http")
            with running_daemon(Path(folder), "unix", *options) as daemon:
                async with open_web() as web, trio.open_nursery() as nursery:
                    pages(web)
                    recorder = Recorder(daemon.url.removeprefix("unix://"))
                    listening = trio.socket.socket(trio.socket.AF_UNIX)
                    await listening.bind(f"{folder}/line")
                    listening.listen()
                    await nursery.start(trio.serve_listeners, recorder.carry, [trio.SocketListener(listening)])
                    await _do(job, f"{folder}/line", str(work), web, recorder)
                    nursery.cancel_scope.cancel()
            write(corpus / f"{job.__name__}.jsonl", recorder.steps, {str(work): FOLDER, web.url: WEB})


async def _do(job: Callable[..., Awaitable[None]], line: str, work: str, web: Web, recorder: Recorder) -> None:
    if job in PEERS:
        stream = await trio.open_unix_socket(line)
        async with open_peer(LineChannel(stream, stream, Limits())) as peer:
            await peer.handshake()
            await job(peer, work)
        return
    if job in VISITS:
        await job(f"unix://{line}", work)
        return
    async with connect(f"unix://{line}", reconnect=10 if job is resumes else 0, config=LINES) as client:
        await job(client, work, recorder, web.url)


_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def write(path: Path, steps: list[Any], names: dict[str, str]) -> None:
    """Write a script, with the names of this run replaced by those of every run."""
    kept = []
    for step in steps:
        if isinstance(step, Say):
            text = step.text
            for name, placeholder in names.items():
                text = text.replace(name, placeholder)
            step = Say(_SESSION.sub(SESSION, text) if '"initialize"' in text else text)
        kept.append(step)
    while kept and isinstance(kept[-1], Again):
        kept.pop()
    path.write_bytes(Script(steps=tuple(kept)).to_bytes())


def transcribe(transcript: dict[str, Any], corpus: Path) -> None:
    """Write what a Codex CLI has said in one conversation."""
    steps: list[Any] = []
    for step in transcript["steps"]:
        if "event" in step:
            steps.append(Again())
        elif step["dir"] == "c2s":
            text = step["text"] if step["msg"] is None else json.dumps(step["msg"], separators=(",", ":"))
            steps.append(Say(re.sub(r'(?<="resumeSessionId":)"SESSION[^"]*"', f'"{SESSION}"', text)))
        elif steps and isinstance(steps[-1], Hear):
            steps[-1] = Hear(steps[-1].count + 1)
        else:
            steps.append(Hear(1))
    for index, step in enumerate(steps):
        if isinstance(step, Say):
            steps[index] = Say(re.sub(r"http://127\.0\.0\.1:PORT", WEB, step.text))
    names = {"/tmp/x/w": FOLDER, "/tmp/x-none": f"{FOLDER}/none", "/tmp/x": FOLDER}
    write(corpus / f"codex-{transcript['name']}.jsonl", steps, names)


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        for line in Path(name).read_text().splitlines():
            transcribe(json.loads(line), CORPUS)
    trio.run(record, CORPUS)
