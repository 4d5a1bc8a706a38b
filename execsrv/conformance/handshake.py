"""Cases about the beginning of a connection, and about requests as such."""

from __future__ import annotations

from execsrv.conformance.case import Stage, Suite
from execsrv.conformance.talk import UNKNOWN_METHOD, DiffersError, expect, started

SUITE = Suite("handshake")


@SUITE
async def greeting(stage: Stage) -> None:
    """The greeting names the connection, and the shell of the machine."""
    talk = await stage.connect()
    said = await talk.greet()
    if not isinstance(said.get("sessionId"), str) or not said["sessionId"]:
        raise DiffersError("the greeting has no `sessionId`")
    if not isinstance(said.get("environmentInfo", {}).get("shell", {}).get("path"), str):
        raise DiffersError("the greeting has no `environmentInfo.shell.path`")


@SUITE
async def too_early(stage: Stage) -> None:
    """Before `initialize` every other method is refused, with -32600."""
    talk = await stage.connect()
    words = "client must call initialize before using"
    await talk.refused("process/start", started("a", ["true"]), -32600, words)


@SUITE
async def half_way(stage: Stage) -> None:
    """Before `initialized` every other method is refused, with -32600."""
    talk = await stage.connect()
    await talk.call("initialize", {"clientName": "conformance"})
    words = "client must send initialized before using"
    await talk.refused("process/start", started("a", ["true"]), -32600, words)


@SUITE
async def twice(stage: Stage) -> None:
    """A second `initialize` is refused, with -32600."""
    talk = await stage.talk()
    words = "initialize may only be sent once per connection"
    await talk.refused("initialize", {"clientName": "conformance"}, -32600, words)


@SUITE
async def once_more(stage: Stage) -> None:
    """An `initialize` that was refused may be said again."""
    talk = await stage.connect()
    await talk.refused("initialize", {}, -32602)
    await talk.greet()


@SUITE
async def ids(stage: Stage) -> None:
    """Ids of requests are numbers or strings, and come back as they are."""
    talk = await stage.talk()
    for id in ("1", "a b", 0, -5, 2**62):
        await talk.post("environment/status", {}, id)
        answer = await talk.answer(id)
        expect(f"answer to request {id!r}", answer.get("result"), {"status": "ready"})


@SUITE
async def unknown_method(stage: Stage) -> None:
    """An unknown method is refused with -32601, by its name."""
    talk = await stage.talk()
    await talk.refused("process/noSuchThing", {}, UNKNOWN_METHOD, "process/noSuchThing")


@SUITE
async def unknown_fields(stage: Stage) -> None:
    """Fields that a server does not know are passed over."""
    talk = await stage.talk()
    expect("exit code", (await talk.run("a", ["true"], noSuchField={"a": [1]}))[0], 0)


@SUITE
async def bad_parameters(stage: Stage) -> None:
    """Bad parameters are refused with -32602, and the connection goes on."""
    talk = await stage.talk()
    await talk.refused("process/start", {"processId": "a"}, -32602)
    await talk.refused("process/start", started("a", ["true"], tty="yes"), -32602)
    expect("exit code", (await talk.run("a", ["true"]))[0], 0)
