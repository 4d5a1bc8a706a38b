"""A container of a real Docker, where one is here: what tests/test_reach.py sees of a stand-in holds there too.

Its image is a few folders, and its programs are those of this machine. It has Python, and no execsrv.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator

import pytest
import trio

import execsrv
from execsrv.errors import ConnectionFailedError, ConnectionLostError
from tests.peers import PATIENCE
from tests.processes import new_mark
from tests.test_reach import PATIENT

BOX = f"execsrv-test-{os.getpid()}"


def docker(*words: str, given: bytes = b"") -> bytes:
    return subprocess.run(["docker", *words], input=given, capture_output=True, check=True, timeout=PATIENCE).stdout


def is_here() -> bool:
    try:
        return shutil.which("docker") is not None and bool(docker("version", "--format", "{{.Server.Version}}"))
    except (OSError, subprocess.SubprocessError):
        return False


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    if not (is_here() and os.path.islink("/bin") and os.path.exists("/usr/bin/python3")):
        pytest.skip("no Docker here whose container could have the programs of this machine")
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as image:
            for name in "proc sys dev etc tmp usr var/tmp".split():
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
                image.addfile(folder)
            for name in filter(os.path.islink, ("/bin", "/lib", "/lib64", "/sbin")):
                image.add(name)
        docker("import", "-", BOX, given=file.getvalue())
    try:
        try:
            docker("run", "-d", "--name", BOX, "--network=none", "-v/usr:/usr:ro", BOX, "sleep", "infinity")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the Docker here runs none: {error.stderr.decode(errors='replace').strip()}")
        yield f"docker://{BOX}"
    finally:
        subprocess.run(["docker", "rm", "-f", BOX], check=False, stdout=subprocess.DEVNULL)
        docker("rmi", "-f", BOX)


def inside() -> list[str]:
    """The programs in the container, as Docker sees them."""
    return docker("top", BOX, "-eo", "pid,args").decode().splitlines()[1:]


async def until_empty() -> None:
    """Wait until nothing is in there but what it was made with."""
    with trio.fail_after(PATIENCE):
        while len(await trio.to_thread.run_sync(inside)) > 1:  # noqa: ASYNC110
            await trio.sleep(0.05)


def kill_clients() -> None:
    """Kill the `docker exec` of this process, as an administrator might."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if words[1:2] == [b"exec"] and BOX.encode() in words:
            os.kill(int(pid), signal.SIGKILL)


async def test_commands_files_and_terminals(url: str) -> None:
    data = bytes(range(256)) * 4096
    async with execsrv.connect(url, config=PATIENT) as client:
        assert (await client.run(["cat"], input=data)).stdout == data
        result = await client.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
        await client.files.write("/tmp/file", data)
        assert await client.files.read("/tmp/file") == data
        async with client.start(["sh", "-c", "stty size; read line; echo got $line"], tty=True, size=(30, 90)) as shell:
            await shell.expect("30 90")
            await shell.sendline("this")
            await shell.expect("got this")
            assert (await shell.wait()).exit_code == 0
    await until_empty()


@pytest.mark.parametrize("how", ["left", "its client killed"])
async def test_nothing_is_left_in_there(url: str, how: str) -> None:
    """`docker exec` itself leaves what it has started."""
    mark = new_mark()
    script = f"echo ready; setsid sh -c 'sleep 1000; : {mark}' & sleep 1000; : {mark}"
    async with execsrv.connect(url, config=PATIENT) as client:
        process_is_lost = False
        try:
            async with client.start(["sh", "-c", script], stdin=True) as process:
                assert await process.stdout.receive_some() == b"ready\n"
                assert sum(str(mark) in line for line in inside()) == 2
                if how != "left":
                    kill_clients()
                    await process.wait()
        except ConnectionLostError:
            process_is_lost = True
        assert process_is_lost == (how != "left")
        if how == "left":
            assert not any(str(mark) in line for line in inside())
    await until_empty()


async def test_cuts_lose_nothing(url: str) -> None:
    lines = 300
    script = f"for i in $(seq {lines}); do echo $i; sleep 0.01; done"
    async with execsrv.connect(url, reconnect=PATIENCE, config=PATIENT) as client:
        async with client.start(["sh", "-c", script]) as process:
            output, cuts = b"", 0
            while piece := await process.stdout.receive_some():
                output += piece
                if cuts < 3 and len(output) > 200 * (cuts + 1):
                    cuts += 1
                    kill_clients()
        assert (cuts, output) == (3, b"".join(b"%d\n" % number for number in range(1, lines + 1)))


def test_the_command_line(url: str) -> None:
    argv = [sys.executable, "-m", "execsrv", "run", "--url", url, "--", "sh", "-c", "cat; exit 3"]
    done = subprocess.run(argv, input=b"input", capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (3, b"input"), done.stderr


async def test_a_container_that_is_not_there(url: str) -> None:
    with pytest.raises(ConnectionFailedError, match="there is no such container"):
        async with execsrv.connect(f"{url}-not", config=PATIENT):
            pass
