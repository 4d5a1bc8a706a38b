"""Requests about files: each with the policy that it is to keep, where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from execsrv.client.calls import Calls
from execsrv.client.leaving import take_leave
from execsrv.client.pending import PendingCall
from execsrv.protocol.files import FileCall

if TYPE_CHECKING:
    from execsrv.client.policy import Policy
    from execsrv.protocol.sandbox import Sandbox

R = TypeVar("R", bound=Struct)


class FileCalls:
    """The requests of one client about files, all under one policy or under none."""

    def __init__(self, calls: Calls, sandbox: Sandbox | None = None) -> None:
        self._calls = calls
        self._sandbox = sandbox

    def under(self, policy: Policy) -> FileCalls:
        """Return the requests of the same client under a policy, in place of the one that they had."""
        from execsrv.client.policy import sandbox_of

        return FileCalls(self._calls, sandbox_of(policy))

    async def call(self, method: str, params: Struct, result: type[R]) -> R:
        """Ask and wait for the answer. Raises as `Calls.call` does."""
        return await self.answer_to(await self.post(method, params), result)

    async def post(self, method: str, params: Struct) -> PendingCall:
        """Ask without waiting for the answer. Raises as `Calls.post` does."""
        if self._sandbox is not None and isinstance(params, FileCall):
            params = replace(params, sandbox=self._sandbox)
        return await self._calls.post(method, params)

    async def take_leave(self, method: str, params: Struct, patience: float) -> None:
        """Tell the server what is not needed any more, as `leaving.take_leave` does."""
        await take_leave(self._calls, method, params, patience)

    async def answer_to(self, asked: PendingCall, result: type[R]) -> R:
        """Wait for the answer to what was posted. Raises as `Calls.call` does."""
        return await self._calls.answer_to(asked, result)
