"""A short conversation for each method of the protocol, as a peer has it, and what it has to come to.

Each begins behind the handshake, and gives a value that is the same every time, as long as nothing goes wrong.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from execsrv.protocol import Notification
from tests.faults.daemon import connected, marked_env
from tests.peers import Peer, b64

Conversation = Callable[["Stage"], Awaitable[object]]
CONVERSATIONS: dict[str, Conversation] = {}


class Stage:
    """Where a conversation takes place: its peer, a folder of its own, the mark of its commands, a page to fetch.

    `url` is that of the server itself, where nothing is wrong with the line.
    """

    def __init__(self, peer: Peer, folder: Path, mark: str, page: str, url: str) -> None:
        self.peer = peer
        self.url = url
        self.folder = folder
        self.page = page
        self.env = marked_env(mark)

    async def start(self, *argv: str, **params: Any) -> Any:
        """Start a command named `a`."""
        return await self.peer.start("a", list(argv), env=self.env, **params)

    async def start_sleeper(self, **params: Any) -> Any:
        """Start what does not end by itself."""
        return await self.start("sleep", "1000", **params)

    async def call(self, method: str, /, **params: Any) -> Any:
        return await self.peer.call(method, params)

    async def of_a(self, method: str, /, **params: Any) -> Any:
        """Call about the command named `a`."""
        return await self.peer.call(method, {"processId": "a", **params})

    async def told(self, what: str) -> dict[str, Any]:
        return await self.peer.until_told("a", what)

    def file(self, name: str, content: str | None = None) -> str:
        """Return the URI of a file of the folder; its content is put there first."""
        path = self.folder / name
        if content is not None:
            path.write_text(content)
        return path.as_uri()

    def new_name(self) -> str:
        """Return a name that the folder has not."""
        return os.urandom(8).hex()


@asynccontextmanager
async def another(stage: Stage) -> AsyncIterator[tuple[Peer, str]]:
    """Open a connection beside that of the conversation, with a command named `b`, and give its id too."""
    async with connected(stage.url) as peer:
        await peer.start("b", ["cat"], env=stage.env, pipeStdin=True)
        listed = (await peer.call("connection/list", {}))["connections"]
        yield peer, next(one["connectionId"] for one in listed if one["isOwn"])


def conversation(method: str) -> Callable[[Conversation], Conversation]:
    """Enter a conversation into the table."""

    def enter(conversation: Conversation) -> Conversation:
        CONVERSATIONS[method] = conversation
        return conversation

    return enter


@conversation("initialize")
async def nothing(stage: Stage) -> object:
    return None


# -- process/* --


@conversation("process/start")
async def start(stage: Stage) -> object:
    started = await stage.start("sh", "-c", "echo out; (setsid sleep 1000 &) ; exec sleep 1000", tty=True)
    await stage.peer.until_output("a", b"out\r\n")
    return {**started, "pid": None}


@conversation("process/write")
async def write(stage: Stage) -> object:
    await stage.start("cat", pipeStdin=True)
    written = await stage.of_a("process/write", chunk=b64(b"line\n"), writeId="1")
    await stage.peer.until_output("a", b"line\n")
    return written, stage.peer.output("a")


@conversation("process/closeStdin")
async def close_stdin(stage: Stage) -> object:
    await stage.start("sh", "-c", "cat; exit 3", pipeStdin=True)
    await stage.of_a("process/closeStdin")
    return await stage.told("exited"), (await stage.told("closed"))["totals"]


@conversation("process/read")
async def read(stage: Stage) -> object:
    await stage.start("printf", "some output")
    await stage.told("closed")
    return await stage.of_a("process/read")


@conversation("process/ack")
async def acknowledge(stage: Stage) -> object:
    await stage.start("sh", "-c", "printf 12345; sleep .01; printf 67890; exec sleep 1000", windowBytes=5)
    await stage.peer.until_output("a", b"12345")
    acknowledged = await stage.of_a("process/ack", seq=1)
    await stage.peer.until_output("a", b"1234567890")
    return acknowledged


@conversation("process/resize")
async def resize(stage: Stage) -> object:
    await stage.start_sleeper(tty=True)
    return await stage.of_a("process/resize", rows=30, cols=100)


@conversation("process/signal")
async def send_signal(stage: Stage) -> object:
    await stage.start_sleeper()
    return await stage.of_a("process/signal", signal="KILL", target="leader"), await stage.told("exited")


@conversation("process/terminate")
async def terminate(stage: Stage) -> object:
    await stage.start_sleeper()
    return await stage.of_a("process/terminate"), (await stage.told("closed"))["treeEmpty"]


@conversation("process/wait")
async def wait(stage: Stage) -> object:
    await stage.start("sh", "-c", "exit 5")
    return await stage.of_a("process/wait")


@conversation("process/snapshot")
async def snapshot(stage: Stage) -> object:
    await stage.start("printf", "some output")
    await stage.told("closed")
    return await stage.of_a("process/snapshot")


@conversation("process/list")
async def list_processes(stage: Stage) -> object:
    await stage.start_sleeper()
    [listed] = (await stage.call("process/list"))["processes"]
    return listed["processId"], listed["program"], listed["running"]


@conversation("process/waitFor")
async def wait_for(stage: Stage) -> object:
    await stage.start("sh", "-c", "printf 'some output'; exec sleep 1000")
    happened = await stage.of_a("process/waitFor", output=[b64(b"put")])
    return happened["happened"], happened["stream"], happened["index"]


# -- command/* --


async def start_command(stage: Stage, *argv: str, tty: bool = False) -> str:
    params = {"argv": list(argv), "cwd": "/", "env": stage.env, "tty": tty}
    return str((await stage.call("command/exec", **params))["sessionId"])


@conversation("command/exec")
async def execute(stage: Stage) -> object:
    id = await start_command(stage, "sh", "-c", "echo out; exit 4")
    return await stage.peer.until_told(id, "exited"), stage.peer.output(id)


@conversation("command/exec/write")
async def write_to_command(stage: Stage) -> object:
    id = await start_command(stage, "sh", "-c", "read line; echo got $line; exec sleep 1000", tty=True)
    written = await stage.call("command/exec/write", sessionId=id, chunk=b64(b"x\n"))
    await stage.peer.until_output(id, b"got x\r\n")
    return written


@conversation("command/exec/terminate")
async def terminate_command(stage: Stage) -> object:
    id = await start_command(stage, "sleep", "1000")
    return await stage.call("command/exec/terminate", sessionId=id), await stage.peer.until_told(id, "exited")


# -- http/*, environment/*, capabilities --


@conversation("http/request")
async def fetch(stage: Stage) -> object:
    answer = await stage.call("http/request", method="GET", url=stage.page, requestId="r", streamResponse=True)

    def deltas() -> list[dict[str, Any]]:
        found = [message for message in stage.peer.heard if isinstance(message, Notification)]
        return [message.params for message in found if message.method == "http/request/bodyDelta"]

    await stage.peer.until(lambda: any(delta.get("done") for delta in deltas()))
    return answer["status"], [delta["deltaBase64"] for delta in deltas() if delta["deltaBase64"]]


@conversation("http/read")
async def read_body(stage: Stage) -> object:
    answer = await stage.call("http/request", method="GET", url=stage.page, requestId="r", pullResponse=True)
    body = []
    while not (piece := await stage.call("http/read", requestId="r"))["done"]:
        body.append(piece["chunk"])
    return answer["status"], body


@conversation("http/close")
async def close_request(stage: Stage) -> object:
    await stage.call("http/request", method="GET", url=stage.page, requestId="r", pullResponse=True)
    return await stage.call("http/close", requestId="r")


@conversation("server/limits")
async def limits(stage: Stage) -> object:
    return sorted({ceiling["setting"] for ceiling in (await stage.call("server/limits"))["limits"]})


@conversation("environment/info")
async def info(stage: Stage) -> object:
    return await stage.call("environment/info")


@conversation("environment/status")
async def status(stage: Stage) -> object:
    return await stage.call("environment/status")


@conversation("environmentConfig/read")
async def read_config(stage: Stage) -> object:
    return await stage.call("environmentConfig/read", cwd="/", configPaths=[["a"]], requirementsPaths=[])


@conversation("capabilityRoots/discoverV1")
async def discover_roots(stage: Stage) -> object:
    return await stage.call("capabilityRoots/discoverV1", roots=[{"id": "r", "path": stage.folder.as_uri()}])


@conversation("capabilities/discoverV2")
async def discover(stage: Stage) -> object:
    return await stage.call("capabilities/discoverV2", cwd=stage.folder.as_uri())


# -- fs/* --


@conversation("fs/readFile")
async def read_file(stage: Stage) -> object:
    return await stage.call("fs/readFile", path=stage.file("read", "content"))


@conversation("fs/writeFile")
async def write_file(stage: Stage) -> object:
    name = stage.new_name()
    await stage.call("fs/writeFile", path=stage.file(name), dataBase64=b64(b"content"))
    return (stage.folder / name).read_text()


@conversation("fs/append")
async def append(stage: Stage) -> object:
    name = stage.new_name()
    await stage.call("fs/append", path=stage.file(name, "before "), dataBase64=b64(b"and behind"))
    return (stage.folder / name).read_text()


@conversation("fs/stat")
async def stat(stage: Stage) -> object:
    found = await stage.call("fs/stat", path=stage.file("status", "content"))
    return found["kind"], found["size"]


@conversation("fs/list")
async def list_files(stage: Stage) -> object:
    (stage.folder / "listed" / "entry").mkdir(parents=True, exist_ok=True)
    listed = await stage.call("fs/list", path=stage.file("listed"))
    return [(entry["fileName"], entry["status"]["kind"]) for entry in listed["entries"]]


@conversation("fs/change")
async def change(stage: Stage) -> object:
    name = stage.new_name()
    await stage.call("fs/change", path=stage.file(name, "content"), permissions=0o640, size=3)
    return (stage.folder / name).stat().st_mode & 0o777, (stage.folder / name).read_text()


@conversation("fs/rename")
async def rename(stage: Stage) -> object:
    old, new = stage.new_name(), stage.new_name()
    await stage.call("fs/rename", sourcePath=stage.file(old, "content"), destinationPath=stage.file(new))
    return (stage.folder / old).exists(), (stage.folder / new).read_text()


@conversation("fs/symlink")
async def link(stage: Stage) -> object:
    name = stage.new_name()
    await stage.call("fs/symlink", path=stage.file(name), target="some/where")
    return os.readlink(stage.folder / name)


@conversation("fs/createDirectory")
async def create_directory(stage: Stage) -> object:
    return await stage.call("fs/createDirectory", path=stage.file(stage.new_name()))


@conversation("fs/getMetadata")
async def metadata(stage: Stage) -> object:
    return (await stage.call("fs/getMetadata", path=stage.file("metadata", "content")))["size"]


@conversation("fs/canonicalize")
async def canonicalize(stage: Stage) -> object:
    return await stage.call("fs/canonicalize", path=stage.file("."))


@conversation("fs/readDirectory")
async def read_directory(stage: Stage) -> object:
    (stage.folder / "directory" / "entry").mkdir(parents=True, exist_ok=True)
    return await stage.call("fs/readDirectory", path=stage.file("directory"))


@conversation("fs/walk")
async def walk(stage: Stage) -> object:
    (stage.folder / "tree" / "branch" / "leaf").mkdir(parents=True, exist_ok=True)
    options = {"maxDepth": 9, "maxDirectories": 9, "maxEntries": 9, "followDirectorySymlinks": False}
    return await stage.call("fs/walk", path=stage.file("tree"), options=options)


@conversation("fs/remove")
async def remove(stage: Stage) -> object:
    (name := stage.folder / stage.new_name()).mkdir()
    await stage.call("fs/remove", path=name.as_uri())
    return name.exists()


@conversation("fs/copy")
async def copy(stage: Stage) -> object:
    name = stage.new_name()
    source, target = stage.file("source", "content"), stage.file(name)
    await stage.call("fs/copy", sourcePath=source, destinationPath=target, recursive=False)
    return (stage.folder / name).read_text()


async def open_file(stage: Stage, name: str, mode: str) -> Any:
    return await stage.call("fs/open", handleId="h", path=stage.file(name), mode=mode)


@conversation("fs/open")
async def open_one(stage: Stage) -> object:
    return await open_file(stage, stage.new_name(), "replace")


@conversation("fs/readBlock")
async def read_block(stage: Stage) -> object:
    stage.file("block", "content")
    await open_file(stage, "block", "read")
    return await stage.call("fs/readBlock", handleId="h", offset=2, len=3)


@conversation("fs/writeBlock")
async def write_block(stage: Stage) -> object:
    name = stage.new_name()
    await open_file(stage, name, "replace")
    await stage.call("fs/writeBlock", handleId="h", offset=2, chunk=b64(b"block"))
    return (stage.folder / name).read_bytes()


@conversation("fs/checksum")
async def checksum(stage: Stage) -> object:
    stage.file("summed", "content")
    await open_file(stage, "summed", "read")
    return await stage.call("fs/checksum", handleId="h", offset=2, len=100)


@conversation("fs/close")
async def close_file(stage: Stage) -> object:
    stage.file("closed", "content")
    await open_file(stage, "closed", "read")
    return await stage.call("fs/close", handleId="h")


@conversation("fs/watchMissing")
async def watch(stage: Stage) -> object:
    name = stage.folder / stage.new_name()
    watching = await stage.call("fs/watchMissing", watchId=1, missing=[name.as_uri()])
    name.touch()

    def changes() -> list[Any]:
        found = [message for message in stage.peer.heard if isinstance(message, Notification)]
        return [message.params for message in found if message.method == "fs/missingChanged"]

    if watching["watching"]:
        await stage.peer.until(changes)
    return watching, changes()


async def watch_new(stage: Stage) -> Path:
    """Watch a directory of its own, and return it."""
    (folder := stage.folder / stage.new_name()).mkdir()
    await stage.call("fs/watch", watchId="w", path=folder.as_uri())
    return folder


@conversation("fs/watch")
async def watch_tree(stage: Stage) -> object:
    return (await watch_new(stage)).exists()


@conversation("fs/readChanges")
async def read_changes(stage: Stage) -> object:
    folder = await watch_new(stage)
    (folder / "new").mkdir()
    told = await stage.call("fs/readChanges", watchId="w")
    return [(change["kind"], change["path"].rpartition("/")[2]) for change in told["changes"]]


@conversation("fs/unwatch")
async def unwatch(stage: Stage) -> object:
    await watch_new(stage)
    return await stage.call("fs/unwatch", watchId="w")


# -- connection/* --


@conversation("connection/list")
async def list_connections(stage: Stage) -> object:
    listed = await stage.call("connection/list")
    return [one["isOwn"] for one in listed["connections"]].count(True)


async def join(stage: Stage, id: str, role: str = "viewer") -> Any:
    return await stage.call("connection/join", connection=id, role=role)


@conversation("connection/join")
async def join_another(stage: Stage) -> object:
    async with another(stage) as (_, id):
        return (await join(stage, id, "writer"))["role"]


@conversation("connection/leave")
async def leave(stage: Stage) -> object:
    async with another(stage) as (_, id):
        await join(stage, id)
        return await stage.call("connection/leave", connection=id)


@conversation("connection/grant")
async def grant(stage: Stage) -> object:
    return (await stage.call("connection/grant", role="viewer", expiresSeconds=60))["role"]


@conversation("connection/revoke")
async def revoke(stage: Stage) -> object:
    granted = await stage.call("connection/grant", role="viewer", principal="token nobody")
    return await stage.call("connection/revoke", grantId=granted["grantId"])


@conversation("connection/end")
async def end_another(stage: Stage) -> object:
    async with another(stage) as (_, id):
        await join(stage, id, "owner")
        return await stage.call("connection/end", connection=id)


async def attach(stage: Stage, id: str) -> Any:
    await join(stage, id)
    return await stage.call("process/attach", connection=id, processId="b", attachedId="a")


@conversation("process/attach")
async def attach_to_another(stage: Stage) -> object:
    async with another(stage) as (peer, id):
        attached = await attach(stage, id)
        await peer.call("process/write", {"processId": "b", "chunk": b64(b"seen\n"), "writeId": "w"})
        await stage.peer.until_output("a", b"seen\n")
        return attached["argv"]


@conversation("process/detach")
async def detach(stage: Stage) -> object:
    async with another(stage) as (_, id):
        await attach(stage, id)
        return await stage.of_a("process/detach")
