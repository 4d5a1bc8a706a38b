"""`cp`: files and trees to a server and from it, by name, with a bar, and taken up wherever the line was cut."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import execsrv
from execsrv._cli.progress import cut
from tests.faults.daemon import Daemon, running_daemon
from tests.peers import PATIENCE
from tests.terminals import cuttable, seen

EXECSRV = [sys.executable, "-m", "execsrv"]
ENV = {"PATH": "/usr/bin:/bin", "COLUMNS": "80", "HOME": "/nonexistent"}
ENV |= {"PYTHONPATH": str(Path(execsrv.__file__).parent.parent)}  # from any directory
MIB = 1 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One server for all: each command has a connection of its own."""
    with running_daemon(tmp_path_factory.mktemp("server"), "unix") as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = Path(os.path.realpath(tmp_path)) / "here"
    folder.mkdir()
    return folder


def cp(url: str, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    argv = [*EXECSRV, "cp", "-u", url, *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, env=ENV, cwd=cwd, timeout=PATIENCE)


def contents(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_files_and_trees_go_there_and_back(daemon: Daemon, here: Path) -> None:
    (here / "tree/a").mkdir(parents=True)
    (here / "tree/a/large").write_bytes(os.urandom(MIB))
    (here / "tree/small").write_bytes(b"small")
    (here / "tree/link").symlink_to("small")
    (here / "there").mkdir()
    (here / "there/old").touch()
    url = daemon.url
    assert cp(url, "tree", "tree/small", f":{here}/there", cwd=here).returncode == 0
    assert contents(here / "there") == {
        **{f"tree/{name}": content for name, content in contents(here / "tree").items()},
        "small": b"small",
        "old": b"",
    }
    assert os.readlink(here / "there/tree/link") == "small"
    assert cp(url, f":{here}/there/tree", here / "back").returncode == 0
    assert contents(here / "back") == contents(here / "tree")
    assert cp(url, f":{here}/there/small", "back/small", cwd=here).stderr == ""
    done = cp(url, "-T", here / "tree", f":{here}/there", "--json")
    assert (done.returncode, contents(here / "there")["a/large"]) == (0, contents(here / "tree")["a/large"])
    facts = json.loads(done.stdout)
    assert facts.pop("seconds") > 0
    assert facts == {"files": 1, "bytes": MIB, "unchanged": 1, "skipped": []}


def test_what_is_there_already_is_passed_over_unless_asked_for(daemon: Daemon, here: Path) -> None:
    (here / "tree").mkdir()
    for name in ("a", "b", "c"):
        (here / "tree" / name).write_text(name)
    assert cp(daemon.url, here / "tree", f":{here}/there").returncode == 0
    (here / "tree/b").write_text("B, longer")
    (here / "tree/c").chmod(0o600)
    facts = json.loads(cp(daemon.url, "-T", here / "tree", f":{here}/there", "--json").stdout)
    assert (facts["files"], facts["unchanged"]) == (2, 1)
    assert (here / "there/c").stat().st_mode & 0o777 == 0o600
    facts = json.loads(cp(daemon.url, "-T", f":{here}/there", here / "tree", "--json").stdout)
    assert (facts["files"], facts["unchanged"]) == (0, 3)
    facts = json.loads(cp(daemon.url, "-T", "--again", here / "tree", f":{here}/there", "--json").stdout)
    assert (facts["files"], facts["unchanged"]) == (3, 0)


@pytest.mark.slow
def test_a_name_is_the_directory_of_what_runs_there(daemon: Daemon, here: Path) -> None:
    (here / "work").mkdir()
    script = (
        "import execsrv\n"
        f"with execsrv.sync.connect({daemon.url!r}, name='build', keep=300) as client:\n"
        "    argv = ['sh', '-c', 'echo made > out; read end']\n"
        f"    with client.start(argv, stdin=True, cwd={str(here / 'work')!r}, id='make') as p:\n"
        "        p.leave_running()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)
    for name in ("build", "make"):
        done = cp(daemon.url, f"{name}:out", here / f"by-{name}", cwd=here)
        assert (done.returncode, (here / f"by-{name}").read_text()) == (0, "made\n"), done.stderr
    assert cp(daemon.url, here / "by-make", "build:.").returncode == 0
    assert (here / "work/by-make").read_text() == "made\n"
    assert cp(daemon.url, "make:", here / "all").returncode == 0
    assert sorted(os.listdir(here / "all")) == ["by-make", "out"]


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["a", "b"], 125, "`a` and `b` are on this machine: one side is on the server, as `:PATH`"),
        ([":a", ":b"], 125, "`:a` and `:b` are on the server: one side is on the server, as `:PATH`"),
        (["a", ":b", ":c"], 125, "`:b` and `:c` are on the server: one side is on the server, as `:PATH`"),
        (["none", ":/tmp/x-none"], 125, "cannot use `none`: No such file or directory"),
        (["", ":/tmp/x-none"], 125, "cannot use ``: No such file or directory"),
        (["nobody:x", "."], 125, "there is no session `nobody`: `execsrv ps` lists what is there"),
        (["here", ":/none/"], 125, "cannot copy into `/none/`: there is no such directory"),
        (["here", "also", ":/none"], 125, "cannot copy into `/none`: there is no such directory"),
        (["here", "./here", ":."], 125, "two of the sources are called `here`"),
        ([":/", "."], 125, "cannot copy `/` into a directory"),
        ([":/none", "."], 125, "No such file or directory"),
        (["-T", "here", "also", ":/tmp"], 125, "--no-target-directory is for one source"),
        (["-j", "0", "here", ":/tmp"], 125, "cannot take `0` for --jobs"),
        (["here"], 125, "missing"),
    ],
)
def test_what_cannot_be_copied_is_said_in_one_line(
    daemon: Daemon, here: Path, words: list[str], status: int, said: str
) -> None:
    (here / "here").touch()
    (here / "also").touch()
    done = cp(daemon.url, *words, cwd=here)
    assert (done.returncode, done.stdout) == (status, "")
    [line] = done.stderr.splitlines()
    assert said in line


def test_a_name_with_a_colon_is_one_of_this_machine_behind_a_slash(daemon: Daemon, here: Path) -> None:
    (here / "a:b").write_text("colon")
    assert cp(daemon.url, "./a:b", f":{here}/there", cwd=here).returncode == 0
    assert (here / "there").read_text() == "colon"


def test_what_is_no_file_is_named_and_left_out(daemon: Daemon, here: Path) -> None:
    (here / "tree").mkdir()
    os.mkfifo(here / "tree/pipe\nline")
    done = cp(daemon.url, here / "tree", f":{here}/there")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"execsrv: left `{here}/tree/pipe\\nline` out: it is no file, directory or link\n"
    os.rename(here / "tree/pipe\nline", here / os.fsdecode(b"tree/\xff"))
    done = cp(daemon.url, "--json", here / "tree", f":{here}/there")
    assert (done.returncode, json.loads(done.stdout)["skipped"]) == (0, [rf"{here}/tree/\udcff"])


# -- at a terminal --


def test_a_bar_with_rate_and_rest(daemon: Daemon, here: Path) -> None:
    for number in range(8):
        (here / f"{number}").write_bytes(os.urandom(12 * MIB))
    (here / "to").mkdir()
    with seen(
        "cp", "-u", daemon.url, *(str(here / f"{n}") for n in range(8)), f":{here}/to", size=(10, 100)
    ) as terminal:
        assert terminal.end() == 0
    drawn = terminal.output.decode()
    assert re.search(r"\r\x1b\[K +\d+% \[#+ *\] [\d.]+ MiB of 96\.0 MiB  [\d.]+ MiB/s  [\d.]+ s left  \d", drawn), drawn
    assert re.fullmatch(r"execsrv: copied 8 files, 96\.0 MiB in [\d.]+ s, [\d.]+ MiB/s", terminal.text)
    assert contents(here / "to").keys() == {f"{n}" for n in range(8)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("plain", 5, "plain"),
        ("plain", 4, "pla…"),
        ("测试文件", 8, "测试文件"),
        ("测试文件", 7, "测试文…"),
        ("测试文件", 6, "测试…"),
        ("a\u0301b", 2, "a\u0301b"),
        ("plain", 0, ""),
    ],
)
def test_a_line_at_the_foot_is_no_wider_than_the_terminal(text: str, cells: int, shown: str) -> None:
    assert cut(text, cells) == shown


def test_a_narrow_terminal_and_none(daemon: Daemon, here: Path) -> None:
    (here / "file").write_bytes(bytes(16 * MIB))
    with seen("cp", "-u", daemon.url, str(here / "file"), f":{here}/a", size=(10, 20)) as terminal:
        assert terminal.end() == 0
    assert not [line for line in re.split(r"\r\x1b\[K|\r\n", terminal.output.decode()) if len(line) > 80]
    assert terminal.emulator.display[0].startswith("execsrv: copied 1 fi")
    for words in (["-q"], ["--json"]):
        with seen("cp", "-u", daemon.url, *words, str(here / "file"), f":{here}/{words}") as terminal:
            assert terminal.end() == 0
        assert b"%" not in terminal.output
    assert cp(daemon.url, here / "file", f":{here}/b").stderr == ""


# -- cut lines --


@pytest.mark.few
@pytest.mark.parametrize("way", ["put", "get"])
@pytest.mark.slow
def test_it_comes_back_when_the_line_is_mended(daemon: Daemon, here: Path, way: str) -> None:
    (here / "from").mkdir()
    for number in range(40):
        (here / "from" / f"{number}").write_bytes(os.urandom(3 * MIB))
    with cuttable(daemon.url, f"{here}/line") as line:
        words = [f"{here}/from", f":{here}/to"] if way == "put" else [f":{here}/from", f"{here}/to"]
        with seen("cp", "-u", line.url, *words, size=(24, 100)) as terminal:
            terminal.see(r"[1-9]\d*% \[")
            line.cut()
            terminal.see("the connection is lost; trying for 1 m 0 s to come back")
            line.mend()
            assert terminal.end() == 0
    assert contents(here / "to") == contents(here / "from")
    assert (
        re.search(r"copied \d+ files, .*; \d+ were there already", terminal.text) or "copied 40 files" in terminal.text
    )


@pytest.mark.few
@pytest.mark.parametrize("way", ["put", "get"])
def test_one_that_was_given_up_is_taken_up_by_the_same_command(daemon: Daemon, here: Path, way: str) -> None:
    source, to = here / "large", here / "copy"
    source.write_bytes(os.urandom(100 * MIB))
    words = [source, f":{to}"] if way == "put" else [f":{source}", to]
    with cuttable(daemon.url, f"{here}/line") as line:
        with seen("cp", "-u", line.url, "--reconnect", "0", *map(str, words), size=(24, 100)) as terminal:
            terminal.see(r"[2-9]\d% \[")
            line.cut()
            assert terminal.end() == 125
        assert "the same command with -T goes on where this one has stopped" in terminal.text
    [part] = [name for name in os.listdir(here) if name.endswith(".part")]
    there = (here / part).stat().st_size
    assert there >= 20 * MIB
    assert not to.exists()
    with seen("cp", "-u", daemon.url, *map(str, words), size=(24, 100)) as terminal:
        assert terminal.end() == 0
    assert to.read_bytes() == source.read_bytes()
    assert not [name for name in os.listdir(here) if name.endswith(".part")]


@pytest.mark.slow
def test_ctrl_c_ends_it_and_it_is_taken_up(daemon: Daemon, here: Path) -> None:
    source, to = here / "large", here / "copy"
    source.write_bytes(os.urandom(100 * MIB))
    with seen("cp", "-u", daemon.url, str(source), f":{to}") as terminal:
        terminal.see(r"[1-9]\d% \[")
        terminal.type("\x03")
        assert terminal.end() == -signal.SIGINT
    assert not to.exists()
    assert cp(daemon.url, source, f":{to}").returncode == 0
    assert to.read_bytes() == source.read_bytes()
    assert sorted(os.listdir(here)) == ["copy", "large"]
