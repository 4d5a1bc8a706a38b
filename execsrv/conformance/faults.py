"""Cases about bad input and bad manners: one connection may end by them, and nothing else."""

from __future__ import annotations

from execsrv.conformance.case import Stage, Suite
from execsrv.conformance.processes import write
from execsrv.conformance.talk import Talk, b64, expect, started

SUITE = Suite("faults")


async def good(talk: Talk, id: str = "good") -> None:
    """Expect that all is well on a connection."""
    expect("a command behind it", await talk.run(id, ["echo", "fine"]), (0, b"fine\n"))


async def survives(stage: Stage, *texts: str) -> None:
    """Say what nobody should, beside somebody else."""
    other = await stage.talk()
    talk = await stage.talk()
    for text in texts:
        await talk.send(text)
    await good(other)
    if stage.listens:
        await good(await stage.talk())


@SUITE
async def no_json(stage: Stage) -> None:
    """What is no message is answered with an error before anything else happens."""
    talk = await stage.talk()
    await talk.send("{nonsense")
    await talk.until(lambda: [message for message in talk.heard if "error" in message], "an error")


@SUITE
async def neighbours(stage: Stage) -> None:
    """No bad message of one connection reaches another."""
    for text in ("{nonsense", "[]", '"a"', '{"method": "nonsense"}', '{"id": 1, "result": {}}', "[" * 100_000):
        await survives(stage, text)


@SUITE
async def cut_off(stage: Stage) -> None:
    """A connection that is cut in the middle of a message harms nobody."""
    other = await stage.talk()
    talk = await stage.talk()
    await talk.start("a", ["sleep", "1000"])
    await talk.cut()
    await good(other)


@SUITE
async def odd_ids(stage: Stage) -> None:
    """Ids of processes may hold anything."""
    talk = await stage.talk()
    for id in ("", " ", "a/b", "\u00e9\u4e2d\U0001f600", "x" * 200):
        await good(talk, id)


@SUITE
async def no_waiting(stage: Stage) -> None:
    """A request that waits holds up no other."""
    talk = await stage.talk()
    await talk.start("a", ["sleep", "1000"])
    for _ in range(8):
        await talk.post("process/read", {"processId": "a", "waitMs": 1_000_000})
    await good(talk)
    expect("running", (await talk.call("process/terminate", {"processId": "a"}))["running"], True)


@SUITE
async def no_reader(stage: Stage) -> None:
    """A command that does not read its input holds up no other."""
    talk = await stage.talk()
    await talk.start("a", ["sleep", "1000"], pipeStdin=True)
    for number in range(4):
        await talk.post("process/write", {"processId": "a", "chunk": b64(bytes(500_000)), "writeId": f"{number + 1}"})
    await good(talk)


@SUITE
async def ended_reader(stage: Stage) -> None:
    """Input for a process that has ended is not accepted."""
    talk = await stage.talk()
    await talk.run("a", ["true"], pipeStdin=True)
    expect("answer to a write", await write(talk, "a", b"x"), "stdinClosed")


@SUITE
async def large(stage: Stage) -> None:
    """A message of ten megabytes is taken."""
    talk = await stage.talk()
    await talk.start("a", ["sh", "-c", "head -c 7500000 | wc -c"], pipeStdin=True)
    await talk.post("process/write", {"processId": "a", "chunk": b64(bytes(7_500_000)), "writeId": "1"})
    await talk.until_told("process/closed", "a")
    expect("bytes that arrived", talk.output("a").strip(), b"7500000")


@SUITE
async def many_requests(stage: Stage) -> None:
    """Five hundred requests at once are each answered, or refused in words."""
    talk = await stage.talk()
    asked = [await talk.post("process/read", {"processId": f"none{number}"}) for number in range(500)]
    for id in asked:
        expect("error", "error" in await talk.answer(id), True)
    await good(talk)


@SUITE
async def repeated_starts(stage: Stage) -> None:
    """A start with bad base64, bad numbers or NUL bytes is refused, and the connection goes on."""
    talk = await stage.talk()
    await talk.refused("process/start", started("a", ["echo", "a\0b"]), -32603)
    await talk.refused("process/read", {"processId": "a", "afterSeq": -1}, -32602)
    await talk.start("a", ["cat"], pipeStdin=True)
    await talk.refused("process/write", {"processId": "a", "chunk": "!", "writeId": "1"}, -32602)
    await good(talk)
