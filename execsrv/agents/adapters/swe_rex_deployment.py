"""A deployment of SWE-ReX: a server of its own on this machine, or one elsewhere, and the runtime on it."""

from __future__ import annotations

import logging
from typing import Any

from swerex.deployment.abstract import AbstractDeployment
from swerex.deployment.hooks.abstract import CombinedDeploymentHook, DeploymentHook
from swerex.exceptions import DeploymentNotStartedError
from swerex.runtime.abstract import IsAliveResponse
from swerex.utils.log import get_logger

import execsrv.asyncio
from execsrv.agents.adapters.swe_rex import ExecsrvRuntime


class ExecsrvDeployment(AbstractDeployment):
    """Starts a server with `start`, or connects to that of a `url`; `stop` ends all that was started on it.

    Other keywords are those of `execsrv.asyncio.connect`, or without a `url` of `execsrv.asyncio.launch`.
    """

    def __init__(self, url: str | None = None, *, logger: logging.Logger | None = None, **options: Any) -> None:
        self.logger = logger or get_logger("rex-deploy")
        self._url = url
        self._options = options
        self._hooks = CombinedDeploymentHook()
        self._client: execsrv.asyncio.Client | None = None
        self._runtime: ExecsrvRuntime | None = None

    def add_hook(self, hook: DeploymentHook) -> None:
        self._hooks.add_hook(hook)

    async def is_alive(self, *, timeout: float | None = None) -> IsAliveResponse:  # noqa: ASYNC109
        return await self.runtime.is_alive(timeout=timeout)

    async def start(self) -> None:
        if self._runtime is not None:
            self.logger.warning("the deployment is started already")
            return
        self._hooks.on_custom_step("Starting a server" if self._url is None else f"Connecting to {self._url}")
        if self._url is None:
            self._client = await execsrv.asyncio.launch(**self._options)
        else:
            self._client = await execsrv.asyncio.connect(self._url, **self._options)
        self._runtime = ExecsrvRuntime(self._client, logger=self.logger)

    async def stop(self) -> None:
        client, self._client, self._runtime = self._client, None, None
        if client is not None:
            await client.close()

    @property
    def runtime(self) -> ExecsrvRuntime:
        if self._runtime is None:
            raise DeploymentNotStartedError()
        return self._runtime
