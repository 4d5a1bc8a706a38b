"""What people do with the Codex CLI, done with its commands on an exec-server.

Each test says what the model is told, which is what the user gets, and what went over the wire. A command that has to
wait does so at a `Gate`, and the test waits for the wire to show how far it is.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from tests.confined import needs_confinement
from tests.interop import tools
from tests.interop.codex import MARK, Scene
from tests.interop.model import Model, custom, function

MISSING = -32004
HELD = -32010


class Gate:
    """A named pipe, which `read < gate` waits at until it is opened."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def open(self) -> None:
        os.write(self._descriptor, b"go\n")


@contextmanager
def gate_at(path: Path) -> Iterator[Gate]:
    """A closed gate; whoever still waits there when the block is left is let through."""
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield Gate(descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture
def gate(scene: Scene) -> Iterator[Gate]:
    """A gate named `gate` in the work folder."""
    with gate_at(scene.work / "gate") as gate:
        yield gate


def said(told: str) -> str:
    """The output of a command, in what the model is told of it."""
    return told.partition("Output:\n")[2]


async def start(model: Model, cmd: str, **arguments: object) -> tuple[int, str]:
    """Start a command that goes on; the number that the CLI gives it, and what it told so far."""
    told = await model.run(cmd, yield_time_ms=250, **arguments)
    number = re.search(r"session ID (\d+)", told)
    assert number is not None, told
    return int(number[1]), told


async def type_in(model: Model, number: int, chars: str) -> str:
    """Type into a command; what the model is told then."""
    [told] = await model.call(function("write_stdin", session_id=number, chars=chars, yield_time_ms=250))
    return str(told)


async def wait_for_end(model: Model, number: int) -> str:
    """Wait, as the model, until a command has ended; what it is told then."""
    [told] = await model.call(function("write_stdin", session_id=number, chars="", yield_time_ms=20_000))
    return str(told)


async def until_ended(pid: int) -> None:
    """Wait until a process has ended. The process table has to be asked again and again."""
    with trio.fail_after(20):
        while _lives(pid):  # noqa: ASYNC110
            await trio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# -- commands --


async def test_exit_status_and_both_streams(scene: Scene) -> None:
    async with scene.codex() as model:
        told = await model.run("echo out; echo err >&2; exit 7")
    assert "exited with code 7" in told
    assert sorted(said(told).split()) == ["err", "out"]
    [id] = await scene.record.until_started()
    scene.record.check_whole(id)
    assert scene.record.output(id, "stdout") == b"out\n"
    assert scene.record.output(id, "stderr") == b"err\n"
    [exited] = scene.record.notified("process/exited")
    assert (exited["exitCode"], exited["sandboxDenied"]) == (7, False)


async def test_commands_run_at_the_server_only(empty_scene: Scene) -> None:
    scene = empty_scene
    pid = await scene.start_server()
    async with scene.codex() as model:
        told = await model.run('echo "$ONLY_THERE.$ONLY_HERE.$PPID.$CODEX_CI.$TERM.$PWD"')
    assert said(told).strip() == f"yes..{pid}.1.dumb.{scene.work}"


async def test_a_missing_directory_is_told_and_the_next_command_runs(scene: Scene) -> None:
    async with scene.codex() as model:
        failed = await model.run("echo wrong", workdir="missing")
        told = await model.run("echo right")
    assert "No such file or directory" in failed
    assert said(told) == "right\n"
    refused, started = scene.record.answers("process/start")
    assert refused["error"]["code"] == -32603
    assert "result" in started


async def test_death_by_signal(scene: Scene) -> None:
    async with scene.codex() as model:
        told = await model.run("kill -KILL $$")
    assert "exited with code 137" in told


async def test_large_output(scene: Scene) -> None:
    async with scene.codex() as model:
        told = await model.run("seq 1 60000", max_output_tokens=1000)
    assert "exited with code 0" in told
    assert said(told).rstrip().endswith("\n60000")
    [id] = await scene.record.until_started()
    scene.record.check_whole(id)
    assert scene.record.output(id) == "".join(f"{number}\n" for number in range(1, 60001)).encode()


async def test_parallel_commands(scene: Scene) -> None:
    os.mkfifo(scene.work / "there")
    os.mkfifo(scene.work / "back")
    one = "echo from-one > there; read line < back; echo one got $line"
    two = "read line < there; echo from-two > back; echo two got $line"
    async with scene.codex() as model:
        told = await model.call(
            function("exec_command", cmd=one, yield_time_ms=20_000),
            function("exec_command", cmd=two, yield_time_ms=20_000),
        )
    assert [said(text) for text in told] == ["one got from-two\n", "two got from-one\n"]
    ids = await scene.record.until_started(2)
    for id in ids:
        scene.record.check_whole(id)


async def test_a_command_left_running_ends_with_the_cli(scene: Scene, gate: Gate) -> None:
    async with scene.codex() as model:
        await start(model, "echo $$; read line < gate")
        [id] = await scene.record.until_started()
        await scene.record.until(lambda: scene.record.output(id).endswith(b"\n"))
        pid = int(scene.record.output(id))
        assert _lives(pid)
    await until_ended(pid)
    assert scene.record.asked("process/terminate")


# -- terminals and Ctrl-C --


async def test_two_lines_typed_at_a_terminal(scene: Scene) -> None:
    cmd = "stty size; read -p 'first? ' a; read -p 'second? ' b; echo \"got $a and $b\"; exit 3"
    async with scene.codex() as model:
        number, told = await start(model, cmd, tty=True)
        [id] = await scene.record.until_started()
        await scene.record.until_output(id, b"first? ")
        told += await type_in(model, number, "one\n")
        await scene.record.until_output(id, b"second? ")
        told += await type_in(model, number, "two\n")
        if "exited" not in told:
            told += await wait_for_end(model, number)
    assert "exited with code 3" in told
    assert "24 80" in told
    scene.record.check_whole(id)
    assert scene.record.typed(id) == b"one\ntwo\n"
    assert scene.record.output(id) == b"24 80\r\nfirst? one\r\nsecond? two\r\ngot one and two\r\n"
    assert scene.record.output(id, "pty") == scene.record.output(id)
    assert all(answer["result"] == {"status": "accepted"} for answer in scene.record.answers("process/write"))


@pytest.mark.parametrize("tty", [True, False], ids=["terminal", "pipe"])
async def test_ctrl_c(scene: Scene, tty: bool) -> None:
    # A shell may lose an interrupt between two commands; here it waits, blocked, until it is asked for.
    code = (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [2]); print('ready', flush=True);"
        "signal.sigwait([2]); print('caught'); raise SystemExit(42)"
    )
    cmd = shlex.join([sys.executable, "-c", code])
    async with scene.codex() as model:
        number, told = await start(model, cmd, tty=tty)
        [id] = await scene.record.until_started()
        await scene.record.until_output(id, b"ready")
        told += await type_in(model, number, "\x03")
        if "exited" not in told:
            told += await wait_for_end(model, number)
    assert "exited with code 42" in told
    assert b"caught" in scene.record.output(id)
    scene.record.check_whole(id)
    if tty:
        assert scene.record.typed(id) == b"\x03"
    else:
        assert scene.record.asked("process/signal") == [{"processId": id, "signal": "interrupt"}]


# -- files --


PATCH = """\
*** Begin Patch
*** Add File: new/folder/added.txt
+hello
*** Update File: changed.txt
@@
 first
-second
+SECOND
 third
*** Update File: moved.txt
*** Move to: elsewhere/moved.txt
@@
-old
+new
*** Delete File: deleted.txt
*** End Patch
"""


async def test_patch_that_adds_changes_moves_and_deletes(scene: Scene) -> None:
    (scene.work / "changed.txt").write_text("first\nsecond\nthird\n")
    (scene.work / "moved.txt").write_text("old\n")
    (scene.work / "deleted.txt").write_text("gone\n")
    async with scene.codex() as model:
        [told] = await model.call(custom("apply_patch", PATCH))
    assert "Success" in told
    files = {str(path.relative_to(scene.work)) for path in scene.work.rglob("*") if path.is_file()}
    assert files == {"new/folder/added.txt", "changed.txt", "elsewhere/moved.txt"}
    assert (scene.work / "new/folder/added.txt").read_text() == "hello\n"
    assert (scene.work / "changed.txt").read_text() == "first\nSECOND\nthird\n"
    assert (scene.work / "elsewhere/moved.txt").read_text() == "new\n"
    assert {"fs/readFile", "fs/writeFile", "fs/remove"} <= scene.record.methods()
    assert "process/start" not in scene.record.methods()


async def test_patch_that_does_not_fit_changes_nothing(scene: Scene) -> None:
    (scene.work / "changed.txt").write_text("something else\n")
    async with scene.codex() as model:
        [told] = await model.call(custom("apply_patch", PATCH))
    assert "Failed to find expected lines" in told
    assert [path.name for path in scene.work.iterdir()] == ["changed.txt"]
    assert "fs/writeFile" not in scene.record.methods()


async def test_patch_of_a_large_file(scene: Scene) -> None:
    lines = [f"line {number} of a file that is sent whole\n" for number in range(120_000)]
    (scene.work / "large.txt").write_text("".join(lines))
    patch = f"*** Begin Patch\n*** Update File: large.txt\n@@\n-{lines[60_000]}+changed\n*** End Patch\n"
    async with scene.codex() as model:
        [told] = await model.call(custom("apply_patch", patch))
    assert "Success" in told
    lines[60_000] = "changed\n"
    assert (scene.work / "large.txt").read_text() == "".join(lines)
    [written] = scene.record.asked("fs/writeFile")
    assert base64.b64decode(written["dataBase64"]) == "".join(lines).encode()


def png() -> bytes:
    """A picture of four red pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    pixels = (b"\0" + b"\xff\0\0" * 2) * 2
    head = struct.pack("!IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


async def test_picture(scene: Scene) -> None:
    path = scene.work / "red.png"
    path.write_bytes(png())
    async with scene.codex() as model:
        [told] = await model.call(function("view_image", path=str(path)))
    [image] = told
    assert image["type"] == "input_image"
    assert image["image_url"].startswith("data:image/png;base64,")
    assert {"dataBase64": base64.b64encode(png()).decode()} in [
        answer.get("result") for answer in scene.record.answers("fs/readFile")
    ]


async def test_project_documents(scene: Scene) -> None:
    (scene.work / "AGENTS.md").write_text("Always speak of marmalade.\n")
    skill = scene.work / ".agents" / "skills" / "greet" / "SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("---\nname: greet\ndescription: How to greet a walrus\n---\nBow first.\n")
    async with scene.codex() as model:
        await model.until_asked()
    prompt = json.dumps(model.requests[0]["input"])
    assert "Always speak of marmalade." in prompt
    assert "How to greet a walrus" in prompt
    read = [params["path"] for params in scene.record.asked("fs/readFile")]
    assert (scene.work / "AGENTS.md").as_uri() in read
    assert skill.as_uri() in read
    missing = [answer["error"]["code"] for answer in scene.record.answers("fs/getMetadata") if "error" in answer]
    assert missing
    assert set(missing) == {MISSING}


# -- tool servers --


async def test_tool_server_over_a_pipe(scene: Scene) -> None:
    scene.configure(
        f"""
[mcp_servers.tools]
environment_id = "remote"
command = {json.dumps(sys.executable)}
args = [{json.dumps(tools.__file__)}, "stdio"]
cwd = {json.dumps(str(scene.work))}
env = {{ {MARK} = "{scene.mark}" }}
"""
    )
    async with scene.codex() as model:
        [told] = await model.call(function("add", namespace="mcp__tools", a=19, b=23))
    assert "the sum is 42" in json.dumps(told)
    [started] = scene.record.asked("process/start")
    assert started["pipeStdin"] is True
    assert started["argv"] == [sys.executable, tools.__file__, "stdio"]
    assert b"tools/call" in scene.record.typed(started["processId"])
    assert b"the sum is 42" in scene.record.output(started["processId"], "stdout")


@asynccontextmanager
async def open_http_tools(scene: Scene) -> AsyncIterator[str]:
    """The tool server, listening; its URL."""
    argv = [sys.executable, tools.__file__, "http"]
    process = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE, env=scene.server_env())
    try:
        assert process.stdout is not None
        port = b""
        while not port.endswith(b"\n"):
            port += await process.stdout.receive_some()
        yield f"http://127.0.0.1:{int(port)}/mcp"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_tool_server_over_http(scene: Scene) -> None:
    async with open_http_tools(scene) as url:
        scene.configure(f'\n[mcp_servers.tools]\nenvironment_id = "remote"\nurl = "{url}"\n')
        async with scene.codex() as model:
            [told] = await model.call(function("add", namespace="mcp__tools", a=19, b=23))
    assert "the sum is 42" in json.dumps(told)
    requests = scene.record.asked("http/request")
    assert {request["url"] for request in requests} == {url}
    assert all(request["streamResponse"] for request in requests)
    by_id: dict[str, list[dict[str, object]]] = {}
    for delta in scene.record.notified("http/request/bodyDelta"):
        by_id.setdefault(delta["requestId"], []).append(delta)
    for deltas in by_id.values():
        assert [delta["seq"] for delta in deltas] == list(range(1, len(deltas) + 1))
        assert [delta["done"] for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    bodies = [b"".join(base64.b64decode(str(delta["deltaBase64"])) for delta in deltas) for deltas in by_id.values()]
    assert any(b"the sum is 42" in body for body in bodies)


# -- broken connections --


@pytest.mark.parametrize("tty", [True, False], ids=["terminal", "pipe"])
async def test_cut_in_the_middle_of_a_command(scene: Scene, gate: Gate, tty: bool) -> None:
    async with scene.codex() as model:
        number, told = await start(model, "echo before; read line < gate; echo after; exit 5", tty=tty)
        [id] = await scene.record.until_started()
        await scene.record.until_output(id, b"before")
        scene.relay.cut()
        await scene.record.until(lambda: scene.record.answers("process/read", connection=2))
        gate.open()
        told += await wait_for_end(model, number)
    assert "exited with code 5" in told
    assert told.count("before") == told.count("after") == 1
    [first] = scene.record.answers("initialize", connection=1)
    [resumed] = scene.record.asked("initialize", connection=2)
    assert resumed["resumeSessionId"] == first["result"]["sessionId"]
    [again] = scene.record.answers("initialize", connection=2)
    assert again["result"]["sessionId"] == first["result"]["sessionId"]
    scene.record.check_whole(id)


async def test_command_ends_while_the_connection_is_cut(scene: Scene, gate: Gate) -> None:
    async with scene.codex() as model:
        number, told = await start(model, "echo $$; read line < gate; echo after; exit 5")
        [id] = await scene.record.until_started()
        await scene.record.until(lambda: scene.record.output(id).endswith(b"\n"))
        pid = int(scene.record.output(id))
        target, scene.relay.target = scene.relay.target, None
        scene.relay.cut()
        gate.open()
        await until_ended(pid)
        scene.relay.target = target
        told += await wait_for_end(model, number)
    assert "exited with code 5" in told
    assert told.count("after") == 1
    [read] = [answer["result"] for answer in scene.record.answers("process/read", connection=2)]
    assert b"".join(base64.b64decode(chunk["chunk"]) for chunk in read["chunks"]) == b"after\n"
    assert (read["exited"], read["exitCode"], read["closed"]) == (True, 5, True)
    assert read["nextSeq"] == 5  # two outputs, exited and closed


async def test_a_line_that_is_dead_for_one_side_only(empty_scene: Scene) -> None:
    """The CLI comes back while the server still holds the line before; it must find out, and soon."""
    scene = empty_scene
    await scene.start_server(EXECSRV_PING_INTERVAL="1", EXECSRV_PING_TIMEOUT="1")
    with gate_at(scene.work / "gate") as gate:
        async with scene.codex() as model:
            number, told = await start(model, "echo before; read line < gate; echo after; exit 5")
            [id] = await scene.record.until_started()
            await scene.record.until_output(id, b"before")
            scene.relay.cut_unnoticed()
            await scene.record.until(lambda: scene.record.answers("process/read"))
            gate.open()
            told += await wait_for_end(model, number)
    assert "exited with code 5" in told
    assert told.count("before") == told.count("after") == 1
    first, *held, resumed = scene.record.answers("initialize")
    assert {answer["error"]["code"] for answer in held} == {HELD}
    assert resumed["result"]["sessionId"] == first["result"]["sessionId"]


async def test_cut_between_commands(scene: Scene) -> None:
    async with scene.codex() as model:
        first = await model.run("echo first")
        scene.relay.cut()
        second = await model.run("echo second")
    assert (said(first), said(second)) == ("first\n", "second\n")


async def test_server_started_anew(scene: Scene, gate: Gate) -> None:
    async with scene.codex() as model:
        number, told = await start(model, "echo before; read line < gate; echo after")
        [id] = await scene.record.until_started()
        await scene.record.until_output(id, b"before")
        await scene.stop_server()
        await scene.start_server()
        told += await wait_for_end(model, number)
        next_told = await model.run("echo works again")
        if "failed to resume" in next_told:
            # A server that ends in order has told how the command ended, so it is the next one that meets the loss,
            # unless the CLI has noticed by itself.
            assert "exited with code 143" in told
            next_told = await model.run("echo works again")
    assert "after" not in told
    assert "failed to resume" in told or "exited with code 143" in told
    assert said(next_told) == "works again\n"
    resumed, *_, fresh = scene.record.asked("initialize")[1:]
    assert resumed["resumeSessionId"] is not None
    assert fresh["resumeSessionId"] is None
    [refused, *_] = [answer["error"] for answer in scene.record.answers("initialize") if "error" in answer]
    assert refused["code"] == -32600


# -- other ways to the server --


def over_stdio(scene: Scene) -> tuple[Path, Path]:
    """Have the CLI start the server itself; the two files in which `tee` keeps what they say."""
    wires = scene.server_home / "client.jsonl", scene.server_home / "server.jsonl"
    command = shlex.join(scene.server_argv("stdio://"))
    script = f"tee {shlex.quote(str(wires[0]))} | {command} | tee {shlex.quote(str(wires[1]))}"
    scene.environments(
        f"""
default = "there"
include_local = false

[[environments]]
id = "there"
program = "sh"
args = ["-c", {json.dumps(script)}]
env = {{ ONLY_THERE = "yes" }}
initialize_timeout_sec = 30
"""
    )
    return wires


async def test_started_by_the_cli_over_stdio(empty_scene: Scene) -> None:
    scene = empty_scene
    wires = over_stdio(scene)
    async with scene.codex() as model:
        told = await model.run("echo out $ONLY_THERE; echo err >&2; exit 7")
    assert "exited with code 7" in told
    assert sorted(said(told).splitlines()) == ["err", "out yes"]
    await scene.until_alone()  # `tee` among others: its files are whole
    scene.load_stdio(*wires)
    [id] = await scene.record.until_started()
    scene.record.check_whole(id)
    assert scene.record.output(id, "stderr") == b"err\n"


async def test_nothing_is_left_when_the_cli_is_killed(empty_scene: Scene) -> None:
    scene = empty_scene
    over_stdio(scene)
    with gate_at(scene.work / "gate"):
        async with scene.codex() as model:
            await start(model, "trap '' HUP TERM; read line < gate")
            await start(model, "trap '' HUP TERM; read line < gate", tty=True)
            scene.kill_codex()
        await scene.until_alone()


async def test_a_server_that_is_not_there(empty_scene: Scene) -> None:
    async with empty_scene.codex() as model:
        told = await model.run("echo wrong; touch wrong")
    assert "No usable execution environment" in told
    assert list(empty_scene.work.iterdir()) == []


async def test_environments_file_with_a_url(scene: Scene) -> None:
    scene.environments(f'default = "there"\n\n[[environments]]\nid = "there"\nurl = "{scene.relay.url}"\n')
    async with scene.codex() as model:
        told = await model.run("echo $ONLY_THERE")
    assert said(told) == "yes\n"


async def test_work_folder_of_another_machine(empty_scene: Scene) -> None:
    """The server sees other files than the CLI, as in a container; only the folder's name has to be in both places."""
    scene = empty_scene
    as_root = [] if os.getuid() == 0 else ["--map-root-user"]
    apart = ["unshare", "--mount", *as_root]
    work = shlex.quote(str(scene.work))
    mount = f"mount -t tmpfs none {work} && echo Speak of quinces. > {work}/AGENTS.md"
    if (await trio.run_process([*apart, "sh", "-c", mount], check=False, capture_stderr=True)).returncode != 0:
        pytest.skip("may not make a mount namespace here")
    await scene.start_server(*apart, "sh", "-c", f'{mount} && exec "$@"', "sh")
    async with scene.codex() as model:
        [patched] = await model.call(
            custom("apply_patch", "*** Begin Patch\n*** Add File: new.txt\n+written there\n*** End Patch\n")
        )
        told = await model.run("cat new.txt && pwd")
    assert "Speak of quinces." in json.dumps(model.requests[0]["input"])
    assert "Success" in patched
    assert said(told) == f"written there\n{scene.work}\n"
    assert list(scene.work.iterdir()) == []


# -- confinement --


SANDBOX_MODES = {"danger-full-access": "work .git tmp outside peer", "workspace-write": "work tmp", "read-only": ""}
"""What a command reaches in each of the CLI's modes: files that it can make, and somebody who listens."""


@needs_confinement
@pytest.mark.parametrize("mode", SANDBOX_MODES)
@pytest.mark.parametrize("tty", [False, True], ids=["pipe", "terminal"])
async def test_sandboxed_command(scene: Scene, mode: str, tty: bool) -> None:
    """The policy comes with the start, and the server has to keep it; the CLI's own server passes this too."""
    (scene.work / ".git").mkdir()
    made = {"work": Path("made"), ".git": Path(".git/made")}
    made |= {name: Path(folder, scene.mark) for name, folder in [("tmp", "/tmp"), ("outside", "/var/tmp")]}
    scene.configure("", sandbox_mode=mode)
    with socket.create_server(("127.0.0.1", 0)) as peer, ExitStack() as later:
        tries = {name: f"echo x >{path}" for name, path in made.items()}
        tries["peer"] = f"exec 3<>/dev/tcp/127.0.0.1/{peer.getsockname()[1]}"
        for path in made.values():
            later.callback((scene.work / path).unlink, missing_ok=True)
        async with scene.codex() as model:
            cmd = "; ".join(f"({attempt}) 2>/dev/null && echo reached {name}" for name, attempt in tries.items())
            told = await model.run(f"{cmd}; exit 7", tty=tty)
        there = {name for name, path in made.items() if (scene.work / path).exists()}
    reached = SANDBOX_MODES[mode].split()
    assert re.findall(r"reached (\S+)", said(told)) == reached
    assert there == set(reached) - {"peer"}
    assert "exited with code 7" in told
    [asked], [answer] = scene.record.asked("process/start"), scene.record.answers("process/start")
    if mode == "danger-full-access":
        assert asked["sandbox"] is None
        return
    assert answer["result"]["sandboxType"] == "linuxSeccomp"
    entries = asked["sandbox"]["permissions"]["file_system"]["entries"]
    special = {entry["path"]["value"]["kind"] for entry in entries if entry["path"]["type"] == "special"}
    assert special >= {"root"}
    scene.record.check_whole(asked["processId"])


async def test_a_confined_command_is_confined_or_refused(scene: Scene) -> None:
    scene.configure("", sandbox_mode="workspace-write")
    outside = Path("/var/tmp") / f"execsrv-interop-{scene.mark}"
    try:
        async with scene.codex() as model:
            told = await model.run(f"touch {outside} && echo done")
        assert not outside.exists()
    finally:
        outside.unlink(missing_ok=True)
    assert "done" not in said(told)
    [params] = scene.record.asked("process/start")
    assert params["sandbox"]["permissions"]["type"] == "managed"
    [answer] = scene.record.answers("process/start")
    assert "error" in answer or answer["result"]["sandboxType"] != "none"


@pytest.mark.parametrize("place", ["work", ".git", "outside"])
async def test_a_patch_is_made_in_the_workspace_and_nowhere_else(scene: Scene, place: str) -> None:
    (scene.work / ".git").mkdir()
    outside = Path("/var/tmp") / f"execsrv-interop-{scene.mark}"
    target = {"work": scene.work / "new/made", ".git": scene.work / ".git/made", "outside": outside}[place]
    scene.configure("", sandbox_mode="workspace-write")
    patch = f"*** Begin Patch\n*** Add File: {target}\n+hello\n*** End Patch\n"
    try:
        async with scene.codex() as model:
            [told] = await model.call(custom("apply_patch", patch))
        assert target.exists() == ("Success" in told) == (place == "work"), told
    finally:
        outside.unlink(missing_ok=True)
    if place == "work":
        assert target.read_text() == "hello\n"
        kinds = {asked["sandbox"]["permissions"]["type"] for asked in scene.record.asked("fs/writeFile")}
        assert kinds == {"managed"}


async def test_no_patch_is_made_where_files_are_only_to_be_read(scene: Scene) -> None:
    scene.configure("", sandbox_mode="read-only")
    async with scene.codex() as model:
        [told] = await model.call(custom("apply_patch", PATCH.split("*** Update")[0] + "*** End Patch\n"))
    assert "Success" not in told
    assert list(scene.work.iterdir()) == []
    assert all("error" in answer for answer in scene.record.answers("fs/writeFile"))


# -- login shells --


async def test_login_files_are_run_once(scene: Scene) -> None:
    scene.configure("[features]\nshell_snapshot_v2 = true\n")
    profile = scene.server_home / ".bash_profile"
    profile.write_text("echo run >> ~/runs\nexport MADE='by\nlogin'\nmade() { echo \"it $1\"; }\n")
    async with scene.codex() as model:
        for number in range(3):
            told = await model.run(f'echo "$MADE"; made {number}; pwd')
            assert said(told) == f"by\nlogin\nit {number}\n{scene.work}\n"
    assert (scene.server_home / "runs").read_text() == "run\n"
    for asked in scene.record.asked("process/start"):
        assert asked["shellSnapshot"]["shell"]["name"] == "bash"
