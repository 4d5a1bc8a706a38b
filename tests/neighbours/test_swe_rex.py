"""The runtime of SWE-ReX: beside its LocalRuntime, case by case, and what that one cannot.

SWE-ReX's own tests, which its wheel lacks, are run by `nox -s neighbours`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("swerex", reason="needs swe-rex")

import pexpect
from swerex import exceptions as errors
from swerex.deployment.hooks.abstract import DeploymentHook
from swerex.runtime import abstract as rex
from swerex.runtime.local import LocalRuntime

import execsrv
import execsrv.asyncio
from execsrv.agents.adapters.swe_rex import ExecsrvRuntime
from execsrv.agents.adapters.swe_rex_deployment import ExecsrvDeployment
from tests.peers import PATIENCE
from tests.processes import marked, new_mark

pytestmark = pytest.mark.anyio

SESSION = rex.CreateBashSessionRequest(startup_timeout=PATIENCE)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of both runtimes, where nobody has set up a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
async def runtime(home: Path) -> AsyncIterator[ExecsrvRuntime]:
    async with execsrv.asyncio.launch() as client:
        runtime = ExecsrvRuntime(client)
        await runtime.create_session(SESSION)
        yield runtime
        await runtime.close()


async def said(runtime: Any, command: str, **options: Any) -> Any:
    options = {"timeout": PATIENCE, "check": "silent"} | options
    return await runtime.run_in_session(rex.BashAction(command=command, **options))


IN_SESSION: list[tuple[str, dict[str, Any]]] = [
    ("echo hello", {}),
    ("false", {}),
    ("(exit 42)", {}),
    ("no_such_program", {}),
    ("", {}),
    ("# a comment", {}),
    ("echo one\n\necho two", {}),
    ("for i in 1 2; do\n echo $i\ndone; false", {}),
    ("cat <<'END'\n$HOME 'quoted' \\n !!\nEND", {}),
    ("cd /tmp; x=kept", {}),
    ("pwd; echo $x", {}),
    ("alias hi='echo aliased'", {}),
    ("hi", {}),
    ("echo äöü '\"' \\\\", {}),
    ("printf '\\033[31mred\\033[0m\\r\\n'", {}),
    ("echo out; echo err >&2", {}),
    ("echo one; echo two", {"expect": ["on[e]"]}),
    ("echo ignored; false", {"check": "ignore"}),
    ("read -p 'name: ' x", {"is_interactive_command": True, "expect": ["name: "]}),
    ("typed", {"is_interactive_quit": True}),
    ("echo $x", {}),
]


async def test_a_session_says_what_a_local_one_says(runtime: ExecsrvRuntime) -> None:
    local = LocalRuntime()
    await local.create_session(SESSION)
    for command, options in IN_SESSION:
        theirs, ours = await said(local, command, **options), await said(runtime, command, **options)
        # Theirs has empty lines of the prompt.
        assert (command, ours.output.split(), ours.exit_code) == (command, theirs.output.split(), theirs.exit_code)
        if options.get("expect"):
            assert ours.expect_string == theirs.expect_string
    await local.close()


EXECUTED = [
    rex.Command(command=["printf", "%s|", "a b", "c"]),
    rex.Command(command="echo $A; exit 3", shell=True, env={"A": "given"}),
    rex.Command(command=["sh", "-c", "kill -KILL $$"]),
    rex.Command(command=["sh", "-c", "printf '\\377'; pwd >&2"], cwd="/tmp"),
    rex.Command(command="echo out; echo err >&2", shell=True, merge_output_streams=True),
    rex.Command(command=["no-such-program"]),
    rex.Command(command=["true"], cwd="/no/such/directory"),
    rex.Command(command="exit 3", shell=True, check=True, error_msg="because"),
    rex.Command(command=["sleep", "1000"], timeout=0.1),
]


@pytest.mark.parametrize("command", EXECUTED, ids=lambda command: str(command.command))
async def test_a_command_ends_as_a_local_one(runtime: ExecsrvRuntime, command: rex.Command) -> None:
    ends = []
    for each in (runtime, LocalRuntime()):
        try:
            ends.append(await each.execute(command))
        except Exception as error:
            ends.append(type(error))
    assert ends[0] == ends[1]


async def test_files_are_read_and_written_as_local_ones(runtime: ExecsrvRuntime, tmp_path: Path) -> None:
    local, path = LocalRuntime(), tmp_path / "new" / "file"
    await runtime.write_file(rex.WriteFileRequest(path=str(path), content="ä\n"))
    assert path.read_text() == "ä\n"
    path.write_bytes(b"a\r\nb\xff\n")
    for encoding, how in (("latin-1", None), ("utf-8", "replace")):
        request = rex.ReadFileRequest(path=str(path), encoding=encoding, errors=how)
        assert await runtime.read_file(request) == await local.read_file(request)
    with pytest.raises(UnicodeDecodeError):
        await runtime.read_file(rex.ReadFileRequest(path=str(path)))
    with pytest.raises(FileNotFoundError):
        await runtime.read_file(rex.ReadFileRequest(path="no/such/file"))


async def test_an_upload_takes_files_and_trees_with_their_modes(runtime: ExecsrvRuntime, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "program").write_text("#!/bin/sh\n")
    (tree / "sub" / "program").chmod(0o750)
    await runtime.upload(rex.UploadRequest(source_path=str(tree), target_path=str(tmp_path / "a" / "copy")))
    assert (tmp_path / "a/copy/sub/program").stat().st_mode & 0o777 == 0o750
    source = str(tree / "sub" / "program")
    await runtime.upload(rex.UploadRequest(source_path=source, target_path=str(tmp_path / "a")))
    assert (tmp_path / "a/program").read_text() == "#!/bin/sh\n"


async def test_late_output_is_not_that_of_the_next_command(runtime: ExecsrvRuntime, home: Path) -> None:
    with pytest.raises(errors.CommandTimeoutError):
        await said(runtime, f"until [ -e {home}/go ]; do sleep 0.02; done; echo late; (exit 9)", timeout=0.1)
    (home / "go").touch()
    after = await said(runtime, "echo next")
    assert (after.output, after.exit_code) == ("next\n", 0)


async def test_a_cancelled_command_leaves_the_session_usable(runtime: ExecsrvRuntime) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(said(runtime, "sleep 1000", timeout=None), 0.2)
    await runtime.run_in_session(rex.BashInterruptAction(timeout=PATIENCE))
    assert (await said(runtime, "echo next")).output == "next\n"


@pytest.mark.parametrize("size", [10_000, 100_000])  # what the terminal takes, and lets no key through; and beyond
async def test_a_command_that_nobody_reads_takes_no_longer_and_does_not_stop_an_interrupt(
    runtime: ExecsrvRuntime, size: int
) -> None:
    for command in ("sleep 1000", f"echo {'x' * size}"):
        with pytest.raises(errors.CommandTimeoutError):
            await asyncio.wait_for(said(runtime, command, timeout=0.2), PATIENCE)
    interrupt = rex.BashInterruptAction(timeout=1, n_retry=10)
    await asyncio.wait_for(runtime.run_in_session(interrupt), PATIENCE)
    after = await said(runtime, "jobs; echo next")
    assert (after.output, after.exit_code) == ("next\n", 0)


async def test_what_ignores_an_interrupt_is_killed(runtime: ExecsrvRuntime) -> None:
    mark = new_mark()
    stubborn = f"""trap "" INT; echo deaf; exec -a {mark} sleep 1000"""
    with pytest.raises(errors.NoExitCodeError):
        await said(runtime, f"bash -c '{stubborn}'", expect=["deaf"], check="raise")
    done = await runtime.run_in_session(rex.BashInterruptAction(n_retry=1, timeout=2))
    assert done.exit_code == 0
    assert (await said(runtime, "wait; echo next")).output.endswith("next\n")
    assert not marked(mark)


async def test_a_command_may_be_long_and_odd_and_change_the_prompt(runtime: ExecsrvRuntime) -> None:
    assert (await said(runtime, f"echo '{'ä' * 9000}' | wc -m")).output == "9001\n"
    assert (await said(runtime, "printf %s 'a\tb\x03\x04\x7f!!'")).output == "a\tb\x03\x04\x7f!!"
    await said(runtime, "PS1='(venv) '; PROMPT_COMMAND='echo hook'; set -x")
    traced = await said(runtime, "false")
    assert (traced.output.splitlines()[-1], traced.exit_code) == ("++ false", 1)
    await said(runtime, "set +x")
    assert (await said(runtime, "env; set | grep -c ^HISTFILE=.")).output.endswith("\n0\n")


async def test_a_bash_that_has_ended_says_so(runtime: ExecsrvRuntime) -> None:
    with pytest.raises(pexpect.EOF, match="exit code 3"):
        await said(runtime, "exit 3")
    with pytest.raises(errors.SessionNotInitializedError):
        await said(runtime, "echo hello")
    await runtime.close_session(rex.CloseBashSessionRequest())
    await runtime.create_session(SESSION)
    with pytest.raises(errors.SessionExistsError):
        await runtime.create_session(SESSION)


async def test_a_session_begins_with_its_files(runtime: ExecsrvRuntime, home: Path) -> None:
    (home / "rc").write_text("echo sourced; x=from-rc; PS1='$ '\n")
    begun = await runtime.create_session(SESSION.model_copy(update={"session": "rc", "startup_source": ["~/rc"]}))
    assert begun.output.endswith("sourced\n")  # behind the prompt of this machine
    assert (await said(runtime, "echo $x", session="rc")).output == "from-rc\n"
    (home / "slow").write_text("sleep 1000\n")
    slow = rex.CreateBashSessionRequest(session="slow", startup_source=["~/slow"], startup_timeout=0.2)
    with pytest.raises(errors.CommandTimeoutError):
        await runtime.create_session(slow)
    with pytest.raises(errors.SessionDoesNotExistError):
        await said(runtime, "echo hello", session="slow")


async def test_one_of_two_that_create_a_session_at_once_is_refused(runtime: ExecsrvRuntime) -> None:
    request = rex.CreateBashSessionRequest(session="twice", startup_timeout=PATIENCE)
    creating = (runtime.create_session(request) for _ in range(2))
    results = await asyncio.gather(*creating, return_exceptions=True)
    assert [type(result) for result in results] == [rex.CreateBashSessionResponse, errors.SessionExistsError]
    assert (await said(runtime, "echo mine", session="twice")).output == "mine\n"


async def test_a_runtime_that_is_closed_leaves_nothing(home: Path) -> None:
    mark = new_mark()
    async with execsrv.asyncio.launch() as client:
        runtime = ExecsrvRuntime(client)
        await runtime.create_session(SESSION)
        await said(runtime, f"(exec -a {mark} setsid sleep 1000) >/dev/null 2>&1 & sleep 0")
        assert await runtime.is_alive(timeout=PATIENCE)
        await runtime.close()
        assert not marked(mark)
    assert not await runtime.is_alive(timeout=PATIENCE)


def test_each_call_may_come_from_a_loop_of_its_own(home: Path) -> None:
    async def opened() -> Any:
        return await execsrv.asyncio.launch()

    client = asyncio.run(opened())
    runtime = ExecsrvRuntime(client)
    asyncio.run(runtime.create_session(SESSION))
    asyncio.run(said(runtime, "x=kept"))
    assert asyncio.run(said(runtime, "echo $x")).output == "kept\n"
    asyncio.run(runtime.close())
    asyncio.run(client.close())


# -- the deployment --


class Hook(DeploymentHook):
    def __init__(self) -> None:
        self.steps: list[str] = []

    def on_custom_step(self, message: str) -> None:
        self.steps.append(message)


async def test_a_deployment_is_a_server_of_its_own(home: Path) -> None:
    deployment, hook, mark = ExecsrvDeployment(), Hook(), new_mark()
    deployment.add_hook(hook)
    with pytest.raises(errors.DeploymentNotStartedError):
        await deployment.is_alive()
    await deployment.stop()
    await deployment.start()
    try:
        assert (await deployment.is_alive(timeout=PATIENCE)).is_alive
        runtime = deployment.runtime
        await deployment.start()  # as that of containers has it: the second time does nothing
        assert deployment.runtime is runtime
        await runtime.create_session(SESSION)
        observed = await said(runtime, f"setsid bash -c 'exec -a {mark} sleep 1000' & echo hello")
        assert observed.output.endswith("hello\n")
        assert hook.steps == ["Starting a server"]
    finally:
        await deployment.stop()
    assert not marked(mark)
    with pytest.raises(errors.DeploymentNotStartedError):
        _ = deployment.runtime
    assert not (await runtime.is_alive()).is_alive


async def test_a_deployment_is_a_server_elsewhere(home: Path, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/socket"
    with pytest.raises(execsrv.ConnectionFailedError):
        await ExecsrvDeployment(url).start()
    argv = [sys.executable, "-m", "execsrv", "serve", "--listen", url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=tmp_path) as server:  # noqa: ASYNC220
        try:
            assert server.stdout is not None
            server.stdout.readline()
            deployment = ExecsrvDeployment(url)
            await deployment.start()
            assert (await deployment.runtime.execute(rex.Command(command=["pwd"]))).stdout == f"{tmp_path}\n"
            await deployment.stop()
        finally:
            server.kill()
