"""The audit: every start and every end, who and from where; no secret, and nobody waits for it."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

import execsrv
from execsrv import SpawnError, connect_unix
from execsrv._doors.audit import open_audit
from execsrv._doors.journal import Journal
from execsrv._doors.principal import OWNER
from execsrv._log.log import OutputLog
from execsrv.errors import InvalidConfigError
from execsrv.limits import ServerConfig
from tests.conftest import OpenServer
from tests.peers import PATIENCE, b64
from tests.test_reloading import running


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def until_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """A thread writes them, and nothing tells when it has."""
    with trio.fail_after(PATIENCE):
        while not path.exists() or len(lines(path)) < count:  # noqa: ASYNC110, ASYNC240
            await trio.sleep(0.01)
    return lines(path)


async def test_every_start_and_every_end(open_server: OpenServer, transport: str, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    server = open_server(transport, ServerConfig(audit_log=str(path)))
    peer = await server.peer()
    started = await peer.start("a", ["sh", "-c", "echo out; echo err >&2; exit 3"])
    await peer.until_told("a", "closed")
    await peer.refused("process/start", peer.start_params("b", ["no-such-program"]))
    await peer.start("c", ["sleep", "1000"], tty=True)
    await peer.call("process/terminate", {"processId": "c"})
    await peer.until_told("c", "closed")
    first, end, failed, third, killed = await until_lines(path, 5)
    origin = {"memory": "this program", "stdio": "stdio", "unix": f"uid {os.getuid()}", "websocket": "127.0.0.1"}
    assert first.pop("time") <= end.pop("time") <= third["time"]  # in milliseconds
    who = {"role": "owner", "from": origin[transport], "connection": 1, "tty": False}
    assert who["from"] in first["from"]
    who |= {"from": first["from"], "identity": first["identity"]}
    assert first == {"event": "start", "process": "a", "program": "sh", "pid": started["pid"], **who}
    usage = end.pop("usage")
    assert sorted(usage) == ["systemSeconds", "userSeconds"]
    assert end.pop("seconds") >= usage["userSeconds"] >= 0
    assert end == {
        **first,
        "event": "end",
        "reason": "exited",
        "exitCode": 3,
        "signal": None,
        "bytes": {"stdout": 4, "stderr": 4},
    }
    assert (failed["event"], failed["program"], failed["pid"]) == ("failed", "no-such-program", None)
    assert failed["error"] == {"kind": "spawnNotFound", "stage": "program", "errno": 2}
    assert (killed["reason"], killed["exitCode"], killed["signal"]) == ("terminated", 137, "SIGKILL")
    assert (third["tty"], killed["tty"], killed["bytes"]) == (True, True, {"pty": 0})


async def test_an_end_by_hanging_up_is_one(open_server: OpenServer, transport: str, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    server = open_server(transport, ServerConfig(audit_log=str(path)))
    async with server.open_peer() as peer:
        await peer.handshake()
        await peer.start("a", ["sleep", "1000"])
    _, end = await until_lines(path, 2)
    assert (end["event"], end["reason"], end["signal"]) == ("end", "disconnected", "SIGTERM")


async def test_no_secret_is_in_it(open_server: OpenServer, transport: str, tmp_path: Path) -> None:
    path, canary = tmp_path / "audit", "canary-7d3f"
    server = open_server(transport, ServerConfig(audit_log=str(path), audit_argv=True))
    async with server.open_peer() as stranger:
        await stranger.post("initialize", {"clientName": canary, "token": canary})
        if transport != "memory":
            await stranger.until(lambda: stranger.heard)
    peer = await server.peer()
    params = {"env": {"PATH": os.environ["PATH"], "SECRET": canary}, "pipeStdin": True}
    await peer.start("a", ["sh", "-c", "cat; echo $SECRET; echo $SECRET >&2"], **params)
    await peer.call("process/write", {"processId": "a", "chunk": b64(canary.encode()), "writeId": canary})
    await peer.call("process/closeStdin", {"processId": "a"})
    await peer.until_told("a", "closed")
    assert peer.output("a", "stdout") == f"{canary}{canary}\n".encode()
    await peer.refused("process/start", {**peer.start_params("b", ["nope"]), **params})
    await peer.refused("process/start", {**peer.start_params("c", ["true"]), **params, "cwd": "/nope"})
    assert [line["event"] for line in await until_lines(path, 4)] == ["start", "end", "failed", "failed"]
    assert canary not in path.read_text()
    assert lines(path)[0]["argv"] == ["sh", "-c", "cat; echo $SECRET; echo $SECRET >&2"]


async def test_arguments_are_there_where_that_was_asked_for(open_server: OpenServer, tmp_path: Path) -> None:
    for asked in (True, False):
        path = tmp_path / f"audit-{asked}"
        server = open_server("memory", ServerConfig(audit_log=str(path), audit_argv=asked))
        peer = await server.peer()
        await peer.start("a", ["true", "x" * 10_000, "\n\0"[:1], *["y" * 4000] * 10])
        await peer.until_told("a", "closed")
        start, end = await until_lines(path, 2)
        assert "argv" not in end
        if asked:
            assert start["argv"][:3] == ["true", "x" * 4096 + "...", "\n"]
            assert start["argv"][-1] == "..."
            assert len(json.dumps(start)) < 25_000
        else:
            assert "argv" not in start


def test_the_file_is_its_owners_alone_and_no_link(tmp_path: Path) -> None:
    with open_audit(str(tmp_path / "audit")):
        pass
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "audit")
    followed = pytest.raises(InvalidConfigError, match="it is a link, and links are not followed")
    with followed, open_audit(str(tmp_path / "link")):
        pass
    for path in (tmp_path / "no" / "audit", tmp_path):
        with pytest.raises(InvalidConfigError, match="cannot open the audit log"), open_audit(str(path)):
            pass


def test_what_is_no_text_is_still_a_line(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    with open_audit(str(path)) as audit:
        journal = Journal()
        journal.observers.append(audit)
        page = journal.new_page(OWNER, "\udcff\n", with_argv=True)
        start = page.begin("a\n{}", os.fsdecode(b"\xff"), [os.fsdecode(b"\xfe"), "\u2028"], 0, is_terminal=False)
        assert start is not None
        page.started(start, 7, OutputLog(0, 0))
        page.failed(start, RuntimeError("canary"))
        page.failed(start, SpawnError("canary", stage="cwd", errno=2))
    text = path.read_text()
    assert len(text.splitlines()) >= 3
    assert "canary" not in text
    first, second, third = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    assert (first["from"], first["process"], first["program"]) == ("\\udcff\n", "a\n{}", "\\udcff")
    assert first["argv"] == ["\\udcfe", "\u2028"]
    assert second["error"] == {"kind": "internal-error"}
    assert third["error"] == {"kind": "spawnNotFound", "stage": "cwd", "errno": 2}


async def test_it_is_opened_again_at_a_signal(tmp_path: Path) -> None:
    path, moved, listen = tmp_path / "audit", tmp_path / "audit.1", f"{tmp_path}/s"
    with running("--listen", f"unix://{listen}", "--audit-log", str(path)) as server:
        async with connect_unix(listen) as client:
            await client.run(["true"])
            await until_lines(path, 2)
            path.rename(moved)
            await client.run(["true"])
            await until_lines(moved, 4)
            server.process.send_signal(signal.SIGHUP)
            server.until("reloaded the audit log")
            await client.run(["true"])
            await until_lines(path, 2)
            assert len(lines(moved)) == 4
            path.rename(tmp_path / "audit.2")
            path.mkdir()
            server.process.send_signal(signal.SIGHUP)
            server.until("cannot reload the audit log, so nothing of it has changed")
            await client.run(["true"])
            await until_lines(tmp_path / "audit.2", 4)


async def test_a_disk_that_is_full_for_a_while_cuts_one_line_and_no_other(tmp_path: Path) -> None:
    path, listen = tmp_path / "audit", f"{tmp_path}/s"
    with running("--listen", f"unix://{listen}", "--audit-log", str(path)) as server:
        pid, unlimited = server.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)
        async with connect_unix(listen) as client:
            await client.run(["true"])
            await until_lines(path, 2)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (path.stat().st_size + 50, unlimited[1]))
            await client.run(["true"])
            told = await trio.to_thread.run_sync(server.until, "cannot write to the audit log")
            assert f"`{path}`: File too large" in told
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
            await client.run(["true"])
            with trio.fail_after(PATIENCE):
                while not (path.read_bytes().endswith(b"\n") and _told(path) == 6):  # noqa: ASYNC110
                    await trio.sleep(0.01)
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert len(path.read_text().splitlines()) == len(whole) + 1
    assert all(json.loads(line) for line in whole)


def _told(path: Path) -> int:
    """The lines that are there whole, and those of which it is told that they are not."""
    whole = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return sum(line.get("lines", 1) for line in whole)


async def test_nobody_waits_for_a_file_that_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        config = ServerConfig(audit_log=str(path), audit_argv=True)
        async with execsrv.connect_in_process(config=config) as client:
            for _ in range(20):
                await client.run(["true", *["x" * 4096] * 4])
    finally:
        os.close(reader)
