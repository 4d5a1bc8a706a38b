"""Directories: where a pool learns of servers, and how servers get there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

import execsrv
from execsrv import Endpoint, Pool
from execsrv._cli.joining import url_for_others
from execsrv.directories import FileDirectory, directory_of
from execsrv.directories.joined import join, joined, leave
from execsrv.testing.running_server import serving
from tests.peers import PATIENCE
from tests.test_pool import killable, until

EXECSRV = [sys.executable, "-m", "execsrv"]


async def test_servers_join_a_file_and_leave_it(tmp_path: Path) -> None:
    """A pool has those that are in it, and sees who comes; one that was killed is in it still, and is found dead."""
    file = tmp_path / "servers"
    async with Pool(FileDirectory(file), refresh=0.05, reconnect=0, patience=PATIENCE) as pool:
        with killable(tmp_path, "--join", str(file), "--label", "gpu=1") as killed:
            assert (await pool.run(["true"], labels={"gpu": "1"})).server == killed.url
            with serving(f"unix://{tmp_path}/other", "--join", str(file)) as other:
                await until(lambda: len(pool.servers) == 2)
                assert joined(file) == [Endpoint(killed.url, labels={"gpu": "1"}), Endpoint(other.url)]
                assert killed.pid is not None
                os.kill(killed.pid, signal.SIGKILL)
                await until(lambda: [server.state for server in pool.servers] == ["lost", "up"])
                assert (await pool.run(["true"])).server == other.url
            assert [endpoint.url for endpoint in joined(file)] == [killed.url]
            await until(lambda: len(pool.servers) == 1)
            file.unlink()  # which says nothing of its servers
            await trio.sleep(0.1)
            assert [server.url for server in pool.servers] == [killed.url]


def test_many_join_and_leave_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "servers"
    endpoints = [Endpoint(f"ws://127.0.0.1:{port}", labels={"port": str(port)}) for port in range(1, 41)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda each: join(file, each), endpoints))
        assert sorted(endpoint.url for endpoint in joined(file)) == sorted(endpoint.url for endpoint in endpoints)
        list(threads.map(lambda each: leave(file, each.url), endpoints[1:]))
    assert joined(file) == endpoints[:1]
    join(file, Endpoint(endpoints[0].url, token="secret"))
    assert [endpoint.token for endpoint in joined(file)] == ["secret"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "servers"
    file.write_text('{"url": "unix:///a"}\n\n{"link": 1}\n')
    with pytest.raises(execsrv.InvalidConfigError, match=r"servers` line 3 is no server: .*`url`"):
        FileDirectory(file)()
    with pytest.raises(execsrv.InvalidConfigError, match="line 3"):
        join(file, Endpoint("unix:///b"))
    assert file.read_text().startswith('{"url": "unix:///a"}')
    assert FileDirectory(tmp_path / "none")() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--join", "/proc/none"], "cannot join `/proc/none`: No such file or directory"),
        (["--label", "gpu=1"], "--label is for a server that joins a file: with --join"),
        (["--join", "/tmp/none", "--listen", "stdio://"], "to join a file is for those that listen"),
        (["--join", "/tmp/none", "--label", "gpu"], "cannot take `gpu` for --label: expected a label such as `gpu=1`"),
    ],
)
def test_a_server_says_why_it_cannot_join(words: list[str], said: str, tmp_path: Path) -> None:
    argv = [*EXECSRV, "serve", "--listen", f"unix://{tmp_path}/s", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode in (1, 2)
    assert said in done.stderr


def test_a_server_on_every_address_is_reached_by_name() -> None:
    assert url_for_others("ws://10.0.0.1:80") == "ws://10.0.0.1:80"
    assert url_for_others("unix:///a") == "unix:///a"
    assert re.fullmatch(r"wss://[\w.-]+:80", url_for_others("wss://[::]:80"))
    assert url_for_others("ws://0.0.0.0:80") == f"ws://{os.uname().nodename}:80"


def test_a_text_is_urls_or_a_file() -> None:
    assert directory_of("ws://a:1,unix:///b") == [Endpoint("ws://a:1"), Endpoint("unix:///b")]
    assert repr(directory_of("/tmp/servers")) == "<FileDirectory /tmp/servers>"
    with pytest.raises(execsrv.InvalidConfigError, match="a pool needs"):
        directory_of("")
