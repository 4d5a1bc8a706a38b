"""Fixtures: the Codex CLI, where there is one, and a scene for it with the exec-server to be tried."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.interop.codex import Scene, open_scene, processes_with

CODEX = os.environ.get("CODEX_CLI") or shutil.which("codex")
EXECSRV = f"{shlex.quote(sys.executable)} -m execsrv serve --codex --listen {{listen}}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--exec-server",
        metavar="COMMAND",
        default=EXECSRV,
        help="the exec-server to try, with {listen} for its URL; execsrv if not given. The CLI's own, to compare: "
        "'codex exec-server --concurrent-requests 8 --listen {listen}'",
    )


@pytest.fixture(scope="session")
def codex_program() -> str:
    """The CLI: `CODEX_CLI`, or `codex` on the PATH."""
    if CODEX is None:
        pytest.skip("no Codex CLI: set CODEX_CLI, or have `codex` on the PATH (`npm install @openai/codex`)")
    return CODEX


@pytest.fixture
def mark() -> Iterator[str]:
    """What the processes of a scene are known by. None of them may be left, even by a test that was broken off."""
    mark = str(uuid.uuid4())
    yield mark
    left = processes_with(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"processes were left: {left}"


@pytest.fixture
async def empty_scene(
    tmp_path: Path, codex_program: str, mark: str, request: pytest.FixtureRequest
) -> AsyncIterator[Scene]:
    """A scene in which no server runs yet."""
    async with open_scene(tmp_path, codex_program, request.config.getoption("--exec-server"), mark) as scene:
        yield scene


@pytest.fixture
async def scene(empty_scene: Scene) -> Scene:
    """A scene whose server listens on a websocket behind the relay."""
    await empty_scene.start_server()
    return empty_scene
