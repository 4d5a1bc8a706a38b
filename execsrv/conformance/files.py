"""Cases about `fs/*`. They work in a new folder of the server's machine, and take it away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from execsrv.conformance.case import Stage, Suite
from execsrv.conformance.talk import DiffersError, Talk, b64, expect

SUITE = Suite("files")
MISSING = -32004


class Folder:
    """A connection, and a folder for it."""

    def __init__(self, talk: Talk, path: str) -> None:
        self.talk = talk
        self.path = path

    def uri(self, name: str = "") -> str:
        """Return the URI of something in the folder."""
        return f"file://{self.path}" + (f"/{name}" if name else "")

    async def call(self, method: str, name: str = "", **params: Any) -> Any:
        """Return the result of a request about something in the folder."""
        return await self.talk.call(f"fs/{method}", {"path": self.uri(name), **params})

    async def refused(self, method: str, name: str, code: int, words: str = "", **params: Any) -> None:
        """Expect an error."""
        await self.talk.refused(f"fs/{method}", {"path": self.uri(name), **params}, code, words)

    async def write(self, name: str, data: bytes) -> None:
        """Write a file."""
        expect("answer to fs/writeFile", await self.call("writeFile", name, dataBase64=b64(data)), {})

    async def content(self, name: str) -> str:
        """Return the content of a file, in base64."""
        data: str = (await self.call("readFile", name))["dataBase64"]
        return data

    async def names(self, name: str = "") -> list[str]:
        """Return what is in a directory."""
        return sorted(entry["fileName"] for entry in (await self.call("readDirectory", name))["entries"])


@asynccontextmanager
async def folder(stage: Stage) -> AsyncIterator[Folder]:
    talk = await stage.talk()
    code, output = await talk.run("mktemp", ["mktemp", "-d"])
    if code:
        raise DiffersError("cannot make a folder there")
    path = output.decode().strip()
    try:
        yield Folder(talk, path)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
            other = await stage.talk()
            await other.run("rm", ["rm", "-rf", path])


@SUITE
async def content(stage: Stage) -> None:
    """A file is written and read whole, every byte of it."""
    async with folder(stage) as here:
        for data in (b"", bytes(range(256)), bytes(3_000_000)):
            await here.write("a b", data)
            expect("content", await here.content("a b") == b64(data), True)


@SUITE
async def missing(stage: Stage) -> None:
    """What is not there is -32004, in every method."""
    async with folder(stage) as here:
        for method in ("readFile", "getMetadata", "canonicalize", "readDirectory"):
            await here.refused(method, "none", MISSING)
        await here.refused("writeFile", "none/a", MISSING, dataBase64="")


@SUITE
async def metadata(stage: Stage) -> None:
    """Facts about a link are those of its target, and say that it is one."""
    async with folder(stage) as here:
        await here.write("file", b"12345")
        await here.talk.run("ln", ["ln", "-s", "file", f"{here.path}/link"])
        found = await here.call("getMetadata", "link")
        facts = {name: found.get(name) for name in ("isFile", "isDirectory", "isSymlink", "size")}
        expect("facts", facts, {"isFile": True, "isDirectory": False, "isSymlink": True, "size": 5})
        expect("real path", (await here.call("canonicalize", "link"))["path"], here.uri("file"))


@SUITE
async def directories(stage: Stage) -> None:
    """A directory is made with its parents, listed, and removed with all in it."""
    async with folder(stage) as here:
        await here.call("createDirectory", "a/b/c")
        await here.write("a/file", b"")
        expect("names", await here.names("a"), ["b", "file"])
        await here.refused("createDirectory", "x/y", MISSING, recursive=False)
        await here.refused("remove", "a", -32603, "os error 39", recursive=False)
        await here.call("remove", "a")
        await here.call("remove", "a")
        await here.refused("remove", "a", MISSING, force=False)
        expect("names", await here.names(), [])


@SUITE
async def copies(stage: Stage) -> None:
    """A tree is copied where that is asked for, and never into itself."""
    async with folder(stage) as here:
        await here.call("createDirectory", "a/b")
        await here.write("a/b/file", b"data")

        def params(to: str, recursive: bool) -> dict[str, Any]:
            return {"sourcePath": here.uri("a"), "destinationPath": here.uri(to), "recursive": recursive}

        await here.talk.refused("fs/copy", params("c", False), -32600, "recursive: true")
        await here.talk.refused("fs/copy", params("a/b/c", True), -32600, "itself")
        await here.talk.call("fs/copy", params("c", True))
        expect("content", await here.content("c/b/file"), b64(b"data"))


@SUITE
async def blocks(stage: Stage) -> None:
    """A file is written and read in blocks, by a handle."""
    async with folder(stage) as here:
        call = here.talk.call
        await call("fs/open", {"handleId": "w", "path": here.uri("file"), "mode": "replace"})
        for offset, data in ((4, b"efgh"), (0, b"abcd")):
            await call("fs/writeBlock", {"handleId": "w", "offset": offset, "chunk": b64(data)})
        await call("fs/close", {"handleId": "w"})
        await call("fs/open", {"handleId": "r", "path": here.uri("file")})
        read = await call("fs/readBlock", {"handleId": "r", "offset": 2, "len": 3})
        expect("block", read, {"chunk": b64(b"cde"), "eof": False})
        read = await call("fs/readBlock", {"handleId": "r", "offset": 6, "len": 100})
        expect("block", read, {"chunk": b64(b"gh"), "eof": True})
        await call("fs/close", {"handleId": "r"})
        wanted = {"handleId": "r", "offset": 0, "len": 1}
        await here.talk.refused("fs/readBlock", wanted, MISSING, "unknown file handle `r`")


@SUITE
async def walks(stage: Stage) -> None:
    """A walk gives a tree level by level, sorted by name, and says where it was cut."""
    async with folder(stage) as here:
        await here.call("createDirectory", "b/c")
        for name in ("a", "b/d", "b/c/e"):
            await here.write(name, b"")
        options = {"maxDepth": 9, "maxDirectories": 99, "maxEntries": 99, "followDirectorySymlinks": False}
        walk = await here.call("walk", options=options)
        wanted = [here.uri(name) for name in ("a", "b", "b/c", "b/d", "b/c/e")]
        expect("paths", [entry["path"] for entry in walk["entries"]], wanted)
        expect("truncated", walk["truncated"], False)
        expect("truncated", (await here.call("walk", options={**options, "maxEntries": 2}))["truncated"], True)


@SUITE
async def watches(stage: Stage) -> None:
    """Who waits for a path that is missing is told once when it is there."""
    async with folder(stage) as here:
        watching = await here.talk.call(
            "fs/watchMissing", {"watchId": 1, "missing": [here.uri("new")], "present": None}
        )
        expect("answer", watching, {"watching": True})
        await here.write("new", b"")

        def told() -> bool:
            return any(message.get("method") == "fs/missingChanged" for message in here.talk.heard)

        await here.talk.until(told, "fs/missingChanged")


@SUITE
async def uris(stage: Stage) -> None:
    """Escapes of a URI are read, `..` is resolved, and what is no URI of this machine is refused with -32602."""
    async with folder(stage) as here:
        await here.write("a%20b%C3%A9/../c", b"1")
        expect("names", await here.names(), ["c"])
        for path in ("relative", "http://host/x", "file:///a?b", "file:///a#b", "file://host/a"):
            await here.talk.refused("fs/readFile", {"path": path}, -32602)
