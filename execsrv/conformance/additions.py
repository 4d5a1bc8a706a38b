"""Cases about what execsrv has beside the protocol of others. Another server may well have none of it."""

from __future__ import annotations

from execsrv.conformance.case import Stage, Suite
from execsrv.conformance.processes import write
from execsrv.conformance.talk import AbsentError, Talk, expect, started

SUITE = Suite("additions")


async def ready(talk: Talk, script: str, **params: object) -> None:
    """Start a script that says `ready`."""
    await talk.start("a", ["sh", "-c", script], **params)
    await talk.until_output("a", b"ready")


@SUITE
async def listing(stage: Stage) -> None:
    """`process/list` tells what runs."""
    talk = await stage.talk()
    await talk.start("a", ["sleep", "1000"])
    [found] = (await talk.call("process/list", {}))["processes"]
    expect("process", (found["processId"], found["running"], found["argv"]), ("a", True, ["sleep", "1000"]))


@SUITE
async def waiting(stage: Stage) -> None:
    """`process/wait` waits for an end."""
    talk = await stage.talk()
    await talk.start("a", ["sh", "-c", "read x; exit 3"], pipeStdin=True)
    asked = await talk.post("process/wait", {"processId": "a"})
    await write(talk, "a", b"\n")
    answer = await talk.answer(asked)
    if answer.get("error", {}).get("code") == -32601:
        raise AbsentError("no method `process/wait`")
    expect("exit code", answer["result"]["exitCode"], 3)


@SUITE
async def half_close(stage: Stage) -> None:
    """`process/closeStdin` is the end of the input."""
    talk = await stage.talk()
    await talk.start("a", ["cat"], pipeStdin=True)
    await write(talk, "a", b"all\n")
    await talk.call("process/closeStdin", {"processId": "a"})
    await talk.until_told("process/closed", "a")
    expect("output", talk.output("a"), b"all\n")


@SUITE
async def sizes(stage: Stage) -> None:
    """A terminal has its size from the first instant, and a new one by `process/resize`."""
    talk = await stage.talk()
    await talk.start("a", ["sh", "-c", "stty size; read x; stty size"], tty=True, size={"rows": 30, "cols": 100})
    await talk.until_output("a", b"\n")
    first = talk.output("a").split()[:2]
    if first == [b"24", b"80"]:
        raise AbsentError("`size` is passed over")
    expect("first size", first, [b"30", b"100"])
    await talk.call("process/resize", {"processId": "a", "rows": 40, "cols": 120})
    await write(talk, "a", b"\r")
    await talk.until_told("process/closed", "a")
    expect("last size", talk.output("a").split()[-2:], [b"40", b"120"])


@SUITE
async def signals(stage: Stage) -> None:
    """Any signal can be sent, and an exit says which one the process died of."""
    talk = await stage.talk()
    await ready(talk, "echo ready; exec sleep 1000")
    params = {"processId": "a", "signal": "SIGUSR1", "target": "tree"}
    answer = await talk.answer(await talk.post("process/signal", params))
    if answer.get("error", {}).get("code") == -32602:
        raise AbsentError(f"no signal of that name: {answer['error'].get('message')}")
    exited = await talk.until_told("process/exited", "a")
    told = (exited["exitCode"], exited.get("signal"), exited.get("reason"))
    expect("end", told, (138, "SIGUSR1", "signaled"))


@SUITE
async def graceful(stage: Stage) -> None:
    """A termination may ask first."""
    talk = await stage.talk()
    await ready(talk, "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep .1; done")
    mode = {"graceful": {"timeoutMs": 60_000}}
    await talk.call("process/terminate", {"processId": "a", "mode": mode})
    code = (await talk.until_told("process/exited", "a"))["exitCode"]
    if code == 137:
        raise AbsentError("`mode` is passed over: it was killed at once")
    expect("exit code", code, 7)


@SUITE
async def deadlines(stage: Stage) -> None:
    """`timeoutMs` and `idleTimeoutMs` end a command, and say so."""
    talk = await stage.talk()
    for id, field, reason in (("a", "timeoutMs", "timeout"), ("b", "idleTimeoutMs", "idle")):
        await talk.start(id, ["sleep", "5"], **{field: 200})
        exited = await talk.until_told("process/exited", id)
        if "reason" not in exited:
            raise AbsentError(f"`{field}` is passed over")
        expect(f"reason of {id}", exited["reason"], reason)


@SUITE
async def totals(stage: Stage) -> None:
    """The close says how much each stream has carried, and who lives on."""
    talk = await stage.talk()
    await talk.run("a", ["sh", "-c", "echo 1234; echo 12 >&2"])
    closed = await talk.until_told("process/closed", "a")
    if "totals" not in closed:
        raise AbsentError("no `totals` in process/closed")
    expect("totals", closed["totals"], {"stdout": 5, "stderr": 3})
    expect("remaining", closed.get("remaining", []), [])


@SUITE
async def kinds(stage: Stage) -> None:
    """An error has a word for programs: `data.kind`."""
    talk = await stage.talk()
    error = await talk.refused("process/start", started("a", ["/does/not/exist"]), -32603)
    if "data" not in error:
        raise AbsentError("errors have no `data`")
    expect("kind", error["data"].get("kind"), "spawnNotFound")


@SUITE
async def snapshots(stage: Stage) -> None:
    """`process/snapshot` gives the beginning and the end of what was printed."""
    talk = await stage.talk()
    await talk.run("a", ["echo", "hello"])
    found = await talk.call("process/snapshot", {"processId": "a"})
    expect("state", (found["running"], found["exitCode"]), (False, 0))
