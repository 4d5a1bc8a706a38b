"""Cases about `command/*`, the first dialect of the protocol: exec-server.v0."""

from __future__ import annotations

from typing import Any

from execsrv.conformance.case import Stage, Suite
from execsrv.conformance.talk import Talk, b64, expect

SUITE = Suite("commands")
DELTA, EXITED = "command/exec/outputDelta", "command/exec/exited"


async def begin(talk: Talk, argv: list[str], **params: Any) -> str:
    asked = {"argv": argv, "cwd": "/", "env": {"PATH": "/usr/bin:/bin"}, "tty": False, **params}
    id: str = (await talk.call("command/exec", asked))["sessionId"]
    return id


@SUITE
async def numbering(stage: Stage) -> None:
    """The server names commands session-1, session-2, and so on."""
    talk = await stage.talk()
    expect("names", [await begin(talk, ["true"]) for _ in range(3)], ["session-1", "session-2", "session-3"])


@SUITE
async def output(stage: Stage) -> None:
    """Output comes by stream, and then the exit code."""
    talk = await stage.talk()
    id = await begin(talk, ["sh", "-c", "echo out; echo error >&2; exit 3"])
    expect("exit code", (await talk.until_told(EXITED, id))["exitCode"], 3)
    expect("stdout", talk.output(id, "stdout", method=DELTA), b"out\n")
    expect("stderr", talk.output(id, "stderr", method=DELTA), b"error\n")


@SUITE
async def environment(stage: Stage) -> None:
    """The environment is exactly what was sent, and `arg0` the name that the program sees."""
    talk = await stage.talk()
    id = await begin(talk, ["/usr/bin/env"], env={"ONE": "1"})
    await talk.until_told(EXITED, id)
    expect("environment", talk.output(id, method=DELTA), b"ONE=1\n")
    id = await begin(talk, ["sh", "-c", "echo $0"], arg0="other")
    await talk.until_told(EXITED, id)
    expect("name", talk.output(id, method=DELTA), b"other\n")


@SUITE
async def writing(stage: Stage) -> None:
    """A terminal takes input; without one stdin is closed, and a write is refused with -32600."""
    talk = await stage.talk()
    id = await begin(talk, ["head", "-n", "1"], tty=True)
    written = await talk.call("command/exec/write", {"sessionId": id, "chunk": b64(b"hello\n")})
    expect("answer to a write", written, {"accepted": True})
    expect("exit code", (await talk.until_told(EXITED, id))["exitCode"], 0)
    expect("output", talk.output(id, "stdout", method=DELTA), b"hello\r\nhello\r\n")
    id = await begin(talk, ["sleep", "1000"])
    params = {"sessionId": id, "chunk": b64(b"x")}
    await talk.refused("command/exec/write", params, -32600, f"stdin is closed for session {id}")


@SUITE
async def ending(stage: Stage) -> None:
    """A termination tells whether the command ran; of an unknown one it does not."""
    talk = await stage.talk()
    id = await begin(talk, ["sleep", "1000"])
    expect("running", await talk.call("command/exec/terminate", {"sessionId": id}), {"running": True})
    await talk.until_told(EXITED, id)
    expect("running", await talk.call("command/exec/terminate", {"sessionId": "missing"}), {"running": False})


@SUITE
async def refusals(stage: Stage) -> None:
    """An unknown id, an empty command and a missing program are refused."""
    talk = await stage.talk()
    missing = {"sessionId": "missing", "chunk": ""}
    await talk.refused("command/exec/write", missing, -32600, "unknown session id missing")
    params = {"cwd": "/", "env": {}, "tty": False}
    await talk.refused("command/exec", {**params, "argv": []}, -32602, "argv must not be empty")
    await talk.refused("command/exec", {**params, "argv": ["/does/not/exist"]}, -32603)
