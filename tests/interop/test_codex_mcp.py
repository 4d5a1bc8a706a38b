"""The Codex CLI as a client of `execsrv mcp`: its model runs commands through the tools of agents.

The CLI of a scene has no environment of its own, so it starts the tool server on the exec-server.
"""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.interop.codex import MARK, Scene
from tests.interop.model import function

pytest.importorskip("mcp", reason="needs execsrv[mcp]")

NAMESPACE = "mcp__execsrv"


def configure(scene: Scene, *words: str) -> None:
    env = {MARK: scene.mark, "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PATH": os.environ["PATH"]}
    scene.configure(
        f"""
[mcp_servers.execsrv]
command = {json.dumps(sys.executable)}
args = {json.dumps(["-m", "execsrv", "mcp", *words])}
cwd = {json.dumps(str(scene.work))}
environment_id = "remote"
required = true
startup_timeout_sec = 60
env = {{ {", ".join(f"{name} = {json.dumps(value)}" for name, value in env.items())} }}
"""
    )


async def test_a_command_goes_on_between_calls_of_its_model(scene: Scene) -> None:
    configure(scene)
    async with scene.codex() as model:
        script = "read x; echo you said $x; exit 3"
        [told] = await model.call(
            function("exec_command", namespace=NAMESPACE, cmd=script, tty=True, yield_time_ms=100)
        )
        assert "Process running with session ID 1" in json.dumps(told)
        typed = {"session_id": 1, "chars": "hello\n", "yield_time_ms": 20_000}
        [told] = await model.call(function("write_stdin", namespace=NAMESPACE, **typed))
        assert "Process exited with code 3" in json.dumps(told)
        assert "you said hello" in json.dumps(told)
        [told] = await model.call(function("exec_command", namespace=NAMESPACE, cmd="pwd", yield_time_ms=20_000))
        assert str(scene.work) in json.dumps(told)
    [started] = scene.record.asked("process/start")  # of the tool server; its commands are its own
    assert started["argv"][1:] == ["-m", "execsrv", "mcp"]


async def test_what_the_policy_refuses_is_told_to_its_model(scene: Scene) -> None:
    configure(scene, "--only", "echo")
    async with scene.codex() as model:
        [told] = await model.call(function("exec_command", namespace=NAMESPACE, cmd=["id"]))
        assert "only these programs may be run: echo" in json.dumps(told)
