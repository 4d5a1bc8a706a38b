"""Secrets of the server that its clients and its commands must not get at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from execsrv import Client, launch
from execsrv.limits import ServerConfig
from tests.conftest import OpenServer
from tests.processes import may_become_nobody
from tests.test_process_dialect import POLICY
from tests.test_survivors import as_ordinary_user

HERE = str(Path(__file__).parents[2])
SECRETS = {
    "X_API_KEY": "canary-key",
    "X_SECRET_ID": "canary-id",
    "GITHUB_TOKEN": "canary-token",
    "MY_PASSWORD": "canary-password",
    "mysql_passwd": "canary-passwd",
    "SSH_PASSPHRASE": "canary-passphrase",
    "AWS_CREDENTIALS": "canary-credentials",
    "SESSION_COOKIE": "canary-cookie",
    "DATABASE_URL": "postgres://me:canary-url@db/x",
    "AMQP_URI": "amqp://:canary-uri@mq",
}
PLAIN = {"X_PLAIN": "plain", "HOME_URL": "https://example.org:8080/a@b", "REDIS_URL": "redis://cache:6379/0"}


def without_canaries(data: bytes) -> bool:
    """Return whether there is something, and no secret in it."""
    return b"X_PLAIN=plain" in data and b"canary" not in data


@asynccontextmanager
async def daemon(*options: str) -> AsyncIterator[Client]:
    """Open a client of a real daemon, with these variables in its environment."""
    words = ["env", *(f"{name}={value}" for name, value in (PLAIN | SECRETS).items()), f"PYTHONPATH={HERE}"]
    async with launch([*words, sys.executable, "-m", "execsrv", "serve", *options]) as client:
        yield client


async def test_the_default_excludes_cover_all_kinds_of_secrets(
    open_server: OpenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (SECRETS | PLAIN).items():
        monkeypatch.setenv(name, value)
    peer = await open_server("memory", ServerConfig()).peer()
    _, out, _ = await peer.run("a", ["env", "-0"], envPolicy=POLICY | {"ignoreDefaultExcludes": False})
    assert without_canaries(out)
    assert {f"{name}={value}".encode() for name, value in PLAIN.items()} <= set(out.split(b"\0"))
    _, out, _ = await peer.run("b", ["env"], envPolicy=POLICY)
    assert out.count(b"canary") == len(SECRETS)


@pytest.mark.parametrize(
    "settings", [{"withhold_secrets": True}, {"withheld_variables": (*SECRETS,)}, {"withheld_variables": ("*_*",)}]
)
async def test_no_client_lifts_the_policy_of_the_server(
    open_server: OpenServer, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    for name, value in (SECRETS | {"XPLAIN": "plain"}).items():
        monkeypatch.setenv(name, value)
    peer = await open_server("memory", ServerConfig(**settings)).peer()
    policies: list[dict[str, Any]] = [{}, {"includeOnly": ["*"]}, {"includeOnly": [*SECRETS, "XPLAIN"]}]
    for number, policy in enumerate(policies):
        _, out, _ = await peer.run(f"p{number}", ["/usr/bin/env"], envPolicy=POLICY | policy)
        assert b"XPLAIN=plain" in out
        assert b"canary" not in out
    # The client's own values are its own.
    _, out, _ = await peer.run("c", ["/usr/bin/env"], env={"GITHUB_TOKEN": "mine"}, envPolicy=POLICY)
    assert b"GITHUB_TOKEN=mine" in out


@pytest.mark.parametrize("options", [["--withhold-secrets"], [f"--withheld-variables={name}" for name in SECRETS]])
async def test_what_is_withheld_is_not_in_the_block_of_the_server(options: list[str]) -> None:
    async with daemon(*options, "--allow-debugging") as client:
        result = await client.run(["sh", "-c", "cat /proc/$PPID/environ"])
        assert without_canaries(result.stdout)
        assert without_canaries((await client.run(["env"])).stdout)


async def test_a_request_may_send_what_commands_do_not_get() -> None:
    """It is still refused for being empty or missing, but for nothing else."""
    from execsrv import ServerVariable
    from tests.web import open_web

    async with daemon("--withhold-secrets", "--http-variables=GITHUB_*") as client, open_web() as web:
        await client.http.request("GET", web.url, headers={"A": ServerVariable("GITHUB_TOKEN")})
        assert web.asked[0].field("a") == "canary-token"


async def test_commands_of_the_same_user_cannot_read_the_memory_of_their_server() -> None:
    """Root's commands can: there is nobody above them."""
    script = """
set -- $PPID
for name in environ mem maps; do
    head -c 1 /proc/$1/$name >/dev/null 2>/dev/null && echo $name is open
    { true >>/proc/$1/$name; } 2>/dev/null && echo $name is writable
done
ls /proc/$1/fd >/dev/null 2>&1 && echo fd is open
readlink /proc/$1/exe
id -u
"""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        command, env = as_ordinary_user(Path(folder))
        words = ["env", *(f"{name}={value}" for name, value in (env | {"HOME": "/"}).items()), *command]
        async with launch(words) as client:
            closed = await client.run(["sh", "-c", script], text=True)
            user = closed.stdout.split()[-1]
            assert user != "0" or not may_become_nobody()
            if user != "0":
                assert closed.stdout == f"{user}\n"
            # The server itself goes on as before.
            assert (await client.run(["sh", "-c", "head -c 1 /proc/self/environ"])).stdout != b""
            assert (await client.run(["tty"], tty=True)).exit_code == 0
            mine = f"{folder}.mine"
            await client.files.write(mine, b"x")
            await client.files.change(mine, mode=0o600, modified=1)
            await client.files.remove(mine)
        async with launch([*words, "--allow-debugging"]) as client:
            opened = await client.run(["sh", "-c", script], text=True)
            assert "environ is open\n" in opened.stdout


def test_the_block_is_wiped_before_anything_is_served() -> None:
    """Without a client: a process that only begins to serve has its secrets covered, and its other variables."""
    script = """
import os
from execsrv._processes.own_memory import close_memory
from execsrv._processes.withheld import Withheld
close_memory(Withheld(("*TOKEN*",)), allow_debugging=True)
print(open("/proc/self/environ", "rb").read(), os.environ["A_TOKEN"], os.popen("env").read())
"""
    env = {"A_TOKEN": "canary", "B": "plain", "PATH": os.environ["PATH"], "PYTHONPATH": HERE}
    said = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout
    assert said.count("canary") == 1, said
    assert said.count("B=plain") == 2, said
