"""Cases about `process/*`: starts, output, input, signals and ends."""

from __future__ import annotations

from typing import Any

import trio

from execsrv.conformance.case import Stage, Suite
from execsrv.conformance.talk import ENV, DiffersError, Talk, b64, expect, started

SUITE = Suite("processes")


@SUITE
async def order(stage: Stage) -> None:
    """Output, exit and close are numbered from 1 without a gap, and come in that order behind the answer."""
    talk = await stage.talk()
    expect(
        "`processId` of the answer",
        (await talk.start("a", ["sh", "-c", "echo one; sleep .1; echo two; sleep .1"]))["processId"],
        "a",
    )
    await talk.until_told("process/closed", "a")
    told = [(m["method"], m["params"]) for m in talk.heard if m.get("params", {}).get("processId") == "a"]
    expect("numbers", [params["seq"] for _, params in told], list(range(1, len(told) + 1)))
    expect("last two", [method for method, _ in told[-2:]], ["process/exited", "process/closed"])
    expect("output", talk.output("a", "stdout"), b"one\ntwo\n")


@SUITE
async def streams(stage: Stage) -> None:
    """stdout and stderr are two streams, with every byte as it was printed."""
    talk = await stage.talk()
    await talk.start("a", ["sh", "-c", r"printf 'a\000\377'; printf 'b\r\n' >&2"])
    await talk.until_told("process/closed", "a")
    expect("stdout", talk.output("a", "stdout"), b"a\0\xff")
    expect("stderr", talk.output("a", "stderr"), b"b\r\n")


@SUITE
async def much_output(stage: Stage) -> None:
    """Four megabytes of output come whole."""
    talk = await stage.talk()
    _, output = await talk.run("a", ["sh", "-c", "head -c 4000000 /dev/zero"])
    expect("bytes", (len(output), output.count(0)), (4_000_000, 4_000_000))


@SUITE
async def environment(stage: Stage) -> None:
    """The environment is exactly what was sent."""
    talk = await stage.talk()
    _, output = await talk.run("a", ["/usr/bin/env"], env={"ONE": "1", "TWO": ""})
    expect("environment", sorted(output.split()), [b"ONE=1", b"TWO="])


@SUITE
async def environment_policy(stage: Stage) -> None:
    """`envPolicy` lays what is sent on top of what is inherited and set."""
    talk = await stage.talk()
    policy = {"inherit": "none", "ignoreDefaultExcludes": True, "exclude": ["B*"], "set": {"A": "1", "BAD": "2"}}
    _, output = await talk.run("a", ["/usr/bin/env"], env={"C": "3"}, envPolicy={**policy, "includeOnly": []})
    expect("environment", sorted(set(output.split()) - {b"BAD=2"}), [b"A=1", b"C=3"])


@SUITE
async def directory(stage: Stage) -> None:
    """A command runs in its `cwd`."""
    talk = await stage.talk()
    expect("directory", await talk.run("a", ["pwd"], cwd="file:///usr"), (0, b"/usr\n"))


@SUITE
async def name(stage: Stage) -> None:
    """A program sees `arg0` as its name, on pipes and on a terminal."""
    talk = await stage.talk()
    script = "echo $0"
    for id, tty, end in (("a", False, b"\n"), ("b", True, b"\r\n")):
        found = await talk.run(id, ["sh", "-c", script], arg0="other", tty=tty)
        expect(f"name{' on a terminal' if tty else ''}", found, (0, b"other" + end))


@SUITE
async def terminal(stage: Stage) -> None:
    """A terminal is the controlling one, of 24 rows and 80 columns, and its stream is `pty`."""
    talk = await stage.talk()
    await talk.run("a", ["sh", "-c", "stty size </dev/tty; test -t 0 && test -t 1 && test -t 2 && echo all"], tty=True)
    expect("output", talk.output("a", "pty"), b"24 80\r\nall\r\n")


@SUITE
async def no_input(stage: Stage) -> None:
    """Without `pipeStdin` the input of a command is empty, and writing to it says `stdinClosed`."""
    talk = await stage.talk()
    expect("cat", await talk.run("a", ["cat"]), (0, b""))
    await talk.start("b", ["sleep", "1000"])
    expect("answer to a write", await write(talk, "b", b"x"), "stdinClosed")
    expect("answer to a write to nobody", await write(talk, "c", b"x"), "unknownProcess")


async def write(talk: Talk, id: str, data: bytes, write_id: str = "1") -> Any:
    params = {"processId": id, "chunk": b64(data), "writeId": write_id}
    return (await talk.call("process/write", params))["status"]


@SUITE
async def input_once(stage: Stage) -> None:
    """Input arrives in order, and a `writeId` that is said again writes nothing."""
    talk = await stage.talk()
    await talk.start("a", ["head", "-n", "2"], pipeStdin=True)
    for data, write_id in ((b"one\n", "1"), (b"one\n", "1"), (b"other\n", "1"), (b"two\n", "2")):
        expect("answer to a write", await write(talk, "a", data, write_id), "accepted")
    await talk.until_told("process/closed", "a")
    expect("output", talk.output("a"), b"one\ntwo\n")


@SUITE
async def input_needs_an_id(stage: Stage) -> None:
    """A write without a `writeId` is refused, with -32602."""
    talk = await stage.talk()
    await talk.start("a", ["cat"], pipeStdin=True)
    await talk.refused("process/write", {"processId": "a", "chunk": "", "writeId": ""}, -32602, "writeId")


@SUITE
async def keys(stage: Stage) -> None:
    """Ctrl-C on a terminal interrupts what is in front."""
    talk = await stage.talk()
    await talk.start(
        "a", ["sh", "-c", "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep .1; done"], tty=True
    )
    await talk.until_output("a", b"ready")
    await write(talk, "a", b"\x03")
    expect("exit code", (await talk.until_told("process/exited", "a"))["exitCode"], 3)


@SUITE
async def exit_codes(stage: Stage) -> None:
    """The exit code is that of the program, and 128+N after signal N."""
    talk = await stage.talk()
    for id, script, code in (("a", "exit 7", 7), ("b", "kill -TERM $$", 143), ("c", "kill -KILL $$", 137)):
        expect(f"exit code of `{script}`", (await talk.run(id, ["sh", "-c", script]))[0], code)


@SUITE
async def exit_codes_of_terminals(stage: Stage) -> None:
    """The exit code is 128+N after signal N on a terminal too."""
    talk = await stage.talk()
    expect("exit code of `kill -TERM $$`", (await talk.run("a", ["sh", "-c", "kill -TERM $$"], tty=True))[0], 143)


@SUITE
async def starts_that_fail(stage: Stage) -> None:
    """What cannot be started is an error, never an exit code, and its id is free again."""
    talk = await stage.talk()
    await talk.refused("process/start", started("a", []), -32602, "argv must not be empty")
    await talk.refused("process/start", started("a", ["/does/not/exist"]), -32603, "os error 2")
    await talk.refused("process/start", started("a", ["/etc/passwd"]), -32603, "os error 13")
    await talk.refused("process/start", started("a", ["true"], cwd="file:///does/not/exist"), -32603, "os error 2")
    expect("exit code", (await talk.run("a", ["true"]))[0], 0)


@SUITE
async def missing_directory_of_a_terminal(stage: Stage) -> None:
    """A missing `cwd` is an error on a terminal too."""
    talk = await stage.talk()
    params = started("a", ["pwd"], cwd="file:///does/not/exist", tty=True)
    await talk.refused("process/start", params, -32603)


@SUITE
async def ids_in_use(stage: Stage) -> None:
    """An id that is in use is refused with -32600, and is another process on another connection."""
    talk = await stage.talk()
    await talk.start("a", ["sleep", "1000"])
    await talk.refused("process/start", started("a", ["true"]), -32600, "already exists")
    other = await stage.talk()
    expect("exit code", (await other.run("a", ["true"]))[0], 0)
    await other.refused("process/read", {"processId": "b"}, -32600, "unknown process id b")


@SUITE
async def reading(stage: Stage) -> None:
    """`process/read` gives what is behind a number, up to a size, and the end."""
    talk = await stage.talk()
    await talk.start("a", ["sh", "-c", "echo one; read x; echo two; read x; exit 3"], pipeStdin=True)
    for number, said in enumerate((b"one\n", b"two\n")):
        await talk.until_output("a", said)
        await write(talk, "a", b"\n", f"{number}")
    await talk.until_told("process/closed", "a")
    read = await talk.call("process/read", {"processId": "a"})
    expect("state", [read.get(name) for name in ("exited", "exitCode", "closed")], [True, 3, True])
    expect("chunks", [chunk["chunk"] for chunk in read["chunks"]], [b64(b"one\n"), b64(b"two\n")])
    first = await talk.call("process/read", {"processId": "a", "maxBytes": 1})
    expect("chunks within one byte", [chunk["seq"] for chunk in first["chunks"]], [1])
    rest = await talk.call("process/read", {"processId": "a", "afterSeq": 1})
    expect("chunks behind the first", [chunk["seq"] for chunk in rest["chunks"]], [2])


@SUITE
async def long_poll(stage: Stage) -> None:
    """`process/read` waits for news, and no longer than it is told to."""
    talk = await stage.talk()
    await talk.start("a", ["cat"], pipeStdin=True)
    empty = await talk.call("process/read", {"processId": "a", "waitMs": 100})
    expect("chunks", empty["chunks"], [])
    asked = await talk.post("process/read", {"processId": "a", "waitMs": 1_000_000})
    await write(talk, "a", b"news\n")
    answer = await talk.answer(asked)
    expect("chunks", [chunk["chunk"] for chunk in answer["result"]["chunks"]], [b64(b"news\n")])


@SUITE
async def interrupts(stage: Stage) -> None:
    """`process/signal` interrupts the group of a process, and says nothing of those that are gone."""
    talk = await stage.talk()
    await talk.start("a", ["sh", "-c", "trap 'exit 5' INT; echo ready; while :; do sleep .1; done"])
    await talk.until_output("a", b"ready")
    await talk.call("process/signal", {"processId": "a", "signal": "interrupt"})
    expect("exit code", (await talk.until_told("process/exited", "a"))["exitCode"], 5)
    await talk.call("process/signal", {"processId": "a", "signal": "interrupt"})


@SUITE
async def terminations(stage: Stage) -> None:
    """`process/terminate` kills a group at once, and tells whether its leader ran."""
    talk = await stage.talk()
    await talk.start("a", ["sh", "-c", "trap '' TERM INT; echo ready; sleep 1000; true"])
    await talk.until_output("a", b"ready")
    expect("running", (await talk.call("process/terminate", {"processId": "a"}))["running"], True)
    expect("exit code", (await talk.until_told("process/exited", "a"))["exitCode"], 137)
    await talk.until_told("process/closed", "a")
    for id in ("a", "nobody"):
        expect(f"running of {id}", (await talk.call("process/terminate", {"processId": id}))["running"], False)


@SUITE
async def background(stage: Stage) -> None:
    """The exit is told at once while a child holds the output, and the close when that has ended."""
    talk = await stage.talk()
    script = "f=$(mktemp -u); mkfifo $f; echo $f; (read x <$f; rm $f; echo late) & exit 3"
    await talk.start("a", ["sh", "-c", script])
    expect("exit code", (await talk.until_told("process/exited", "a"))["exitCode"], 3)
    await talk.until_output("a", b"\n")
    expect("closes", talk.told("process/closed", "a"), [])
    await talk.run("b", ["sh", "-c", f"echo >{talk.output('a').strip().decode()}"])
    await talk.until_told("process/closed", "a")
    expect("last output", talk.output("a").endswith(b"late\n"), True)


@SUITE
async def rest(stage: Stage) -> None:
    """A termination reaches what is left of a process whose leader has ended."""
    talk = await stage.talk()
    await talk.start("a", ["sh", "-c", "sleep 1000 & exit 3"])
    await talk.until_told("process/exited", "a")
    expect("running", (await talk.call("process/terminate", {"processId": "a"}))["running"], False)
    await talk.until_told("process/closed", "a")


@SUITE
async def escapes(stage: Stage) -> None:
    """A termination reaches what has gone into a session of its own."""
    talk = await stage.talk()
    script = "setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' & wait"
    await talk.start("a", ["sh", "-c", script])
    await talk.until_output("a", b"\n")
    pid = talk.output("a").strip().decode()
    await talk.call("process/terminate", {"processId": "a"})
    await talk.until_told("process/closed", "a")
    for attempt in range(20):
        code, _ = await talk.run(f"look{attempt}", ["sh", "-c", f"kill -0 {pid} 2>/dev/null"])
        if code:
            return
        await trio.sleep(0.1)
    await talk.run("tidy", ["kill", "-KILL", pid])
    raise DiffersError("it lived on, two seconds after the close")


@SUITE
async def many(stage: Stage) -> None:
    """Fifty processes at once are kept apart."""
    talk = await stage.talk()
    for number in range(50):
        await talk.post("process/start", started(f"p{number}", ["sh", "-c", f"echo {number}; exit {number}"], env=ENV))
    for number in range(50):
        exited = await talk.until_told("process/exited", f"p{number}")
        await talk.until_told("process/closed", f"p{number}")
        expect(f"end of p{number}", (exited["exitCode"], talk.output(f"p{number}")), (number, b"%d\n" % number))
