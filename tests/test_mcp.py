"""`execsrv mcp`, spoken with by the official SDK's own client, in both eras of the protocol."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

pytest.importorskip("mcp", reason="needs execsrv[mcp]")

import httpx2
import jsonschema
import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

import execsrv
from execsrv._cli.job import RunOptions
from execsrv._cli.mcp import rights_of
from execsrv.agents.approval import Approval
from execsrv.agents.functions import FUNCTIONS
from execsrv.errors import ForbiddenError
from tests.confined import needs_confinement
from tests.conftest import Daemon, end
from tests.peers import PATIENCE
from tests.processes import new_mark, until_gone, until_marked

Era = Literal["auto", "legacy"]
LONG = 50_000


@pytest.fixture(params=["auto", pytest.param("legacy", marks=pytest.mark.slow)])
def era(request: pytest.FixtureRequest) -> Era:
    """The protocol without a handshake, and the one before."""
    return request.param  # type: ignore[no-any-return]


def command(*words: str) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", "execsrv", "mcp", *words], env=dict(os.environ))


@asynccontextmanager
async def served(era: Era, *words: str, **options: Any) -> AsyncIterator[Client]:
    with trio.fail_after(2 * PATIENCE):
        async with Client(command(*words), mode=era, **options) as client:
            yield client


async def told(client: Client, name: str, **arguments: Any) -> str:
    """What the model is told of a call that is done."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text


async def refused(client: Client, name: str, **arguments: Any) -> str:
    """What the model is told of a call that is not done."""
    result = await client.call_tool(name, arguments)
    assert result.is_error, result
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text


@pytest.mark.few
@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_commands_go_on_between_calls(era: Era, tmp_path: Path) -> None:
    async with served(era, "--cwd", str(tmp_path)) as client:
        assert client.server_capabilities.tools is not None
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == list(FUNCTIONS)
        for tool in tools:
            jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert f"\n{tmp_path}\n" in await told(client, "exec_command", cmd="pwd", yield_time_ms=LONG)
        said = await told(client, "exec_command", cmd="read x; echo you said $x", tty=True, yield_time_ms=0)
        assert "Process running with session ID 2" in said
        said = await told(client, "write_stdin", session_id=2, chars="hm\n", yield_time_ms=LONG)
        assert said.endswith("Process exited with code 0\nOutput:\nhm\nyou said hm\n")
        assert "session ID" not in await told(client, "kill_session", session_id=2)
        assert "you said" in await told(client, "list_sessions")
        assert "there is no session ID 9" in await refused(client, "write_stdin", session_id=9)
        assert "Expected `int`" in await refused(client, "write_stdin", session_id="2")
        assert "there is no function 'other'" in await refused(client, "other")


async def test_progress_is_told(era: Era) -> None:
    heard: list[tuple[float, str | None]] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))

    async with served(era) as client:
        await client.call_tool("exec_command", {"cmd": "sleep 1000", "yield_time_ms": 4000}, progress_callback=progress)
        assert heard
        assert all(message == f"waiting for {seconds:.0f} s" for seconds, message in heard)


@pytest.mark.few
async def test_a_cancelled_call_ends_its_command_and_the_end_of_the_client_all_others(era: Era) -> None:
    marks = new_mark(), new_mark()
    async with served(era) as client:
        await told(client, "exec_command", cmd=f"exec -a {marks[0]} sleep 1000", yield_time_ms=0)
        async with trio.open_nursery() as nursery:
            script = f"setsid bash -c 'exec -a {marks[1]} sleep 1000' & sleep 1000"
            nursery.start_soon(client.call_tool, "exec_command", {"cmd": script, "yield_time_ms": LONG})
            await until_marked(marks[1], 1)
            nursery.cancel_scope.cancel()
        await until_gone(marks[1])
        await until_marked(marks[0], 1)
    await until_gone(marks[0])


@pytest.mark.slow
async def test_sessions_are_resources(era: Era, tmp_path: Path) -> None:
    pytest.importorskip("pyte", reason="needs execsrv[screen]")
    casts = tmp_path / "casts"
    async with served(era, "--recordings", str(casts), cache=None) as client:
        async with served(era, "--recordings", str(casts)) as other:  # which has a session 1 as well
            await told(other, "exec_command", cmd="echo other", yield_time_ms=LONG)
        async with served(era, "--recordings", str(casts)) as idle:
            await told(idle, "list_sessions")
        await told(client, "exec_command", cmd="echo once", yield_time_ms=LONG)
        await told(client, "exec_command", cmd="printf 'x\\rscreen'; read x", tty=True, yield_time_ms=0)
        while "screen" not in await told(client, "read_output", session_id=2):
            await told(client, "write_stdin", session_id=2, until="screen", yield_time_ms=100)
        uris = [resource.uri for resource in (await client.list_resources()).resources]
        kinds = [(1, "output"), (1, "recording"), (2, "output"), (2, "screen"), (2, "recording")]
        assert uris == [f"execsrv://session/{number}/{kind}" for number, kind in kinds]

        async def read(uri: str) -> str:
            (content,) = (await client.read_resource(uri)).contents
            assert isinstance(content, types.TextResourceContents)
            return content.text

        assert await read("execsrv://session/1/output") == "once\n"
        assert await read("execsrv://session/2/screen") == "screen"
        head, *events = map(json.loads, (await read("execsrv://session/1/recording")).splitlines())
        assert head["version"] == 3
        assert [event[1] for event in events] == ["o", "x"]
        many = f"execsrv://session/{'9' * 5000}/output"
        for cast in casts.glob("*/session-2.cast"):
            cast.parent.rename(tmp_path / "moved")
        said = await refused(client, "exec_command", cmd="echo lost", yield_time_ms=LONG)
        assert "No such file or directory" in said
        (tmp_path / "moved").rename(cast.parent)
        for wrong in ("execsrv://session/7/output", "execsrv://session/1/screen", "execsrv://session/1/other", many):
            with pytest.raises(MCPError) as error:
                await read(wrong)
            assert error.value.error.code == types.INVALID_PARAMS
    kept = sorted("other" in cast.read_text() for cast in casts.glob("*/session-1.cast"))
    assert (kept, len(list(casts.iterdir()))) == ([False, True], 2)


def test_a_line_that_cannot_be_read_is_answered() -> None:
    def asking(arguments: str) -> str:
        return f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"x","arguments":{arguments}}}}}'

    unreadable = [r'{"cmd":"echo \ud83d"}', "1" + 5000 * "0", 3000 * "[" + 3000 * "]"]
    lines = [*map(asking, unreadable), asking("{}").replace('"x"', "5,5"), '{"jsonrpc":"2.0","method":5}', "hello"]
    argv = [sys.executable, "-m", "execsrv", "mcp"]
    done = subprocess.run(argv, input="\n".join(lines), capture_output=True, text=True, timeout=PATIENCE)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(answer["id"], answer["error"]["code"]) for answer in answers] == [
        *[(7, types.PARSE_ERROR)] * 3,
        (None, types.PARSE_ERROR),
        (None, types.INVALID_REQUEST),
        (None, types.PARSE_ERROR),
    ]
    assert "half of a surrogate pair" in answers[0]["error"]["message"]
    assert done.returncode == 0


# -- the operator's approval --


@pytest.mark.few
async def test_the_user_is_asked(era: Era) -> None:
    questions: list[str] = []

    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        questions.append(params.message)
        return types.ElicitResult(action="accept" if "good" in params.message else "decline", content={})

    async with served(era, "--ask", elicitation_callback=answer) as client:
        said = await told(client, "exec_command", cmd="echo good; read x; echo $x", tty=True, yield_time_ms=0)
        assert "session ID 1" in said
        assert await refused(client, "exec_command", cmd="echo bad\u202e") == "refused: the user does not want it"
        assert "the user does not want it" in await refused(client, "write_stdin", session_id=1, chars="bad\n")
        await told(client, "write_stdin", session_id=1, yield_time_ms=0)  # only looks
        assert "good\n" in await told(client, "write_stdin", session_id=1, chars="good\n", yield_time_ms=LONG)
        assert "too long to be shown" in await refused(client, "exec_command", cmd="echo " + "good" * 1000)
    assert questions == [
        'Run "echo good; read x; echo $x" with {"tty": true}?',
        'Run "echo bad\\u202e"?',
        'Type "bad\\n" with {"session_id": 1}?',
        f'Type "good\\n" with {{"session_id": 1, "yield_time_ms": {LONG}}}?',
    ]


async def test_who_cannot_ask_is_refused(era: Era) -> None:
    async with served(era, "--ask") as client:
        said = await refused(client, "exec_command", cmd="true")
        assert said == "refused: the user is to be asked, which this client cannot do"


async def test_only_some_programs_run(era: Era) -> None:
    async with served(era, "--only", "echo", "--only", "true") as client:
        assert "Output:\nhello\n" in await told(client, "exec_command", cmd=["echo", "hello"], yield_time_ms=LONG)
        assert "cmd must be a list of words here" in await refused(client, "exec_command", cmd="echo hello; id")
        for words in (["id"], [], ["/usr/bin/env", "true"]):
            assert "only these programs may be run: echo, true" in await refused(client, "exec_command", cmd=words)
        assert "env may not be set" in await refused(client, "exec_command", cmd=["true"], env={"PATH": "/tmp"})


@needs_confinement
async def test_commands_are_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    earlier = tmp_path / "casts" / "earlier"
    earlier.mkdir(parents=True)
    (earlier / "session-1.cast").write_text("of a run before")
    words = ["--cwd", str(tmp_path), "--sandbox", "workspace-write", "--no-network", "--hide", "~/secret"]
    async with served("auto", *words, "--limit-open-files", "33", "--recordings", str(tmp_path / "casts")) as client:
        assert "Output:\n33\n" in await told(client, "exec_command", cmd="ulimit -n", yield_time_ms=LONG)
        assert "fine" in await told(client, "exec_command", cmd="echo fine > file; cat file", yield_time_ms=LONG)
        mark = new_mark()
        script = f"touch /var/tmp/{mark}"
        assert "Read-only" in await told(client, "exec_command", cmd=script, workdir="/var/tmp", yield_time_ms=LONG)
        for kept in ("secret", "casts/earlier/session-1.cast"):
            assert "Permission denied" in await told(client, "exec_command", cmd=f"cat {kept}", yield_time_ms=LONG)
        script = "import socket; socket.socket()"
        said = await told(client, "exec_command", cmd=[sys.executable, "-c", script], yield_time_ms=LONG)
        assert "PermissionError" in said
        wrong = {"TMPDIR": "/var/tmp"}
        assert "TMPDIR may not be set" in await refused(client, "exec_command", cmd="true", env=wrong)
        assert not os.path.lexists(f"/var/tmp/{mark}")  # noqa: ASYNC240


async def test_rights_are_understood_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with execsrv.connect_in_process() as client:
        rights = rights_of(client, RunOptions((), cwd="~", sandbox="workspace-write:~/src", limit_open_files=33))
        assert rights["cwd"] == str(tmp_path)
        assert rights["sandbox"] == execsrv.Policy.workspace_write(tmp_path / "src", network=True)
        assert rights["limits"] == execsrv.ProcessLimits(open_files=33)
        for wrong, complaint in (
            ({"sandbox": "strict"}, "invalid --sandbox `strict`; expected `read-only` or `workspace-write[:DIR]`"),
            ({"sandbox": "workspace-write", "cwd": "/"}, "is about the directory, which is `/`"),
            ({"hide": ["~other/x"]}, "only `~` is known"),
            ({"limit_open_files": 0}, "invalid limit"),
        ):
            with pytest.raises(execsrv.ExecsrvError, match=re.escape(complaint)):
                rights_of(client, RunOptions((), **wrong))


def test_a_question_shows_everything_that_is_done() -> None:
    approval = Approval(ask=True)
    assert approval.question("read_output", {"session_id": 1}) is None
    assert approval.question("kill_session", {"session_id": 1}) is None
    asked = approval.question("exec_command", {"cmd": ["a", "b c"], "env": {"LD_PRELOAD": "x"}, "workdir": "/"})
    assert asked == 'Run ["a", "b c"] with {"env": {"LD_PRELOAD": "x"}, "workdir": "/"}?'
    with pytest.raises(ForbiddenError):
        approval.question("exec_command", {"cmd": "true", "env": {"A": "x" * 5000}})


# -- its end --


@pytest.mark.few
@pytest.mark.parametrize("ending", ["SIGTERM", "SIGINT", "hangs up", "closes stdout"])
def test_it_ends_though_its_host_holds_the_pipes_and_reads_nothing(ending: str) -> None:
    def ask(method: str, **params: Any) -> None:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        os.write(pipe, json.dumps(request).encode() + b"\n")

    argv = [sys.executable, "-m", "execsrv", "mcp"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=4096) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        pipe = server.stdin.fileno()
        try:
            info = {"name": "host", "version": "1"}
            ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=info)
            assert b"serverInfo" in server.stdout.readline()
            ask("tools/call", name="exec_command", arguments={"cmd": "printf %020000d 1", "yield_time_ms": LONG})
            # An answer that has begun, and has no room in the pipe.
            assert select.select([server.stdout], [], [], PATIENCE)[0]
            if ending == "hangs up":
                server.stdin.close()
            elif ending == "closes stdout":
                server.stdout.close()
            else:
                server.send_signal(signal.Signals[ending])
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()


@pytest.mark.few
async def test_it_ends_with_the_reason_when_its_server_is_lost(daemon: Daemon) -> None:
    argv = [sys.executable, "-m", "execsrv", "mcp", "--url", await daemon.url()]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(argv, **pipes, text=True) as server:  # noqa: ASYNC220  # nothing else goes on
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            info = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
            start = {"name": "exec_command", "arguments": {"cmd": "exec sleep 1000", "yield_time_ms": 0}}
            look = {"name": "write_stdin", "arguments": {"session_id": 1, "yield_time_ms": LONG}}
            listing = {"name": "list_sessions", "arguments": {}}
            for number, params in enumerate((info, start, look, listing)):
                method = "tools/call" if number else "initialize"
                request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                print(json.dumps(request), file=server.stdin, flush=True)
                if params is not look:
                    assert json.loads(server.stdout.readline())["id"] == number
            os.kill(daemon.pid, signal.SIGKILL)
            answer = json.loads(server.stdout.readline())
            assert (answer["id"], answer["result"]["isError"]) == (2, True)
            assert server.wait(PATIENCE) == 125
            said = server.stderr.read()
            assert said.startswith("execsrv: ")
            assert said.count("\n") == 1
            assert answer["result"]["content"][0]["text"] in said
        finally:
            server.kill()


# -- HTTP --


@asynccontextmanager
async def listening(tmp_path: Path, *words: str) -> AsyncIterator[str]:
    """A server on HTTP whose token is "secret"; its URL."""
    (tmp_path / "token").write_text("secret\n")
    argv = [sys.executable, "-m", "execsrv", "mcp", "--listen", "http://127.0.0.1:0", *words]
    argv += ["--http-token-file", str(tmp_path / "token")]
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
            await trio.run_process(
                argv, stderr=subprocess.PIPE, check=False, deliver_cancel=end, task_status=task_status
            )

        process: trio.Process = await nursery.start(run)
        assert process.stderr is not None
        said = b""
        with trio.fail_after(PATIENCE):
            while not said.endswith(b"/mcp\n"):
                said += (piece := await process.stderr.receive_some())
                assert piece, said
        yield said.split()[-1].decode()
        nursery.cancel_scope.cancel()


async def test_silent_peers_without_the_token_lock_nobody_out(tmp_path: Path) -> None:
    settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
    async with listening(tmp_path) as url, AsyncExitStack() as crowd:
        silent = []
        for _ in range(80):
            silent.append(peer := await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[2].split("/")[0])))
            crowd.push_async_callback(peer.aclose)
            await peer.send_all(settings)
        with trio.fail_after(PATIENCE):
            for peer in silent[:16]:
                with suppress(trio.BrokenResourceError):
                    while await peer.receive_some():
                        pass
        headers = {"Authorization": "Bearer secret", "Accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient(headers=headers) as http:
            info = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
            request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}
            assert (await http.post(url, json=request)).status_code == 200


@pytest.mark.few
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of generators that the SDK's client leaves to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_http_is_for_those_who_have_the_token(era: Era, tmp_path: Path) -> None:
    mark = new_mark()
    async with listening(tmp_path) as url:
        async with httpx2.AsyncClient(headers={"Authorization": "Bearer secret"}) as http:
            with trio.fail_after(PATIENCE):
                async with Client(streamable_http_client(url, http_client=http), mode=era) as client:
                    script = f"echo hello; exec -a {mark} sleep 1000"
                    said = await told(client, "exec_command", cmd=["bash", "-c", script], yield_time_ms=1000)
                    assert "session ID 1" in said
                    await until_marked(mark, 1)
        async with httpx2.AsyncClient() as http:
            for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic secret"}):
                answer = await http.post(url, json={}, headers=headers)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert answer.headers["connection"] == "close"  # it was not heard out
            for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
                answer = await http.post(url, json={}, headers={"Authorization": "Bearer secret", **headers})
                assert answer.status_code in (403, 421)
    await until_gone(mark)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--listen", "http://127.0.0.1:0"], "--listen and --http-token-file need each other"),
        (["--listen", "http://0.0.0.0:0", "--http-token-file", "token"], "expected `http://127.0.0.1:PORT/PATH`"),
        *(
            (["--listen", f"http://{wrong}", "--http-token-file", "token"], "expected `http://127.0.0.1:PORT/PATH`")
            for wrong in ("127.0.0.1:99999/", "[::1:0/mcp", "u@127.0.0.1:0", "127.0.0.1:0/{x}", "127.0.0.1:0/#x")
        ),
        (["--listen", "http://127.0.0.1:0", "--http-token-file", "empty"], "there is no token in `empty`"),
        (["--listen", "http://127.0.0.1:0", "--http-token-file", "/dev/zero"], "it is no file"),
        (["--listen", "http://127.0.0.1:0", "--http-token-file", "shared"], "others may write to it"),
        (
            ["--listen", "http://127.0.0.1:0", "--http-token-file", "none"],
            "cannot read the token file `none`: No such file",
        ),
        (["--url", "unix:///nowhere/at/all"], "No such file or directory"),
        (["--sandbox", "workspace-write:/tmp", "--hide", "none"], "this policy cannot be kept"),
        (["--cwd", "nowhere"], "No such file or directory"),
    ],
)
def test_what_cannot_be_served_is_said(words: list[str], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "shared").write_text("secret")
    (tmp_path / "shared").chmod(0o666)
    argv = [sys.executable, "-m", "execsrv", "mcp", *words]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    assert done.returncode != 0
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
