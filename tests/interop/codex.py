"""One scene: the real Codex CLI with a model that the test plays, and an exec-server that runs its commands.

Everything of it lives in one temporary folder: the CLI's home and configuration, the server's home, the folder to work
in. Nothing leaves the machine: the CLI's proxies point to a port where nobody listens. Every process carries a
variable, by which the fixture around the scene finds what was left, kills it and fails the test.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import trio

from tests.interop.model import Model, open_model
from tests.interop.proxy import Relay, open_relay
from tests.interop.record import PATIENCE, Record, Side

_CONFIG = """\
model = "gpt-5.5"
model_provider = "played"
approval_policy = "never"
sandbox_mode = "{sandbox_mode}"

[model_providers.played]
name = "played"
base_url = "{url}"
wire_api = "responses"
requires_openai_auth = false
supports_websockets = false
request_max_retries = 0
stream_max_retries = 0
"""

MARK = "INTEROP_SCENE"
"""The variable that every process of a scene carries."""

_CLOSED_PORT = "http://127.0.0.1:9"


class Scene:
    """See the module. `work` is the folder that the CLI works in, `record` what went over the wire."""

    def __init__(
        self, folder: Path, program: str, server: str, mark: str, model: Model, relay: Relay, record: Record
    ) -> None:
        """`server` is the command line of an exec-server, with `{listen}` for the URL to listen on."""
        self.model = model
        self.relay = relay
        self.record = record
        self.work, self.home, self.server_home = folder / "work", folder / "codex", folder / "server"
        for made in (self.work, self.home, self.server_home):
            made.mkdir()
        self.configure("")
        self._program = program
        self._server_command = server
        self._server: trio.Process | None = None
        self.mark = mark

    def configure(self, toml: str, sandbox_mode: str = "danger-full-access") -> None:
        """Write the CLI's `config.toml`, with more at its end."""
        text = _CONFIG.format(url=self.model.url, sandbox_mode=sandbox_mode) + toml
        tomllib.loads(text)
        (self.home / "config.toml").write_text(text)

    def environments(self, toml: str) -> None:
        """Write the CLI's `environments.toml`, which it reads instead of the variable."""
        tomllib.loads(toml)
        (self.home / "environments.toml").write_text(toml)

    # -- the server --

    def server_argv(self, listen: str) -> list[str]:
        """The server's command line."""
        return [part.replace("{listen}", listen) for part in shlex.split(self._server_command)]

    def server_env(self) -> dict[str, str]:
        """The server's environment; `ONLY_THERE` is nowhere else."""
        ours = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}  # the execsrv that is tried
        return {**self._env(self.server_home), **ours, "ONLY_THERE": "yes"}

    async def start_server(self, *prefix: str, **variables: str) -> int:
        """Start an exec-server on a free port, and let the relay lead to it; its pid.

        `prefix` is a command line that becomes the server's, `variables` go into its environment.
        """
        with _open_log(self.server_home) as log:
            self._server = await trio.lowlevel.open_process(
                [*prefix, *self.server_argv("ws://127.0.0.1:0")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.server_env() | variables,
                cwd=self.server_home,
                start_new_session=True,
            )
        assert self._server.stdout is not None
        said = b""
        with trio.fail_after(PATIENCE):
            while (url := re.search(rb"(ws://[\d.:]+)\s", said)) is None:
                data = await self._server.stdout.receive_some()
                assert data, f"the server ended: {self._log()}"
                said += data
        parts = urlsplit(url[1].decode())
        assert parts.hostname is not None
        assert parts.port is not None
        self.relay.target = parts.hostname, parts.port
        return self._server.pid

    async def stop_server(self) -> None:
        """End the server with SIGTERM, and see it gone."""
        server, self._server = self._server, None
        self.relay.target = None
        if server is not None:
            server.terminate()
            with trio.move_on_after(PATIENCE):
                await server.wait()
                return
            server.kill()
            raise AssertionError("the server did not end at SIGTERM")

    # -- the CLI --

    @asynccontextmanager
    async def codex(self) -> AsyncIterator[Model]:
        """The CLI at work, by way of the relay unless `environments.toml` says otherwise.

        Leaving lets the model finish; then the CLI has to end with status 0. Should it end before, the test fails,
        unless by `kill_codex`.
        """
        argv = [self._program, "exec", "--skip-git-repo-check", "--cd", str(self.work), "do what you are told"]
        env = {
            **self._env(self.home),
            "CODEX_EXEC_SERVER_URL": self.relay.url,
            "HTTP_PROXY": _CLOSED_PORT,
            "HTTPS_PROXY": _CLOSED_PORT,
            "ALL_PROXY": _CLOSED_PORT,
            "NO_PROXY": "127.0.0.1,localhost",
            "ONLY_HERE": "yes",
        }
        with _open_log(self.home) as log:
            process = await trio.lowlevel.open_process(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        self._may_end = self._killed = False
        self._codex_pid = process.pid

        async def watch() -> None:
            status = await process.wait()
            assert self._may_end, f"codex ended with status {status}: {self._log()}"

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                yield self.model
                if not self._killed:
                    await self.model.until_asked()
                    self._may_end = True
                    await self.model.finish()
                with trio.fail_after(PATIENCE):
                    await process.wait()
        finally:
            _kill_group(process.pid)
            with trio.CancelScope(shield=True):
                await process.wait()
        assert process.returncode == (-signal.SIGKILL if self._killed else 0), self._log()
        assert not self.model.strange

    def kill_codex(self) -> None:
        """Kill the CLI, and only it, with SIGKILL; after that nothing but leaving its block makes sense."""
        self._may_end = self._killed = True
        os.kill(self._codex_pid, signal.SIGKILL)

    def load_stdio(self, client: Path, server: Path) -> None:
        """Add what `tee` has kept of the two directions of a pipe to the record; only within each are they in order."""
        sides: list[tuple[Side, Path]] = [("client", client), ("server", server)]
        for side, path in sides:
            for line in path.read_text().splitlines():
                self.record.add(1, side, json.loads(line))

    # -- its end --

    async def until_alone(self) -> None:
        """Wait until no process of the scene is left. The process table has to be asked again and again."""
        with trio.fail_after(PATIENCE):
            while processes_with(self.mark):  # noqa: ASYNC110
                await trio.sleep(0.01)

    async def close(self) -> None:
        """End the server, and print what it and the CLI had to say."""
        try:
            await self.stop_server()
        finally:
            print(self._log())

    def _env(self, home: Path) -> dict[str, str]:
        path = os.environ["PATH"]
        return {
            "PATH": path,
            "HOME": str(home),
            "CODEX_HOME": str(home),
            "LC_ALL": "C.UTF-8",
            MARK: self.mark,
        }

    def _log(self) -> str:
        logs = [path for path in (self.home / "log", self.server_home / "log") if path.exists()]
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-4000:]}" for path in logs)


def processes_with(mark: str) -> dict[int, str]:
    """Every living process of the scene with this mark: pid and command line."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as environ, open(f"/proc/{name}/cmdline", "rb") as cmdline:
                    if f"{MARK}={mark}".encode() in environ.read():
                        found[int(name)] = cmdline.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # ended meanwhile
    return found


def _open_log(folder: Path) -> IO[bytes]:
    return open(folder / "log", "ab")


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended, with all that it started


@asynccontextmanager
async def open_scene(folder: Path, program: str, server: str, mark: str) -> AsyncIterator[Scene]:
    """A scene without a server and without a CLI yet; leaving ends all of it."""
    record = Record()
    async with open_model() as model, open_relay(record) as relay:
        scene = Scene(folder, program, server, mark, model, relay, record)
        try:
            yield scene
        finally:
            with trio.CancelScope(shield=True):
                await scene.close()
