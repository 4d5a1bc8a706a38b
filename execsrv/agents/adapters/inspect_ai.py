"""A sandbox of Inspect whose commands run on execsrv: `sandbox="execsrv"`, or `("execsrv", URL)` for one elsewhere.

Each sample has a connection and a directory of its own, which both end with it, and with them all that its commands
have started. Without a URL it also has a server of its own, on this machine: that is no confinement.

Inspect opens and closes a sample in tasks of its own choice, on asyncio or trio. So the connection is not held by them:
on asyncio by the portal's thread, on trio by a system task.
"""

from __future__ import annotations

import errno
import os
import posixpath
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, overload

import anyio
import sniffio
import trio
from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
    sandboxenv,
)

import execsrv
from execsrv.client.file_paths import heard
from execsrv.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    FileError,
    NotFoundError,
    OutputTruncatedError,
    SpawnError,
)

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
"""Exit codes by which a shell says that it could not run a program."""

_REMOVAL_SECONDS = 10.0

Close = Callable[[], Awaitable[None]]


@sandboxenv(name="execsrv")
class ExecsrvSandboxEnvironment(SandboxEnvironment):
    """A client of execsrv, of whichever loop runs here, and the directory of a sample."""

    def __init__(self, client: Any, close: Close, directory: str, users: tuple[str, str]) -> None:
        super().__init__()
        self._client = client
        self._close = close
        self._users = users
        self.directory = directory

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        if config is not None and not isinstance(config, str):
            raise ValueError(f"config of the sandbox must be the URL of a server, got {type(config).__name__}")
        client, close = await _opened(config)
        # Named here, so that it can be removed whatever becomes of the answer.
        directory = posixpath.join(heard("initialize", client.info.temp_dir), f"execsrv-{secrets.token_hex(8)}")
        try:
            await client.run(["mkdir", "-m", "700", "--", directory], check=True)
            users = (await client.run(["sh", "-c", "id -un; id -u"], text=True, check=True)).stdout.split()
            return {"default": cls(client, close, directory, (users[0], users[-1]))}
        except BaseException:
            await _leave(client, close, directory)
            raise

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        for environment in environments.values():
            sandbox: ExecsrvSandboxEnvironment = environment.as_type(ExecsrvSandboxEnvironment)
            await _leave(sandbox._client, sandbox._close, sandbox.directory)

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109  # Inspect's word
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        if user is not None and user not in self._users:
            raise SandboxUserUnsupportedError(f"cannot run as {user!r}: the server runs as {self._users[0]!r}")
        given = input.encode() if isinstance(input, str) else input
        try:
            result = await self._client.run(
                cmd,
                input=given,
                cwd=self._path(cwd or ""),
                env_add=env,
                timeout=timeout,
                max_bytes=SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE,
            )
        except SpawnError as error:
            if error.stage == "permission":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), cmd[0]) from error
            code = _NOT_FOUND if error.errno == errno.ENOENT else _NOT_EXECUTABLE
            return ExecResult(False, code, "", str(error))
        except OutputTruncatedError as error:
            said = _text(error.stdout) or _text(error.stderr)
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, said) from error
        except (ConnectionFailedError, ConnectionLostError) as error:
            raise SandboxUnavailableError(str(error)) from error
        return ExecResult(result.exit_code == 0, result.exit_code, _text(result.stdout), _text(result.stderr))

    async def write_file(self, file: str, contents: str | bytes) -> None:
        path = self._path(file)
        with _os_errors(path):
            await self._client.files.make(posixpath.dirname(path))
            # In place, as others do it: who may not write to the file is refused, whatever the directory allows.
            await self._client.files.write(path, contents, atomic=False)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        path = self._path(file)
        with _os_errors(path):
            found = await self._client.files.stat(path)
            if found.is_directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if found.size > SandboxEnvironmentLimits.MAX_READ_FILE_SIZE:
                raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
            data: bytes = await self._client.files.read(path)
        return data.decode() if text else data

    def _path(self, name: str) -> str:
        """Return the absolute path of what counts from the sample's directory."""
        return posixpath.normpath(posixpath.join(self.directory, name))


def _text(data: bytes) -> str:
    return bytes(data).decode(errors="replace")


@contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """Raise the errors of file methods as those that `open` would raise here."""
    try:
        yield
    except FileError as error:
        number = error.errno or (errno.ENOENT if isinstance(error, NotFoundError) else 0)
        if number == 0:
            raise
        raise OSError(number, os.strerror(number), path) from error
    except (ConnectionFailedError, ConnectionLostError) as error:
        raise SandboxUnavailableError(str(error)) from error


# -- the connection, which no task of Inspect's holds --


async def _opened(url: str | None) -> tuple[Any, Close]:
    """Open a client for the loop that runs here; return it, and what closes it. Raises `SandboxUnavailableError`."""
    try:
        if sniffio.current_async_library() == "trio":
            return await _opened_on_trio(url)
        opening = execsrv.asyncio.launch() if url is None else execsrv.asyncio.connect(url)
        client = await opening
        return client, client.close
    except ConnectionFailedError as error:
        raise SandboxUnavailableError(str(error)) from error


async def _leave(client: Any, close: Close, directory: str) -> None:
    """Remove the directory of a sample, and hang up. A cancel has to wait for it, for a while."""
    try:
        with anyio.move_on_after(_REMOVAL_SECONDS, shield=True):
            await client.files.remove(directory, recursive=True, missing_ok=True)
    except execsrv.ExecsrvError:
        pass  # the server is gone, or somebody holds the directory; the commands end in any case
    finally:
        await close()


async def _opened_on_trio(url: str | None) -> tuple[Any, Close]:
    opened, left, closing = trio.Event(), trio.Event(), trio.Event()
    clients: list[execsrv.Client] = []
    errors: list[Exception] = []

    async def hold() -> None:
        try:
            async with execsrv.launch() if url is None else execsrv.connect(url) as client:
                clients.append(client)
                opened.set()
                await closing.wait()
        except Exception as error:  # of a system task nobody would hear, and the run would end
            errors.append(error)
        finally:
            opened.set()
            left.set()

    async def close() -> None:
        closing.set()
        with trio.CancelScope(shield=True):
            await left.wait()

    trio.lowlevel.spawn_system_task(hold)
    try:
        await opened.wait()
    except trio.Cancelled:
        closing.set()
        raise
    if not clients:
        raise errors[0]
    return clients[0], close
