"""Commands that run as another user: with that one's rights, on its own pipes and terminal, and ended as any other."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execsrv import ServerConfig
from execsrv._processes.accounts import account_of
from execsrv.errors import InvalidParamsError
from tests.confined import needs_confinement
from tests.conftest import OpenServer
from tests.faults.daemon import connected, running_daemon
from tests.peers import PATIENCE
from tests.processes import may_become_nobody, new_mark, until_gone, until_marked
from tests.test_confine_policy import ROOT, entry, files

NOBODY = pwd.getpwnam("nobody")
EVERYTHING = {"inherit": "all", "ignoreDefaultExcludes": True, "exclude": [], "set": {}, "includeOnly": []}
WHO = """
id -u; id -g; id -G; echo $HOME $USER $LOGNAME $SHELL; echo again > /dev/stdout
test -w /etc/passwd || echo no more than that
"""
READ_ONLY = files(ROOT)
EXECSRV = [sys.executable, "-m", "execsrv"]

needs_root = pytest.mark.skipif(not may_become_nobody(), reason="only root may run commands as another user")


@needs_root
@pytest.mark.parametrize("user", ["nobody", str(NOBODY.pw_uid)])
@pytest.mark.parametrize("tty", [False, True])
async def test_a_command_has_the_rights_of_its_user(open_server: OpenServer, tty: bool, user: str) -> None:
    peer = await open_server("memory", ServerConfig()).peer()
    groups = " ".join(map(str, os.getgrouplist("nobody", NOBODY.pw_gid)))
    done = await peer.run("a", ["sh", "-c", WHO], tty=tty, user=user, envPolicy=EVERYTHING)
    assert done[1].decode().split("\r\n" if tty else "\n") == [
        str(NOBODY.pw_uid),
        str(NOBODY.pw_gid),
        groups,
        f"{NOBODY.pw_dir} nobody nobody {NOBODY.pw_shell}",
        "again",
        "no more than that",
        "",
    ]
    done = await peer.run("b", ["sh", "-c", "echo $HOME"], user=user, envPolicy=EVERYTHING, env={"HOME": "/mine"})
    assert done[1] == b"/mine\n"


@needs_root
@pytest.mark.parametrize("who", [{"user": "nobody"}, pytest.param({"sandbox": "hidden"}, marks=needs_confinement)])
async def test_what_it_may_not_run_is_passed_over_in_the_path(
    open_server: OpenServer, tmp_path: Path, who: dict[str, Any]
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy("/bin/false", closed / "true")
    if "sandbox" in who:
        who = {"sandbox": files(ROOT, entry(closed, "none"))}
    peer = await open_server("memory", ServerConfig()).peer()
    done = await peer.run("a", ["true"], env={"PATH": f"{closed}:/usr/bin:/bin"}, **who)
    assert done[0] == 0
    only = peer.start_params("b", ["true"], env={"PATH": str(closed)}, **who)
    _, message, data = await peer.refused("process/start", only)
    assert (data["kind"], data["stage"]) == ("spawnPermissionDenied", "permission")
    assert f"{closed}/true" in message


@needs_root
async def test_all_that_it_starts_ends_with_it(open_server: OpenServer) -> None:
    peer = await open_server("memory", ServerConfig()).peer()
    mark = new_mark()
    script = f"(setsid bash -c 'trap \"\" TERM; exec -a {mark} sleep 1000' &); sleep 1000"
    await peer.start("a", ["bash", "-c", script], user="nobody")
    await until_marked(mark, 1)
    await peer.call("process/terminate", {"processId": "a"})
    await until_gone(mark)


async def test_ones_own_user_is_nothing_to_take_on(open_server: OpenServer) -> None:
    peer = await open_server("memory", ServerConfig()).peer()
    own = pwd.getpwuid(os.geteuid())
    for user in (own.pw_name, str(own.pw_uid)):
        assert (await peer.run(user, ["id", "-u"], user=user))[1] == f"{own.pw_uid}\n".encode()


@needs_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="not here: setpriv")
async def test_a_user_that_cannot_be_taken_on_is_named(tmp_path: Path) -> None:
    prefix = ["setpriv", "--bounding-set", "-setuid,-setgid"]
    with running_daemon(tmp_path, "unix", prefix=prefix) as daemon:
        async with connected(daemon.url) as peer:
            start = peer.start_params("a", ["true"], user="nobody")
            code, message, data = await peer.refused("process/start", start)
            assert (code, data["kind"], data["stage"]) == (-32603, "spawnFailed", "permission")
            assert "with user nobody" in message


@pytest.mark.parametrize(
    "user", ["no such user", "", "a\0b", "99999999999", "-1", "٣", "root:no such group", "x" * 256]
)
async def test_a_user_that_is_not_there_is_refused(open_server: OpenServer, user: str) -> None:
    peer = await open_server("memory", ServerConfig()).peer()
    code, message, data = await peer.refused("process/start", peer.start_params("a", ["true"], user=user))
    assert (code, data) == (-32602, {"kind": "invalid-params", "field": "user"})
    assert "there is no user" in message
    with pytest.raises(InvalidParamsError):
        account_of(user)


@needs_root
def test_run_as_a_user_here_and_there(tmp_path: Path) -> None:
    with running_daemon(tmp_path, "unix") as daemon:
        for where in ([], ["--url", daemon.url]):
            done = subprocess.run(
                [*EXECSRV, "run", *where, "--user", "nobody", "-e", "SHELL=/mine", "--", "sh", "-c", WHO],
                capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            lines = done.stdout.splitlines()
            assert (lines[0], lines[3]) == (str(NOBODY.pw_uid), f"{NOBODY.pw_dir} nobody nobody /mine")
            assert lines[-1] == "no more than that"
            assert ("again" in lines) == bool(where)  # our own pipes are not given away
            done = subprocess.run(
                [*EXECSRV, "run", *where, "--user", "no such user", "true"],
                capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
            assert (done.returncode, done.stdout) == (125, "")
            assert done.stderr.startswith("execsrv: user: there is no user 'no such user' on this machine")


@pytest.fixture
def repositories() -> Iterator[Path]:
    """One with a worktree beside it, and two of somebody else, of which one is in it."""
    with tempfile.TemporaryDirectory() as name:  # others find no way into those of pytest
        folder = Path(name)
        folder.chmod(0o755)
        as_author = ["-c", "user.name=A", "-c", "user.email=a@b"]
        for argv in (
            ["init", "-q", "main"],
            ["-C", "main", *as_author, "commit", "-q", "--allow-empty", "-m", "first"],
            ["-C", "main", "worktree", "add", "-q", "../beside"],
            ["init", "-q", "others"],
            ["init", "-q", "main/below/theirs"],
        ):
            subprocess.run(["git", *argv], cwd=folder, check=True, capture_output=True)
        for theirs in (folder / "others", folder / "main/below/theirs"):
            for path in (theirs, *theirs.rglob("*")):
                os.chown(path, NOBODY.pw_uid + 1, -1)
        (folder / "main/deep/down").mkdir(parents=True)
        yield folder


@needs_root
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("sandbox", [None, pytest.param(READ_ONLY, marks=needs_confinement)], ids=["free", "confined"])
async def test_git_works_in_a_repository_of_the_server_and_in_no_other(
    open_server: OpenServer, repositories: Path, sandbox: dict[str, Any] | None
) -> None:
    peer = await open_server("memory", ServerConfig()).peer()
    script = "git log --format=%s; git config --get-all safe.directory; git config a.b"
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": "given"}
    said = {}
    for number, place in enumerate(["main", "main/deep/down", "beside", "others", "main/below/theirs"]):
        params: dict[str, Any] = {"user": "nobody", "envPolicy": EVERYTHING, "env": given, "sandbox": sandbox}
        params["cwd"] = str(repositories / place)
        _, out, err = await peer.run(f"{number}", ["sh", "-c", script], **params)
        said[place] = out.decode().split(), b"dubious ownership" in err
    for place in ("main", "main/deep/down", "beside"):
        root = repositories / place.partition("/")[0]
        assert said[place] == (["first", str(root), "given"], False), place
    for place in ("others", "main/below/theirs"):
        assert said[place] == (["given"], True), place
    exact = {"user": "nobody", "cwd": str(repositories / "main"), "env": {"PATH": os.environ["PATH"]}}
    _, out, _ = await peer.run("exact", ["env"], **exact)
    assert out == f"PATH={os.environ['PATH']}\n".encode()


@needs_root
@pytest.mark.parametrize("sandbox", [None, pytest.param(READ_ONLY, marks=needs_confinement)], ids=["free", "confined"])
async def test_a_group_that_is_asked_for_is_the_only_one(
    open_server: OpenServer, sandbox: dict[str, Any] | None
) -> None:
    peer = await open_server("memory", ServerConfig()).peer()
    daemon = grp.getgrnam("daemon").gr_gid
    for number, user in enumerate(["nobody:daemon", f"{NOBODY.pw_uid}:{daemon}", "root:daemon"]):
        done = await peer.run(f"{number}", ["sh", "-c", "id -u; id -g; id -G"], user=user, sandbox=sandbox)
        uid = 0 if user.startswith("root") else NOBODY.pw_uid
        assert done[1].split() == [str(found).encode() for found in (uid, daemon, daemon)], user
    for user in ("nobody:", ":daemon", "nobody:no such group", "nobody:daemon:x"):
        _, message, data = await peer.refused("process/start", peer.start_params("x", ["true"], user=user))
        assert (data["kind"], data["field"]) == ("invalid-params", "user")
        assert message == f"user: there is no user and group {user!r} on this machine"
