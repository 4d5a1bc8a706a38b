"""The page on Dask, followed, and what dies with what there."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import execsrv
from execsrv.directories import FileDirectory
from tests.faults.daemon import MARK, new_mark, until, until_alive, until_gone

distributed = pytest.importorskip("distributed")

[PROGRAM] = re.findall(
    r"^```python\n(.*?)^```", (Path(__file__).parents[2] / "docs" / "dask.md").read_text(), re.S | re.M
)


def test_the_program_of_the_page(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "100\n"), done.stderr


async def test_a_server_ends_with_its_worker_and_the_next_worker_has_another(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    pool, mark = tmp_path / "pool", new_mark()
    servers = runpy.run_path(str(program))["Servers"]
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        cluster.get_client() as client,
    ):
        await trio.to_thread.run_sync(client.register_plugin, servers(str(pool)))
        await until(FileDirectory(pool), lambda: "no server has joined")
        [first] = FileDirectory(pool)()
        flees = ["sh", "-c", "setsid sleep 1000 & sleep 1000"]
        async with (
            execsrv.connect(first.url, keep="untilIdle", name="trees") as there,
            there.start(flees, env_add={MARK: mark}) as process,
        ):
            process.leave_running()
        await until_alive(mark, 3)
        [worker] = (await trio.to_thread.run_sync(client.run, os.getpid)).values()
        os.kill(worker, signal.SIGKILL)
        await until_gone(mark)
        await until(lambda: first.url not in {each.url for each in FileDirectory(pool)()}, pool.read_text)
        await until(FileDirectory(pool), lambda: "no other server has joined")
