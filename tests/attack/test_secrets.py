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

from execsrv import Client, InvalidParamsError, SpawnError, connect_in_process, launch
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
    "SMTP_PASS": "canary-pass",
    "MYSQL_PWD": "canary-pwd",
    "AWS_CREDENTIALS": "canary-credentials",
    "SESSION_COOKIE": "canary-cookie",
    "DATABASE_URL": "postgres://me:canary-url@db/x",
    "AMQP_URI": "amqp://:canary-uri@mq",
}
PLAIN = {
    "X_PLAIN": "plain",
    "X_BYPASS": "1",
    "HOME_URL": "https://example.org:8080/a@b",
    "REDIS_URL": "redis://cache:6379/0",
}


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
            scores = ["sh", "-c", "cat /proc/self/oom_score_adj /proc/$PPID/oom_score_adj"]
            before = (await client.run(scores, text=True)).stdout.split()[1]
            for score in (700, 800):
                said = (await client.run(scores, text=True, oom_score_adj=score)).stdout
                assert said.split() == [str(score), before]
            if user != "0":
                with pytest.raises(SpawnError, match="with nice -5, oomScoreAdj 900: Operation not permitted"):
                    await client.run(scores, oom_score_adj=900, nice=-5)
            assert (await client.run(scores, text=True)).stdout.split() == [before, before]
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


# -- secrets by reference --


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A directory of secrets, and a file outside of it."""
    directory = tmp_path / "secrets"
    directory.mkdir()
    (directory / "token").write_text("canary-token\n")
    (directory / "..data").write_text("canary-hidden")
    (directory / "large").write_bytes(b"x" * 131072)
    (directory / "nul").write_bytes(b"a\0b")
    os.mkfifo(directory / "fifo")
    (directory / "outside").symlink_to(tmp_path / "key")
    (tmp_path / "key").write_text("canary-key\n\n")
    return directory


async def test_a_secret_reaches_its_command_and_nothing_else(secrets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    references = {"A": "token", "B": str(secrets.parent / "key"), "C": (secrets / "token").as_uri(), "PATH": "token"}
    async with (
        connect_in_process(config=ServerConfig(secrets_directory=str(secrets))) as client,
        client.start(
            ["/bin/sh", "-c", 'printf "%s|" "$A" "$B" "$C" "$PATH"; read line'],
            env={"A": "mine"},
            env_remove=["C"],
            secret_env=references,
            stdin=True,
        ) as process,
    ):
        said = await process.stdout.receive_some()
        assert said == b"canary-token|canary-key\n|canary-token|canary-token|"
        told = [repr(process), repr(await client.processes()), repr(client)]
        assert "canary" not in "".join(told)
    assert "canary" not in caplog.text


def test_the_command_line_names_secrets_of_its_server(secrets: Path) -> None:
    server = f"exec:{sys.executable} -m execsrv serve --quiet --secrets-directory {secrets}"
    words = [sys.executable, "-m", "execsrv", "run", "--url", server, "--secret-env", "A=token"]
    words += [f"--secret-env=B={secrets.parent}/key", "--no-bring", "--", "sh", "-c", "echo $A $B"]
    said = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": HERE})
    assert (said.stdout, said.stderr) == ("canary-token canary-key\n", "")


async def test_no_secret_is_in_the_audit(secrets: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    options = ["--audit-log", str(audit), "--audit-argv", "--secrets-directory", str(secrets), "--withhold-secrets"]
    async with daemon(*options) as client:
        env = {"A": "canary-env", "PATH": os.environ["PATH"]}
        result = await client.run(["sh", "-c", "cat; echo $B"], env=env, secret_env={"B": "token"}, input=b"canary-in")
        assert result.stdout == b"canary-incanary-token\n"
        with pytest.raises(InvalidParamsError):
            await client.run(["true"], secret_env={"B": "nul"})
    told = audit.read_text()
    assert "echo $B" in told
    assert "canary" not in told


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("none", "cannot read `none`: No such file"),
        ("", "'' is no name of a secret"),
        ("..data", "'..data' is no name of a secret"),
        ("../key", "'../key' is no name of a secret"),
        ("a\0b", "is no name of a secret"),
        ("outside", "cannot read `outside`: the path leads out of"),
        ("fifo", "cannot read `fifo`: path .* is not a file"),
        ("large", "`large` has more than 131071 bytes"),
        ("nul", "`nul` holds a NUL"),
        ("/proc/self/environ", "cannot read `/proc/self/environ`: Permission denied"),
        ("/etc/hostname", "cannot read `/etc/hostname`: the path leads out of"),
    ],
)
async def test_no_reference_leads_elsewhere(secrets: Path, reference: str, why: str) -> None:
    roots = ("/proc",) if reference.startswith("/proc") else (str(secrets.parent),)
    config = ServerConfig(secrets_directory=str(secrets), file_roots=roots)
    async with connect_in_process(config=config) as client:
        with pytest.raises(InvalidParamsError, match=why) as refused:
            await client.run(["true"], secret_env={"A": reference})
    assert refused.value.facts["field"] == "secretEnv"
    assert "canary" not in str(refused.value)


async def test_secrets_are_for_who_may_have_them(secrets: Path) -> None:
    async with connect_in_process(config=ServerConfig(allow_files=False)) as client:
        with pytest.raises(InvalidParamsError, match="secrets_directory is not set"):
            await client.run(["true"], secret_env={"A": "token"})
        with pytest.raises(InvalidParamsError, match="the file methods are switched off"):
            await client.run(["true"], secret_env={"A": str(secrets / "token")})
        with pytest.raises(InvalidParamsError, match="no name of a variable"):
            await client.run(["true"], secret_env={"A=": "token"})
        with pytest.raises(InvalidParamsError, match="a prepared command has nothing looked up"):
            await client.run(["/bin/true"], cwd="/", prepared=True, env={}, secret_env={"A": "token"})
