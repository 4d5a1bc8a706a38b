"""Confined commands on the command line: `run`, here and through a server, and what `doctor` says of it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from execsrv._processes.confine.layers import Means
from execsrv._processes.confine.start import means_without_view
from execsrv._processes.confine.syscalls import NUMBERS
from tests import deny
from tests.confined import needs_confinement
from tests.test_daemon import daemon

EXECSRV = [sys.executable, "-m", "execsrv"]


def run(*words: str, before: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*before, *EXECSRV, *words], capture_output=True, text=True, **more)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(params=["here", "there"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Options by which a command runs here, or on a server."""
    if request.param == "here":
        return []
    url: str = request.getfixturevalue("server_url")
    return ["--url", url]


@pytest.fixture
def server_url(tmp_path: Path):  # type: ignore[no-untyped-def]
    with daemon(f"unix://{tmp_path}/s") as (_, url):
        yield url


@pytest.mark.few
@needs_confinement
def test_each_option_takes_something_away(place: list[str], tmp_path: Path) -> None:
    work, secret = tmp_path / "work", tmp_path / "secret"
    work.mkdir()
    secret.write_text("secret\n")
    script = f"touch {work}/x && echo wrote; cat {secret}; touch /var/tmp/x 2>/dev/null && rm /var/tmp/x && echo all"
    socket = f"{sys.executable} -c 'import socket; socket.socket()' 2>/dev/null && echo net"
    for options, expected in {
        ("--sandbox", "workspace-write"): "wrote secret net",
        ("--sandbox", f"workspace-write:{work}", "--no-network"): "wrote secret",
        ("--read-only",): "secret net",
        ("--sandbox", "read-only", "--no-network"): "secret",
        ("--no-network",): "wrote secret all",
        ("--hide", str(secret)): "wrote all net",
    }.items():
        words = ["sh", "-c", f"{script}; {socket}; exit 3"]
        done = run("run", *place, "--cwd", str(work), "--quiet", *options, "--", *words)
        assert (done.returncode, done.stdout.split()) == (3, expected.split()), (options, done.stderr)


def test_options_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    for options, word in {
        ("--sandbox", "strict"): "invalid --sandbox `strict`; expected `read-only` or `workspace-write[:DIR]`",
        ("--read-only", "--leave"): "cannot use --leave for a command that is confined",
        ("--read-only", "--pass-fd", "0"): "cannot use --pass-fd for a command that is confined",
        ("--read-only", "--sandbox", "workspace-write"): "cannot use --read-only with --sandbox workspace-write",
        ("--or-landlock",): "--or-landlock is about a policy: add --sandbox, --read-only, --no-network or --hide",
    }.items():
        done = run("run", *options, "--", "touch", f"{tmp_path}/ran")
        assert (done.returncode, done.stderr) == (125, f"execsrv: {word}\n")
    assert not (tmp_path / "ran").exists()


DENIED = {
    "unshare": ("272", 1),
    "landlock_create_ruleset": ("444", 38),
    "seccomp": ("317", 1),
    "mount_setattr": ("442", 38),
    "open_tree": ("428", 1),
}
"""Calls without which nothing is confined, each with the error that it is answered with."""


@pytest.mark.few
@needs_confinement
@pytest.mark.parametrize("call", DENIED)
def test_where_a_step_is_refused_so_is_the_command(call: str) -> None:
    number, error = DENIED[call]
    before = (sys.executable, deny.__file__, str(error), number)
    if subprocess.run([*before, "true"], check=False).returncode:
        pytest.skip("system calls cannot be refused here")
    done = run("run", "--read-only", "--", "sh", "-c", "echo ran", before=before)
    assert (done.returncode, done.stdout) == (125, "")
    assert "this server cannot confine anything: " in done.stderr
    found = json.loads(run("doctor", "--json", before=before).stdout)["policies"]
    assert not found["available"]
    assert run("run", "--", "echo", "ran", before=before).stdout == "ran\n"


@pytest.mark.few
@pytest.mark.skipif(not isinstance(means_without_view(), Means), reason="Landlock keeps no signals in here")
@pytest.mark.parametrize("place", ["here", "a server", "a server that permits it"])
def test_less_is_had_without_namespaces_by_who_asks_for_it(place: str, tmp_path: Path) -> None:
    without_namespaces = (sys.executable, deny.__file__, "1", str(NUMBERS["unshare"]))
    words = ["--read-only", "--verbose", "--", "sh", "-c", f"echo ran; echo x >{tmp_path}/x"]
    permits = f"EXECSRV_ALLOW_LANDLOCK_ONLY={'true' if place == 'a server that permits it' else 'false'}"
    with ExitStack() as stack:
        where: list[str] = []
        if place != "here":
            before = ["env", permits, *without_namespaces]
            _, url = stack.enter_context(daemon(f"unix://{tmp_path}/s", before))
            where = ["--url", url]
        refused = run("run", *where, *words, before=without_namespaces)
        done = run("run", *where, "--or-landlock", *words, before=without_namespaces)
    assert (refused.returncode, refused.stdout) == (125, "")
    assert not (tmp_path / "x").exists()
    if place == "a server":
        assert (done.returncode, done.stdout) == (125, "")
        assert "is not allowed here: allow_landlock_only is off" in done.stderr
    else:
        assert (done.returncode, done.stdout) == (2, "ran\n"), done.stderr
        assert "execsrv: confined, but files outside can be changed in mode, " in done.stderr


@needs_confinement
def test_the_doctor_says_by_what_policies_are_kept() -> None:
    said = run("doctor").stdout
    assert "yes  policies: every policy is kept, by capabilities, ipc, landlock, " in said
