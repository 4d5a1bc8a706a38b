"""Requests about files: each with the policy that it is to keep, and in the tree that it is not to leave."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from execsrv._wire.paths import path_from_wire
from execsrv.client.calls import Calls
from execsrv.client.file_paths import sent
from execsrv.client.leaving import take_leave
from execsrv.client.pending import PendingCall
from execsrv.protocol.files import FileCall, FilePath

if TYPE_CHECKING:
    from execsrv.client.policy import Policy
    from execsrv.protocol.sandbox import Sandbox

R = TypeVar("R", bound=Struct)


class FileCalls:
    """The requests of one client about files, all under one policy or under none, and all in one `tree` or anywhere.

    Of a tree, the top is its path as users have it, and its path without links.
    """

    def __init__(self, calls: Calls, sandbox: Sandbox | None = None, tree: tuple[str, str] | None = None) -> None:
        self._calls = calls
        self._sandbox = sandbox
        self._tree = tree

    def under(self, policy: Policy) -> FileCalls:
        """Return the requests of the same client under a policy, in place of the one that they had."""
        from execsrv.client.policy import sandbox_of

        return FileCalls(self._calls, sandbox_of(policy))

    def below(self, top: str, real: str) -> FileCalls:
        """Return the same requests for the tree at `top`, by the same paths: they follow no link in it."""
        return FileCalls(self._calls, self._sandbox, (top, real))

    async def call(self, method: str, params: Struct, result: type[R]) -> R:
        """Ask and wait for the answer. Raises as `Calls.call` does."""
        return await self.answer_to(await self.post(method, params), result)

    async def post(self, method: str, params: Struct) -> PendingCall:
        """Ask without waiting for the answer. Raises as `Calls.post` does."""
        if self._sandbox is not None and isinstance(params, FileCall):
            params = replace(params, sandbox=self._sandbox)
        if self._tree is not None and isinstance(params, FilePath):
            top, real = self._tree
            path = posixpath.join(real, posixpath.relpath(path_from_wire(params.path, "path"), top))
            params = replace(params, path=sent(path), follow_symlinks=False)
        return await self._calls.post(method, params)

    async def take_leave(self, method: str, params: Struct, patience: float) -> None:
        """Tell the server what is not needed any more, as `leaving.take_leave` does."""
        await take_leave(self._calls, method, params, patience)

    async def answer_to(self, asked: PendingCall, result: type[R]) -> R:
        """Wait for the answer to what was posted. Raises as `Calls.call` does."""
        return await self._calls.answer_to(asked, result)
