"""What SWE-ReX's own tests of a runtime ask of their conftest.py: here with the runtime of execsrv."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from swerex.runtime.abstract import BashAction, CloseBashSessionRequest, Command, CreateBashSessionRequest

import execsrv.asyncio
from execsrv.agents.adapters.swe_rex import ExecsrvRuntime


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def remote_runtime() -> AsyncIterator[ExecsrvRuntime]:
    async with execsrv.asyncio.launch() as client:
        runtime = ExecsrvRuntime(client)
        yield runtime
        await runtime.close()


@pytest.fixture
async def runtime_with_default_session(remote_runtime: ExecsrvRuntime) -> AsyncIterator[ExecsrvRuntime]:
    await remote_runtime.create_session(CreateBashSessionRequest(startup_timeout=60))
    yield remote_runtime
    await remote_runtime.close_session(CloseBashSessionRequest())


class _Action(BashAction):
    timeout: float | None = 5


class _Command(Command):
    timeout: float | None = 5
