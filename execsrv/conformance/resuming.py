"""Cases about connections that are lost, and taken up again. A server that keeps none has nothing of the kind."""

from __future__ import annotations

import base64

import trio

from execsrv.conformance.case import Stage, Suite
from execsrv.conformance.processes import write
from execsrv.conformance.talk import AbsentError, DiffersError, Talk, expect

SUITE = Suite("resuming")


async def again(stage: Stage, id: str) -> Talk:
    """Take up a connection that was lost. The server may not have noticed yet."""
    if not stage.listens:
        raise AbsentError("a server on stdin and stdout is one connection")
    while True:
        talk = await stage.connect()
        answer = await talk.answer(await talk.post("initialize", {"clientName": "conformance", "resumeSessionId": id}))
        error = answer.get("error", {})
        if error.get("code") == -32010:
            await trio.sleep(0.05)
            continue
        if "unknown session id" in str(error.get("message")):
            raise AbsentError("a lost connection is not kept (execsrv keeps it with `--resume-grace`)")
        if error:
            raise DiffersError(f"a lost connection cannot be taken up: {error.get('message')}")
        await talk.send({"method": "initialized", "params": {}})
        return talk


@SUITE
async def unknown(stage: Stage) -> None:
    """A connection that nobody knows cannot be taken up: -32600."""
    talk = await stage.connect()
    params = {"clientName": "conformance", "resumeSessionId": "00000000-0000-4000-8000-000000000000"}
    await talk.refused("initialize", params, -32600, "unknown session id 00000000")


@SUITE
async def attached(stage: Stage) -> None:
    """A connection that somebody holds cannot be taken up: -32010. The holder keeps it."""
    if not stage.listens:
        raise AbsentError("a server on stdin and stdout is one connection")
    holder = await stage.connect()
    id = (await holder.greet())["sessionId"]
    thief = await stage.connect()
    await thief.refused("initialize", {"clientName": "conformance", "resumeSessionId": id}, -32010)
    expect("exit code", (await holder.run("a", ["true"]))[0], 0)


async def interrupted(stage: Stage, lines: int) -> tuple[Talk, Talk]:
    """Start what says some lines again, lose the connection, and return what was the connection and what is it now."""
    argv = ["sh", "-c", f"for i in $(seq {lines}); do read x; echo $x; done"]
    first = await stage.connect()
    id = (await first.greet())["sessionId"]
    await first.start("a", argv, pipeStdin=True)
    expect("answer to a write", await write(first, "a", b"one\n", "1"), "accepted")
    await first.until_output("a", b"one\n")
    await first.cut()
    return first, await again(stage, id)


async def read_all(talk: Talk, **params: int) -> bytes:
    read = await talk.call("process/read", {"processId": "a", **params})
    return b"".join(base64.b64decode(chunk["chunk"]) for chunk in read["chunks"])


@SUITE
async def output(stage: Stage) -> None:
    """A process goes on while the connection is lost; what it printed can be read, and what follows is told."""
    first, second = await interrupted(stage, 3)
    expect("output so far", await read_all(second), b"one\n")
    await write(second, "a", b"two\n", "2")
    await second.until_output("a", b"two\n")
    await write(second, "a", b"three\n", "3")
    await second.until_told("process/closed", "a")
    expect("output told", (first.output("a"), second.output("a")), (b"one\n", b"two\nthree\n"))
    expect("output read", await read_all(second), b"one\ntwo\nthree\n")


@SUITE
async def writes(stage: Stage) -> None:
    """A write that is said again on the next channel is written once."""
    _, second = await interrupted(stage, 2)
    await read_all(second)
    for data, write_id in ((b"one\n", "1"), (b"two\n", "2")):
        expect("answer to a write", await write(second, "a", data, write_id), "accepted")
    await second.until_told("process/closed", "a")
    expect("output", await read_all(second), b"one\ntwo\n")
