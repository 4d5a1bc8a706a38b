"""Whose a unix socket is: a client that goes to no other user's server, and a server that no other user can replace."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import execsrv
from execsrv import ClientConfig, ConnectionFailedError
from execsrv._wire.owners import default_socket, open_private_directory
from execsrv._wire.unix import listening
from execsrv.limits import CLIENT_DEFAULTS
from tests.test_daemon import daemon
from tests.test_daemon import execsrv as run_execsrv

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

LISTEN_AS = """
import os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(path)
    os.chmod(path, 0o666)
    os.setuid(uid)
    listener.listen()
    print("listening", flush=True)
    sys.stdin.read()
"""


@contextmanager
def listening_as(uid: int, path: Path) -> Iterator[None]:
    """A socket of ours, by its file, that another user listens on."""
    argv = [sys.executable, "-c", LISTEN_AS, str(path), str(uid)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield
        process.kill()


async def refused(path: Path | str, config: ClientConfig = CLIENT_DEFAULTS) -> str:
    """The reason for which a client does not connect."""
    with pytest.raises(ConnectionFailedError) as caught:
        async with execsrv.connect(f"unix://{path}", config=config):
            pass
    return str(caught.value)


# -- the client --


@as_root
async def test_a_server_of_another_user_is_refused_before_a_word(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening_as(NOBODY, path):
        assert await refused(path) == f"cannot connect to `{path}`: another user (uid {NOBODY}) listens there"


@as_root
async def test_a_server_of_another_user_may_be_trusted(tmp_path: Path) -> None:
    """It is not refused: it never answers."""
    path = tmp_path / "s"
    config = ClientConfig(server_uids=(NOBODY,), handshake_timeout=0.05)
    with listening_as(NOBODY, path):
        assert "0.05 s" in await refused(path, config)


@as_root
async def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(f"{folder}/s")
        ours.listen()
        assert f"its directory belongs to another user (uid {NOBODY})" in await refused(folder / "s")
        trusting = ClientConfig(server_uids=(NOBODY,), handshake_timeout=0.05)
        assert "0.05 s" in await refused(folder / "s", trusting)


async def test_a_directory_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(f"{tmp_path}/s")
        ours.listen()
        os.chmod(tmp_path, 0o777)
        assert "every user may remove what is in its directory" in await refused(tmp_path / "s")
        os.chmod(tmp_path, 0o1777)
        assert "0.05 s" in await refused(tmp_path / "s", ClientConfig(handshake_timeout=0.05))


@as_root
def test_a_server_of_root_is_trusted_by_everybody(tmp_path: Path) -> None:
    """A system's daemon serves its users, and root may do all anyway."""
    script = (
        "import os, socket\n"
        "from execsrv._wire.owners import check_directory, check_listener\n"
        f"os.setuid({NOBODY})\n"
        "check_directory('s')\n"
        "with socket.socket(socket.AF_UNIX) as connection:\n"
        "    connection.connect('s')\n"
        "    check_listener(connection)\n"
    )
    tmp_path.chmod(0o755)
    with listening_as(0, tmp_path / "s"):
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=60, check=True)


# -- the server --


@as_root
def test_a_server_listens_in_no_directory_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    done = run_execsrv("serve", "--listen", f"unix://{tmp_path}/s")
    complaint = f"cannot listen on unix://{tmp_path}/s: its directory belongs to another user (uid {NOBODY})"
    assert (done.returncode, done.stderr) == (1, f"execsrv: {complaint}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_server_listens_in_no_directory_that_everybody_may_change(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = run_execsrv("serve", "--listen", f"unix://{tmp_path}/s")
    assert (done.returncode, "every user may remove what is in its directory" in done.stderr) == (1, True)
    tmp_path.chmod(0o1777)
    with daemon(f"unix://{tmp_path}/s") as (_, url):
        assert run_execsrv("run", "--url", url, "--", "echo", "hi").stdout == "hi\n"


@as_root
def test_a_lock_of_another_user_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "s.lock").write_text("")
    os.chown(tmp_path / "s.lock", NOBODY, NOBODY)
    done = run_execsrv("serve", "--listen", f"unix://{tmp_path}/s")
    assert (done.returncode, f"the lock `{tmp_path}/s.lock` belongs to another user" in done.stderr) == (1, True)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_a_socket_is_private_from_its_first_moment_under_every_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with listening(f"{tmp_path}/s") as (_, path, _):
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["nothing", "file", "stale", "socket"])
def test_a_link_in_the_place_of_a_socket_is_neither_followed_nor_removed(target: str, tmp_path: Path) -> None:
    """What it leads to stays as it is, with its mode."""
    aim, link = tmp_path / "aim", tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        if target == "file":
            aim.write_text("precious")
        elif target != "nothing":
            other.bind(str(aim))
            if target == "socket":
                other.listen()
        if target != "nothing":
            aim.chmod(0o640)
        link.symlink_to(aim)
        with pytest.raises(FileExistsError, match="is not a socket"), listening(str(link)):
            pass
        assert os.readlink(link) == str(aim)
        if target != "nothing":
            assert stat.S_IMODE(aim.lstat().st_mode) == 0o640


# -- the default --


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's runtime directory."""
    folder = tmp_path / "run"
    folder.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def test_the_default_socket_is_in_the_runtime_directory(runtime: Path) -> None:
    with daemon("unix://") as (process, url):
        assert url == f"unix://{runtime}/execsrv/socket"
        assert stat.S_IMODE((runtime / "execsrv").stat().st_mode) == 0o700
        assert run_execsrv("run", "--url", "unix://", "--", "echo", "hi").stdout == "hi\n"
        second = run_execsrv("serve", "--listen", "unix://")
        assert (second.returncode, "another server listens there" in second.stderr) == (1, True)
        process.terminate()
        assert process.wait(60) == 0
    assert list((runtime / "execsrv").iterdir()) == []


def test_the_default_socket_is_in_no_directory_that_others_may_enter(runtime: Path) -> None:
    (runtime / "execsrv").mkdir()
    (runtime / "execsrv").chmod(0o755)
    done = run_execsrv("serve", "--listen", "unix://")
    complaint = f"cannot listen on unix://: others may enter `{runtime}/execsrv`"
    assert (done.returncode, done.stderr) == (1, f"execsrv: {complaint}\n")


def test_the_default_directory_is_no_link(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    (runtime / "execsrv").symlink_to(tmp_path / "elsewhere")
    done = run_execsrv("serve", "--listen", "unix://")
    assert (done.returncode, "cannot listen on unix://: " in done.stderr) == (1, True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@as_root
def test_a_runtime_directory_of_another_user_is_passed_over(runtime: Path) -> None:
    """`sudo` may leave the variable of whoever called it."""
    assert default_socket() == f"{runtime}/execsrv/socket"
    os.chown(runtime, NOBODY, NOBODY)
    assert not default_socket().startswith(str(runtime))


@as_root
def test_a_private_directory_is_not_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(0o700)
    os.chown(tmp_path / "a", NOBODY, NOBODY)
    with pytest.raises(PermissionError, match="others may enter"):
        open_private_directory(f"{tmp_path}/a")


@as_root
def test_a_socket_for_other_users_may_be_in_their_directory(tmp_path: Path) -> None:
    """They act as this user: it is no secret from them. Everybody may open it, and is looked at then."""
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match="belongs to another user"), listening(f"{tmp_path}/s", [NOBODY - 1]):
        pass
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            with listening(f"{tmp_path}/s", [NOBODY]) as (_, path, _):
                assert stat.S_IMODE(os.lstat(path).st_mode) == 0o666
        finally:
            os.umask(before)
