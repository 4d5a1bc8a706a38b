"""Reaching servers by ssh, docker, podman, kubectl and commands: command lines, what is brought along, and errors."""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

import execsrv
from execsrv import ClientConfig, ConnectionFailedError, ConnectionLostError, InvalidListenURLError
from execsrv._nursery import open_helpers
from execsrv._processes import proc
from execsrv.client.far_commands import is_reached, parse_exec, parse_shell
from execsrv.client.far_side import SAID, Facts, own_facts, parse_answer, script, why_no_way, why_not_brought
from tests.far_sides import CONTAINERS, FarSide, SshServer, needs_sshd
from tests.peers import PATIENCE
from tests.processes import new_mark, until_gone, until_marked

SSH = ["ssh", "-T", "-oBatchMode=yes", "-oClearAllForwardings=yes", "-oRemoteCommand=none"]
PATIENT = ClientConfig(handshake_timeout=PATIENCE)

# -- command lines --


@pytest.mark.parametrize(
    ("url", "argv", "directory"),
    [
        ("ssh://host", ["--", "host"], None),
        ("ssh://host/", ["--", "host"], None),
        ("ssh://me@host", ["-l", "me", "--", "host"], None),
        ("ssh://me%40corp@host.example.org:2222", ["-l", "me@corp", "-p", "2222", "--", "host.example.org"], None),
        ("ssh://[::1]:22/src", ["-p", "22", "--", "::1"], "/src"),
        ("ssh://[fe80::1%25eth0]", ["--", "fe80::1%eth0"], None),
        ("ssh://host/a%20b/%22c%22/d'e", ["--", "host"], '/a b/"c"/d\'e'),
        ("ssh://host/~/src/x", ["--", "host"], "~/src/x"),
        ("ssh://host/~", ["--", "host"], "~/"),
        ("ssh://host/%7E/%24x%3F%23", ["--", "host"], "~/$x?#"),
        ("ssh://10.0.0.1/-x", ["--", "10.0.0.1"], "/-x"),
    ],
)
def test_ssh(url: str, argv: list[str], directory: str | None) -> None:
    place = parse_shell(url)
    assert place.directory == directory
    command = place.command("echo 'it'; x")
    assert command[:-1] == SSH + argv
    assert shlex.split(command[-1]) == ["exec", "sh", "-c", "echo 'it'; x"]


@pytest.mark.parametrize(
    ("url", "argv"),
    [
        ("docker://box", ["docker", "exec", "-i", "box"]),
        ("podman://a_b.c-9", ["podman", "exec", "-i", "a_b.c-9"]),
        ("kubectl://pod", ["kubectl", "exec", "-i", "pod", "--"]),
        ("kubectl://space/pod.0", ["kubectl", "exec", "-i", "--namespace=space", "pod.0", "--"]),
        ("kubectl:///pod/part", ["kubectl", "exec", "-i", "--container=part", "pod", "--"]),
        ("kubectl://s/pod/part", ["kubectl", "exec", "-i", "--namespace=s", "--container=part", "pod", "--"]),
    ],
)
def test_containers(url: str, argv: list[str]) -> None:
    assert parse_shell(url).command("x 'y'") == [*argv, "sh", "-c", "x 'y'"]
    assert is_reached(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ssh:host", "there is no `//`"),
        ("ssh://", "there is no host"),
        ("ssh:///src", "there is no host"),
        ("ssh://-oProxyCommand=x", "no name of a host"),
        ("ssh://%2DoProxyCommand=x", "no name of a host"),
        ("ssh://a b", "no name of a host"),
        ("ssh://a;b", "no name of a host"),
        ("ssh://-l@host", "no name of a user"),
        ("ssh://@host", "no name of a user"),
        ("ssh://a%20b@host", "no name of a user"),
        ("ssh://me:secret@host", "a password in it is not used"),
        ("ssh://host:", "a port is a number from 1 to 65535"),
        ("ssh://host:0", "a port is a number"),
        ("ssh://host:65536", "a port is a number"),
        ("ssh://host:\uff12", "a port is a number"),
        ("ssh://host:22x", "a port is a number"),
        ("ssh://::1", "needs brackets"),
        ("ssh://[::g]", "no IPv6 address"),
        ("ssh://[host]", "no IPv6 address"),
        ("ssh://[fe80::1%25;x]", "no IPv6 address"),
        ("ssh://host/a?b", "are written `%3F` and `%23`"),
        ("ssh://host/a%0Ab", "a control character"),
        ("ssh://host/a%00b", "a control character"),
        ("docker://", "no name of a container"),
        ("docker://-it", "no name of a container"),
        ("docker://box/src", "no name of a container"),
        ("docker://box?x", "are written"),
        ("podman://box y", "no name of a container"),
        ("kubectl://", "no name of a pod"),
        ("kubectl://-it", "no name of a pod"),
        ("kubectl:///pod", "there is no namespace"),
        ("kubectl://Space/pod", "no name of a namespace"),
        ("kubectl://s/pod/-c", "no name of a container"),
        ("kubectl://s/pod/", "there is no container"),
        ("kubectl://s/p/c/d", "no name of a pod"),
    ],
)
async def test_a_name_that_is_none_is_refused_before_anything_starts(url: str, why: str) -> None:
    with pytest.raises(
        InvalidListenURLError, match=r"invalid (ssh|docker|podman|kubectl) --url `.*expected `"
    ) as caught:
        async with execsrv.connect(url):
            pass
    assert why in str(caught.value)


def test_commands() -> None:
    assert parse_exec("exec:ssh 'a b' execsrv serve") == ["ssh", "a b", "execsrv", "serve"]
    assert parse_exec("ssh://host") is None
    for url, why in {"exec:": "there is no command", "exec:a 'b": "no closing quotation"}.items():
        with pytest.raises(InvalidListenURLError, match=why):
            parse_exec(url)
    assert not is_reached("ws://host")


# -- the script --


@pytest.mark.parametrize("name", ["plain", "a b", "it's", '"quoted"', "$HOME", "back\\slash", "-n", "é", "*", "!x"])
def test_a_directory_of_any_name(tmp_path: Path, name: str) -> None:
    far = FarSide(tmp_path)
    far.has("execsrv", 'pwd; echo "$# $1"; exit 3')
    (tmp_path / name).mkdir()
    for directory in (f"{tmp_path}/{name}", f"~/{name}"):
        line = parse_shell("ssh://host").command(script(["serve", "a b"], directory, bring=True))[-1]
        assert "\n" not in line
        ran = subprocess.run(["sh", "-c", line], env=far.environment, capture_output=True, text=True)
        assert ran.returncode == 3, ran
        assert ran.stdout.splitlines() == ["", f"{SAID.decode()}there", f"{tmp_path}/{name}", "2 serve"]


def test_what_the_far_side_says() -> None:
    assert parse_answer(b"Welcome") is None
    assert parse_answer(SAID + b"there") == (True, None)
    assert parse_answer(SAID + b"nothing") == (False, None)
    assert parse_answer(SAID + b"python 3.9 .so 00") == (False, Facts("3.9", ".so", "00"))
    here = own_facts()
    assert why_not_brought(here, here) is None
    for there, why in [
        (Facts("3.9", ".cpython-39-x86_64-linux-gnu.so", "00"), "3.9, and execsrv needs 3.11 or later"),
        (Facts("x", "", ""), "it has Python x"),
        (Facts("3.99", ".cpython-399-aarch64-linux-gnu.so", "00"), r"3\.99 \(cpython-399-aarch64-linux-gnu\.so\)"),
        (here._replace(extensions=".cpython-311-x86_64-linux-musl.so"), "linux-musl"),
        (here._replace(magic="00"), "what could be brought along is for the one here"),
    ]:
        found = why_not_brought(there, here)
        assert found is not None
        assert re.search(why, found)


def test_why_there_is_no_way() -> None:
    assert why_no_way("ssh", 255, "x@y: Permission denied (publickey).").startswith("it takes none of our keys")
    assert why_no_way("ssh", 255, "") == "`ssh` ended with exit code 255 (it could not connect)"
    assert why_no_way("docker", 1, "") == "`docker` ended with exit code 1"
    assert why_no_way("docker", -9, "") == "`docker` died of signal 9"
    assert why_no_way("docker", None, "") == "`docker` did not get there in time"
    assert why_no_way("docker", 127, '"sh": executable file not found in $PATH').startswith("there is no shell")


# -- far sides --


@pytest.fixture(autouse=True)
def open_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a user who is not root see what the servers on this machine have open."""
    monkeypatch.setenv("EXECSRV_ALLOW_DEBUGGING", "true")


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FarSide:
    far = FarSide(tmp_path)
    monkeypatch.setenv("PATH", f"{far.near}:{os.environ['PATH']}")
    return far


@pytest.fixture
async def ssh_server(far: FarSide) -> AsyncIterator[SshServer]:
    server = SshServer(far)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        yield server
        nursery.cancel_scope.cancel()


@pytest.fixture(params=[pytest.param("ssh", marks=needs_sshd), *CONTAINERS])
async def url(request: pytest.FixtureRequest, far: FarSide) -> AsyncIterator[str]:
    """Every kind of place in turn: OpenSSH, and stand-ins for the others."""
    if request.param != "ssh":
        yield far.stand_in(request.param)
        return
    server = SshServer(far)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        yield server.url
        nursery.cancel_scope.cancel()


async def environment_there(client: execsrv.Client) -> dict[str, str]:
    result = await client.run(["cat", "/proc/self/environ"], check=True)
    return dict(line.split("=", 1) for line in result.stdout.decode().rstrip("\0").split("\0"))


@pytest.mark.few(2)
async def test_a_server_that_is_there(far: FarSide, url: str) -> None:
    far.has_execsrv()
    async with execsrv.connect(url, bring=False, config=PATIENT) as client:
        assert (await environment_there(client))["TMPDIR"] == str(far.temporary)
        result = await client.run(["cat"], input=bytes(range(256)) * 4096)
        assert result.stdout == bytes(range(256)) * 4096


@pytest.mark.parametrize("reconnect", [0, 1000])
async def test_settings_there_of_another_server(far: FarSide, reconnect: float) -> None:
    far.has_execsrv()
    configuration = far.folder / "another.toml"
    configuration.write_text('listen = "ws://127.0.0.1:0"\nweb = true\n')
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        taken.listen()
        far.environment |= {
            "EXECSRV_CONFIG": str(configuration),
            "EXECSRV_LISTEN": "ws://127.0.0.1:0",
            "EXECSRV_WEB": "true",
            "EXECSRV_METRICS_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}",
        }
        async with execsrv.connect(far.stand_in("docker"), reconnect=reconnect, config=PATIENT) as client:
            assert (await client.run(["sh", "-c", "exit 3"])).exit_code == 3


async def test_one_that_pip_has_put_where_nobody_looks(far: FarSide) -> None:
    far.has_execsrv(far.folder / ".local" / "bin")
    async with execsrv.connect(far.stand_in("docker"), bring=False, config=PATIENT) as client:
        assert (await client.run(["sh", "-c", "exit 3"])).exit_code == 3


@pytest.mark.few(2)
async def test_execsrv_is_brought_along_and_nothing_of_it_is_left(far: FarSide, url: str) -> None:
    far.has_python()
    async with execsrv.connect(url, config=PATIENT) as client:
        [folder] = far.temporary.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        result = await client.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
        async with client.start(["sh"], tty=True) as process:
            await process.write(b"exit 4\n")
            assert (await process.wait()).exit_code == 4
    assert not list(far.temporary.iterdir())


async def test_it_is_not_brought_where_that_is_not_wanted(far: FarSide, url: str) -> None:
    far.has_python()
    with pytest.raises(ConnectionFailedError, match=r"there is no execsrv in its PATH$"):
        async with execsrv.connect(url, bring=False, config=PATIENT):
            pass
    assert not list(far.temporary.iterdir())


async def test_there_is_neither(url: str) -> None:
    with pytest.raises(
        ConnectionFailedError, match=f"cannot reach `{url}`: there is no execsrv in its PATH, and no Python"
    ):
        async with execsrv.connect(url, config=PATIENT):
            pass


async def test_another_python(far: FarSide) -> None:
    far.has("python3", f'echo "{SAID.decode()}python 3.9 .cpython-39-x86_64-linux-gnu.so 610d0d0a"; cat >/dev/null')
    with pytest.raises(
        ConnectionFailedError, match=r"cannot be brought along: it has Python 3\.9.*install execsrv there"
    ):
        async with execsrv.connect(far.stand_in("podman"), config=PATIENT):
            pass


async def test_greetings_are_passed_over(far: FarSide) -> None:
    far.has_execsrv()
    far.stand_in("docker")
    stand_in = far.near / "docker"
    stand_in.write_text(stand_in.read_text().replace("exec env", "echo Welcome; printf 'no line end {'; exec env"))
    async with execsrv.connect("docker://box", config=PATIENT) as client:
        assert (await client.run(["sh", "-c", "exit 3"])).exit_code == 3


async def test_a_greeting_without_an_end(far: FarSide) -> None:
    far.has("docker", "while :; do echo Welcome; done", far.near)
    with pytest.raises(ConnectionFailedError, match="cannot reach `docker://box`"):
        async with execsrv.connect("docker://box", config=PATIENT):
            pass


async def test_a_place_that_says_nothing(far: FarSide) -> None:
    far.has("docker", "exec sleep 1000", far.near)
    with pytest.raises(ConnectionFailedError, match="`docker` did not get there in time"):
        async with execsrv.connect("docker://box", config=ClientConfig(handshake_timeout=0.2)):
            pass


async def test_a_server_that_fails_tells_why(far: FarSide) -> None:
    far.has("execsrv", "echo 'ImportError: something' >&2; exit 1")
    with pytest.raises(ConnectionFailedError, match='exit code 1; it said "ImportError: something"'):
        async with execsrv.connect(far.stand_in("docker"), config=PATIENT):
            pass


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("docker://other", 'there is no such container; it said "Error response from daemon: No such container: other'),
        ("kubectl://space/other/part", 'it is not there; it said "Error from server \\(NotFound\\)'),
    ],
)
async def test_a_container_that_is_not_there(far: FarSide, url: str, why: str) -> None:
    far.stand_in(url.partition(":")[0])
    with pytest.raises(ConnectionFailedError, match=f"cannot reach `{url}`: {why}"):
        async with execsrv.connect(url, config=PATIENT):
            pass


async def test_the_server_there_says_nothing_of_its_start(far: FarSide, capfd: pytest.CaptureFixture[str]) -> None:
    far.stand_in("docker")
    far.has_execsrv()
    async with execsrv.connect("docker://box", config=PATIENT) as client:
        await client.run(["sh", "-c", "exit 3"])
    assert capfd.readouterr() == ("", "")


async def test_a_place_without_room_for_it_says_so_in_one_line(far: FarSide) -> None:
    far.has_python()
    url = far.stand_in("docker")
    docker = far.near / "docker"
    docker.write_text(docker.read_text().replace("exec env", "ulimit -f 8; exec env"))
    with pytest.raises(
        ConnectionFailedError, match=r"cannot use execsrv in \S+ \(another TMPDIR may do\): .*File too large"
    ):
        async with execsrv.connect(url, config=PATIENT):
            pass
    assert not os.listdir(far.temporary)


async def test_a_program_that_is_not_there(far: FarSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(far.near))
    with pytest.raises(ConnectionFailedError, match=r"^cannot find `podman` in PATH$"):
        async with execsrv.connect("podman://box"):
            pass


async def test_any_command() -> None:
    command = shlex.join([sys.executable, "-m", "execsrv", "serve"])
    async with execsrv.connect(f"exec:{command}", config=PATIENT) as client:
        assert (await client.run(["sh", "-c", "exit 3"])).exit_code == 3


async def test_the_command_line_reaches_them_too(far: FarSide) -> None:
    far.has_python()
    argv = [sys.executable, "-m", "execsrv", "run", "--url", far.stand_in("docker"), "--", "sh", "-c", "cat; exit 3"]
    ran = await trio.run_process(argv, stdin=b"input", capture_stdout=True, capture_stderr=True, check=False)
    assert (ran.returncode, ran.stdout) == (3, b"input"), ran.stderr


# -- ssh --


@needs_sshd
async def test_a_directory_by_ssh(far: FarSide, ssh_server: SshServer) -> None:
    far.has_execsrv()
    place = far.folder / "it's a place"
    place.mkdir()
    async with execsrv.connect(f"{ssh_server.url}{str(place).replace(' ', '%20')}", config=PATIENT) as client:
        result = await client.run(["sh", "-c", "pwd"])
        assert result.stdout.decode() == f"{place}\n"
    with pytest.raises(ConnectionFailedError, match=r"can't cd to .*/nowhere|cd: .*/nowhere: No such file"):
        async with execsrv.connect(f"{ssh_server.url}{far.folder}/nowhere", config=PATIENT):
            pass


@needs_sshd
@pytest.mark.parametrize(
    ("known", "used", "why"),
    [
        (
            None,
            "user",
            'its host key is not known here: connect once with `ssh` yourself; it said ".*verification failed',
        ),
        ("stranger", "user", "its host key"),
        (
            "host",
            "stranger",
            'it takes none of our keys, and nothing here can ask for a password; it said ".*Permission denied',
        ),
    ],
)
async def test_keys_that_do_not_fit(ssh_server: SshServer, known: str | None, used: str, why: str) -> None:
    ssh_server.knows(known)
    ssh_server.uses(used)
    with pytest.raises(ConnectionFailedError, match=f"cannot reach `{ssh_server.url}`: {why}"):
        async with execsrv.connect(ssh_server.url, config=PATIENT):
            pass


@needs_sshd
async def test_hosts_that_are_not_there(ssh_server: SshServer) -> None:
    with trio.socket.socket() as taken:  # a port on which nobody listens
        await taken.bind(("127.0.0.1", 0))
        refused = f"ssh://127.0.0.1:{taken.getsockname()[1]}"
        for url, why in {refused: "it refuses the connection", "ssh://no.such.invalid": "cannot be resolved"}.items():
            with pytest.raises(ConnectionFailedError, match=why):
                async with execsrv.connect(url, config=PATIENT):
                    pass


def ssh_below() -> list[int]:
    """The ssh processes that this one has started."""
    return [pid for pid in proc.children(os.getpid()) if proc.name(pid) == "ssh"]


@needs_sshd
@pytest.mark.parametrize("brought", [False, True])
async def test_when_ssh_dies_nothing_is_left_there(far: FarSide, ssh_server: SshServer, brought: bool) -> None:
    mark = new_mark()
    if brought:
        far.has_python()
    else:
        far.has_execsrv()
    line = f"setsid bash -c 'exec -a {mark} sleep 1000' & exec -a {mark} sleep 1000"
    with pytest.raises(ConnectionLostError):
        async with (
            execsrv.connect(ssh_server.url, config=PATIENT) as client,
            client.start(["bash", "-c", line]) as process,
        ):
            await until_marked(mark, 2)
            for pid in ssh_below():
                os.kill(pid, signal.SIGKILL)
            await process.wait()
    await until_gone(mark)
    with trio.fail_after(PATIENCE):
        while list(far.temporary.iterdir()):  # noqa: ASYNC110  # nothing tells
            await trio.sleep(0.01)


# -- cuts --

LINES = 3000  # of 1000 bytes: more than all windows, so that the command is held up until they are read
PRINT = f"for ((i = 0; i < {LINES}; i++)); do printf '%0999d\\n' $i; done; read line; echo $line"


def leading(parent: int | None = None) -> list[int]:
    """The programs that lead to a far side, by their stdin: below this process or another one."""
    found = []
    for pid in proc.children(parent or os.getpid()):
        with suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/0").startswith("pipe:"):
                found.append(pid)
    return found


def cut(parent: int | None = None) -> bool:
    """Kill the program that leads to the far side. Return False where the last cut is not mended yet."""
    found = leading(parent)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    assert len(found) <= 1
    return bool(found)


def left(folder: Path) -> list[object]:
    """All that is left of a far side: its processes, and its files."""
    return [*living(folder), *folder.iterdir()]


def open_files(pid: int) -> set[str]:
    """The files that a process has open, by what they are."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(path))
    return found


def living(folder: Path) -> list[int]:
    """Every process that has this as its folder for temporary files."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and f"TMPDIR={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


async def until_nothing_is_left(folder: Path) -> None:
    """Wait until no process and no file is left of a far side."""
    with trio.fail_after(PATIENCE):
        while left(folder):  # noqa: ASYNC110  # nothing tells
            await trio.sleep(0.01)


async def check_cuts(client: execsrv.Client, cut: Callable[[], bool]) -> None:
    """Read exactly what a command prints, with cuts in the middle, and write to it behind another one."""
    cuts = [100, 1200, 2200]
    async with client.start(["bash", "-c", PRINT], stdin=True) as process:
        seen = bytearray()
        while len(seen) < 1000 * LINES:
            if cuts and len(seen) > 1000 * cuts[0] and cut():
                del cuts[0]
            seen += await process.stdout.receive_some()
        while not cut():  # noqa: ASYNC110  # nothing tells
            await trio.sleep(0.01)
        await process.write(b"end\n")
        while data := await process.stdout.receive_some():
            seen += data
        assert seen.decode().split() == [*(f"{i:0999d}" for i in range(LINES)), "end"]
        assert (await process.wait()).exit_code == 0


@pytest.mark.few(2)
@pytest.mark.parametrize("brought", [pytest.param(False, marks=pytest.mark.slow), True])
async def test_cuts_lose_nothing_and_leave_nothing(far: FarSide, url: str, brought: bool) -> None:
    if brought:
        far.has_python()
    else:
        far.has_execsrv()
    async with execsrv.connect(url, reconnect=1000, bring=brought, config=PATIENT) as client:
        [folder] = far.temporary.iterdir()
        await check_cuts(client, cut)
        assert list(far.temporary.iterdir()) == [folder]
    assert not left(far.temporary)  # at once, long before the grace is over


@pytest.mark.parametrize("brought", [False, True])
async def test_a_cut_when_nothing_can_be_written_there(far: FarSide, brought: bool) -> None:
    if brought:
        far.has_python()
    else:
        far.has_execsrv()
    url = far.stand_in("docker")
    argv = ["bash", "-c", "read line; echo $line"]
    async with (
        execsrv.connect(url, reconnect=PATIENCE, config=PATIENT) as client,
        client.start(argv, stdin=True) as process,
    ):
        stand_in = far.near / "docker"
        stand_in.write_text(stand_in.read_text().replace("exec env", "ulimit -f 0; exec env"))  # as on a full disk
        assert cut()
        await process.write(b"end\n")
        assert await anext(process.lines()) == "end"
    assert not left(far.temporary)


async def test_a_cut_costs_nothing_where_the_directory_was_renamed_meanwhile(far: FarSide) -> None:
    far.has_execsrv()
    place = far.folder / "place"
    place.mkdir()
    with trio.fail_after(PATIENCE):
        async with (
            execsrv.connect(f"{far.stand_in_for_ssh()}{place}", reconnect=60, config=PATIENT) as client,
            client.start(["cat"], stdin=True) as process,
        ):
            place.rename(far.folder / "other")
            assert cut()
            await process.write(b"go on\n")
            await process.close_stdin()
            assert (await process.communicate()).stdout == b"go on\n"


@pytest.mark.few(2)
async def test_leaving_in_the_middle_of_output_ends_the_server_at_once(far: FarSide, url: str) -> None:
    far.has_execsrv()
    argv = ["bash", "-c", "while :; do printf '%0999d\\n' 1; done"]
    with trio.CancelScope() as scope:
        async with execsrv.connect(url, reconnect=math.inf, config=PATIENT) as client, client.start(argv) as process:
            await process.stdout.receive_some()
            assert cut()
            seen = 0
            while seen < 1000 * LINES:  # more than had arrived: we are back
                seen += len(await process.stdout.receive_some())
            scope.cancel()
    assert not left(far.temporary)


@pytest.mark.slow  # half a minute
async def test_a_server_that_no_client_has_come_to_ends(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "execsrv", "bridge", "name", "1000"]
    await trio.run_process(argv, stdin=b"", env=os.environ | {"TMPDIR": str(tmp_path)})
    assert left(tmp_path)
    await until_nothing_is_left(tmp_path)


@pytest.mark.few(2)
@pytest.mark.parametrize("brought", [False, True])
async def test_when_nobody_comes_back_nothing_is_left(far: FarSide, url: str, brought: bool) -> None:
    mark = new_mark()
    if brought:
        far.has_python()
    else:
        far.has_execsrv()
    line = f"setsid bash -c 'exec -a {mark} sleep 1000' & exec -a {mark} sleep 1000"
    with pytest.raises(ConnectionLostError, match=r"no way back within 0\.5 s"):
        async with (
            execsrv.connect(url, reconnect=0.5, config=PATIENT) as client,
            client.start(["bash", "-c", line]) as process,
        ):
            await until_marked(mark, 2)
            far.has(url.partition(":")[0], "exit 255", far.near)
            assert cut()
            await process.wait()
    await until_gone(mark)
    await until_nothing_is_left(far.temporary)


async def test_two_clients_have_a_server_each_that_nobody_else_finds(far: FarSide) -> None:
    far.has_execsrv()
    url = far.stand_in("docker")
    async with execsrv.connect(url, reconnect=1000, config=PATIENT):
        async with execsrv.connect(url, reconnect=1000, config=PATIENT) as other:
            folders = list(far.temporary.iterdir())
            assert len(folders) == 2
            for folder in folders:
                assert folder.stat().st_mode & 0o777 == 0o700
                assert (folder / "socket").stat().st_mode & 0o777 == 0o600
            bridges = leading()
            taken = {os.readlink(f"/proc/{pid}/fd/{number}") for pid in bridges for number in range(3)}
            for server in set(living(far.temporary)) - set(bridges):
                assert not taken & open_files(server)
            assert (await other.run(["sh", "-c", "exit 3"])).exit_code == 3
        assert len(list(far.temporary.iterdir())) == 1
    assert not living(far.temporary)


@pytest.mark.parametrize("taken", ["open", "link", "file"])
async def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, taken: str) -> None:
    folder = tmp_path / "execsrv-name"
    if taken == "open":
        folder.mkdir(mode=0o755)
    elif taken == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.touch()
    argv = [sys.executable, "-m", "execsrv", "bridge", "name", "1000"]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    ran = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False, env=env)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert f"cannot use {folder}: ".encode() in ran.stderr
    assert not living(tmp_path)


async def test_a_command_that_leads_to_the_same_server_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = shlex.join([sys.executable, "-m", "execsrv", "bridge", "name", "1000"])
    async with execsrv.connect(f"exec:{command}", reconnect=PATIENCE, config=PATIENT) as client:
        await check_cuts(client, cut)
    assert not left(tmp_path)


async def test_a_command_that_leads_to_another_server_is_a_lost_connection() -> None:
    command = shlex.join([sys.executable, "-m", "execsrv", "serve"])
    with pytest.raises(ConnectionLostError, match="unknown session"):
        async with (
            execsrv.connect(f"exec:{command}", reconnect=PATIENCE, config=PATIENT) as client,
            client.start(["sleep", "1000"]) as process,
        ):
            [pid] = [pid for pid in proc.children(os.getpid()) if proc.name(pid).startswith("python")]
            os.kill(pid, signal.SIGKILL)
            await process.wait()


@pytest.mark.slow
async def test_the_command_line_survives_a_cut(far: FarSide) -> None:
    far.has_python()
    argv = [sys.executable, "-m", "execsrv", "run", "--url", far.stand_in("docker"), "--reconnect", "1000", "--"]
    async with open_helpers() as nursery:
        ran = await nursery.start(
            partial(trio.run_process, [*argv, "bash", "-c", PRINT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        seen = bytearray()
        seen += await ran.stdout.receive_some()
        assert cut(ran.pid)
        while len(seen) < 1000 * LINES:
            seen += await ran.stdout.receive_some()
        await ran.stdin.send_all(b"end\n")
        while data := await ran.stdout.receive_some():
            seen += data
        assert seen.decode().split() == [*(f"{i:0999d}" for i in range(LINES)), "end"]
        assert await ran.wait() == 0
    assert not left(far.temporary)


async def test_the_command_line_brings_nothing_where_that_is_not_wanted(far: FarSide) -> None:
    far.has_python()
    argv = [sys.executable, "-m", "execsrv", "run", "--no-bring", "--url", far.stand_in("docker"), "--", "true"]
    ran = await trio.run_process(argv, stdin=b"", capture_stdout=True, capture_stderr=True, check=False)
    assert (ran.returncode, ran.stdout) == (125, b"")
    assert b"there is no execsrv in its PATH" in ran.stderr


@needs_sshd
async def test_a_cut_of_which_the_far_side_does_not_hear(far: FarSide, ssh_server: SshServer) -> None:
    far.has_execsrv()
    silent: list[int] = []

    def silence() -> bool:
        """Stop what serves ssh, as a network does that has gone, and end the program here."""
        for pid in below(os.getpid()):
            if proc.name(pid).startswith("sshd") and pid not in silent:
                os.kill(pid, signal.SIGSTOP)
                silent.append(pid)
        return cut()

    try:
        async with execsrv.connect(ssh_server.url, reconnect=PATIENCE, config=PATIENT) as client:
            await check_cuts(client, silence)
    finally:
        for pid in silent:
            os.kill(pid, signal.SIGCONT)
    await until_nothing_is_left(far.temporary)


def below(pid: int) -> list[int]:
    """All that descends from a process."""
    children = list(proc.children(pid))
    return [*children, *(further for child in children for further in below(child))]
