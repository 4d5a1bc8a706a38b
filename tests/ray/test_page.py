"""The page on Ray, followed: three nodes, ten thousand commands, servers killed meanwhile, the table of ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "ray.md").read_text()


@pytest.mark.timeout(900)
def test_ten_thousand_commands_each_end_once(tmp_path: Path) -> None:
    [program] = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
    cluster, commands, table = re.findall(r"^\$ (.*?)\n(?=\$|```)", PAGE, re.S | re.M)
    (tmp_path / "cluster.py").write_text(program)
    (tmp_path / "bin").mkdir()
    for name, words in (("python", ""), ("execsrv", "-m execsrv")):
        path = tmp_path / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        path.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

    def sh(command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", command], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    with sh(f"exec {cluster.removesuffix(' &')}") as servers:
        try:
            assert servers.stdout is not None
            assert any(line == "<Servers ray://execsrv>\n" for line in servers.stdout)
            with sh(commands) as running:
                killed = [kill_after(tmp_path / "results", 1000 * number) for number in range(1, 9)]
                _, said = running.communicate(timeout=600)
        finally:
            servers.terminate()
    results = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
    assert sorted(result["line"] for result in results) == [*range(1, 10001)], said
    ended = [result for result in results if result.get("reason") == "exited"]
    assert all(result["exitCode"] == result["line"] % 3 for result in ended)
    unknown = [result for result in results if result.get("kind") == "unknown"]
    assert 0 < len(unknown) <= 64 * len(killed)
    with_server = [result for result in results if result.get("reason") == "shutdown"]
    assert len(ended) + len(unknown) + len(with_server) == 10000, said
    with sh(table) as counted:
        said, _ = counted.communicate(timeout=60)
    ends = {end: int(count) for count, end in (line.split() for line in said.splitlines())}
    assert sum(ends.values()) == 10000
    assert ends['"kind":"unknown"'] == len(unknown)


def kill_after(results: Path, count: int) -> int:
    """Wait for so many results, and kill a server, or the actor that owns one."""
    while not results.exists() or results.read_bytes().count(b"\n") < count:
        time.sleep(0.05)
    while True:
        owners = sorted(pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if is_owner(pid))
        with suppress(OSError, ValueError, ZeroDivisionError):  # it may just have ended by itself
            owner = owners[count // 1000 % len(owners)]
            [server] = map(int, Path(f"/proc/{owner}/task/{owner}/children").read_text().split())
            os.kill(owner if count // 1000 % 2 else server, signal.SIGKILL)
            return owner


def is_owner(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Owner")
    except OSError:
        return False
