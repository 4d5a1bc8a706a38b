"""Ordinary work goes on in confinement: tools that people use there do what they do elsewhere."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import shutil
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import execsrv
from execsrv import Policy
from tests.confined import needs_confinement

pytestmark = needs_confinement

PROJECT = Path(__file__).parents[1]


@pytest.fixture
async def client() -> AsyncIterator[execsrv.Client]:
    async with execsrv.connect_in_process(own_process=True) as client:
        yield client


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return Policy.read_only(network=False).write(tmp_path)


async def run(client: execsrv.Client, policy: Policy, folder: Path, script: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(PROJECT)}
    result = await client.run(["sh", "-ec", script], cwd=folder, env=env, sandbox=policy, text=True, timeout=300)
    assert result.exit_code == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


PYTHON = """
import fcntl, multiprocessing, os, pty, resource, socket, subprocess, tempfile, threading
lines = []
threads = [threading.Thread(target=lines.append, args=(n,)) for n in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert sorted(lines) == list(range(20))
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
master, slave = pty.openpty()
os.write(master, b"typed\\n"); assert os.read(slave, 100) == b"typed\\n"
status = pty.spawn(["sh", "-c", "test -t 0 && exit 3"], lambda fd: os.read(fd, 1024)); assert status == 3 << 8
one, other = socket.socketpair(); one.sendall(b"x"); assert other.recv(1) == b"x"
assert subprocess.run(["cat"], input=b"piped", capture_output=True).stdout == b"piped"
assert len(open("/dev/urandom", "rb").read(8)) == 8
open("/dev/null", "w").write("gone"); assert open("/dev/zero", "rb").read(2) == bytes(2)
with tempfile.NamedTemporaryFile() as file: fcntl.flock(file, fcntl.LOCK_EX)
open("mode", "w").close(); os.chmod("mode", 0o640); assert os.stat("mode").st_mode & 0o777 == 0o640
os.symlink("mode", "link"); os.link("mode", "hard"); os.rename("hard", "renamed"); os.utime("mode", (1, 1))
os.mkfifo("fifo"); os.makedirs("a/b"); os.removedirs("a/b")
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
assert str(os.getpid()) in os.listdir("/proc"); os.stat("/proc/self/fd/0")
"""


async def test_threads_processes_terminals_sockets_and_files(
    client: execsrv.Client, policy: Policy, tmp_path: Path
) -> None:
    await run(client, policy, tmp_path, shlex.join([sys.executable, "-c", PYTHON]))


async def test_loopback_where_the_network_is_open(client: execsrv.Client, tmp_path: Path) -> None:
    code = (
        "import socket; server = socket.create_server(('127.0.0.1', 0));"
        "one = socket.create_connection(server.getsockname()); other, _ = server.accept();"
        "one.sendall(b'x'); assert other.recv(1) == b'x'; print('heard')"
    )
    policy = Policy.read_only(network=True)
    assert await run(client, policy, tmp_path, shlex.join([sys.executable, "-c", code])) == "heard\n"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
async def test_git(client: execsrv.Client, policy: Policy, tmp_path: Path) -> None:
    script = """
    git init -q work; cd work; git config user.email a@b; git config user.name A
    echo one >file; git add file; git commit -qm first; git checkout -qb other; echo two >>file; git commit -qam second
    git worktree add -q ../beside HEAD~1; cd ../beside; git status --short; git log --oneline | wc -l
    cd ../work; git gc -q; git clone -q . ../clone; git -C ../clone log --format=%s
    """
    assert (await run(client, policy, tmp_path, script)).split() == ["1", "second", "first"]


async def test_a_shell_has_job_control_and_hears_of_a_resize(client: execsrv.Client, tmp_path: Path) -> None:
    argv = ["bash", "--norc", "--noediting", "-i"]
    env = {"PATH": os.environ["PATH"], "PS1": "$ ", "TERM": "dumb"}
    async with client.start(
        argv, tty=True, size=(24, 80), cwd="/", env=env, sandbox=Policy.read_only(network=False)
    ) as shell:
        await shell.expect(r"\$ ", timeout=60)
        await shell.sendline("sleep 1000")
        await shell.wait_for(idle=0.2)
        await shell.sendcontrol("z")
        await shell.expect(r"Stopped .*sleep 1000.*\$ ", timeout=60)
        await shell.sendline("bg; jobs")
        await shell.expect(r"Running .*sleep 1000.*\$ ", timeout=60)
        await shell.sendline("fg")
        await shell.expect(r"sleep 1000\r\n", timeout=60)
        await shell.sendcontrol("c")
        await shell.expect(r"\$ ", timeout=60)
        await shell.resize(33, 99)
        await shell.sendline("stty size; echo $LINES x $COLUMNS")
        await shell.expect(r"33 99\r\n33 x 99", timeout=60)


def wheel(folder: Path) -> Path:
    """A wheel of one module, without a tool to build it."""
    files = {
        "confined_package.py": b"def main(): print('installed')\n",
        "confined_package-1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: confined-package\nVersion: 1\n",
        "confined_package-1.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "confined_package-1.dist-info/entry_points.txt": b"[console_scripts]\nconfined = confined_package:main\n",
    }
    made = folder / "confined_package-1-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        record = ""
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record += f"{name},sha256={digest},{len(content)}\n"
        archive.writestr("confined_package-1.dist-info/RECORD", record + "confined_package-1.dist-info/RECORD,,\n")
    return made


@pytest.mark.slow
async def test_pip_in_an_environment_of_its_own(client: execsrv.Client, policy: Policy, tmp_path: Path) -> None:
    script = f"unset PYTHONPATH; {sys.executable} -m venv env; env/bin/pip install -q --no-index {wheel(tmp_path)}"
    assert await run(client, policy, tmp_path, f"{script}; env/bin/confined") == "installed\n"


@pytest.mark.slow
async def test_the_tests_of_a_real_project_and_a_build(client: execsrv.Client, policy: Policy, tmp_path: Path) -> None:
    tests = ["test_codec.py", "test_log.py", "test_pieces.py"]
    there = [str(PROJECT / "tests" / name) for name in tests]
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/base", *there]
    script = f"cd {PROJECT}; HYPOTHESIS_STORAGE_DIRECTORY={tmp_path}/h {shlex.join(pytest_)}"
    assert " passed" in await run(client, policy, tmp_path, script)
    if shutil.which("make") and shutil.which("cc"):
        (tmp_path / "main.c").write_text("#include <stdio.h>\nint main(void) { return puts(NAME) < 0; }\n")
        (tmp_path / "Makefile").write_text("main: main.c\n\tcc -DNAME='\"built\"' -o $@ $<\n")
        assert (await run(client, policy, tmp_path, "make -s -j4; ./main")) == "built\n"
