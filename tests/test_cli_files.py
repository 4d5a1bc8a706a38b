"""`files` and `play`, and what `run` takes from files and writes to them, in real terminals and without."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.faults.daemon import running_daemon
from tests.peers import PATIENCE
from tests.terminals import seen, seen_program

EXECSRV = [sys.executable, "-m", "execsrv"]
ENV = {"PATH": "/usr/bin:/bin", "COLUMNS": "80", "HOME": "/nonexistent"}


def execsrv(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EXECSRV, *words], capture_output=True, text=True, env={**ENV, **env}, cwd=cwd, timeout=PATIENCE
    )


def editor(folder: Path, script: str) -> str:
    """An editor that does this to its file, `$1`."""
    path = folder / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


# -- files --


def test_files_are_listed_and_written_out(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "a").write_bytes(b"one\n\xff\n")
    (folder / ".hidden").touch()
    (folder / "to a").symlink_to("a")
    (folder / "a").chmod(0o640)
    assert execsrv("files", "ls", "-u", url, str(folder)).stdout == "a\nto a\n"
    assert ".hidden\n" in execsrv("files", "ls", "-u", url, "-a", str(folder)).stdout
    long = execsrv("files", "ls", "-u", url, "-l", str(folder)).stdout.splitlines()
    assert re.fullmatch(r"-rw-r-----  6 B  \d{4}-\d\d-\d\d \d\d:\d\d  a", long[0])
    assert long[1].startswith("l")
    assert long[1].endswith("to a -> a")
    for link in ("to nothing", "to itself"):
        (tmp_path / link).symlink_to(tmp_path / "to itself" if link == "to itself" else "missing")
    links = [f"{tmp_path}/to nothing", f"{tmp_path}/to itself"]
    assert execsrv("files", "ls", "-u", url, *links).stdout.splitlines() == links
    facts = json.loads(execsrv("files", "ls", "-u", url, "--json", f"{folder}/a").stdout)
    assert (facts[0]["path"], facts[0]["size"], facts[0]["mode"]) == (f"{folder}/a", 6, "0640")
    done = subprocess.run(
        [*EXECSRV, "files", "cat", "-u", url, f"{folder}/a", f"{folder}/to a"],
        capture_output=True,
        env=ENV,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == b"one\n\xff\n" * 2


@pytest.mark.slow
def test_a_name_that_is_no_text_is_in_the_json_too(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / os.fsdecode(b"a\xff")).symlink_to(os.fsdecode(b"\xfe"))
    done = execsrv("files", "ls", "-u", url, "--json", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert [(each["path"], each["target"]) for each in json.loads(done.stdout)] == [(rf"{folder}/a\udcff", r"\udcfe")]


def test_a_file_that_is_a_mount_is_edited_where_it_is(tmp_path: Path) -> None:
    """As `/etc/hosts` in a container: nothing can take its place."""
    hosts = tmp_path / "hosts"
    hosts.write_text("old\n")
    own_mounts = ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} {hosts} && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*own_mounts, "true"], capture_output=True).returncode:
        pytest.skip("not allowed to mount, or no unshare to do it with")
    serve = [*EXECSRV, "serve", "--quiet", "--listen", url := f"unix://{tmp_path}/socket"]
    with subprocess.Popen([*own_mounts, *serve], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline()
            done = execsrv("files", "edit", "-u", url, str(hosts), EDITOR=editor(tmp_path, 'echo new >> "$1"'))
            assert (done.returncode, done.stderr) == (0, f"execsrv: wrote 8 B to `{hosts}`\n")
            assert hosts.read_text() == "old\nnew\n"
        finally:
            server.terminate()


@pytest.mark.parametrize("command", ["ls", "cat"])
def test_a_file_that_is_not_there_is_named(url: str, tmp_path: Path, command: str) -> None:
    done = execsrv("files", command, "-u", url, f"{tmp_path}/missing")
    assert (done.returncode, done.stdout) == (125, "")
    [line] = done.stderr.splitlines()
    assert f"{tmp_path}/missing" in line


def test_a_file_is_edited(url: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before\n")
    path.chmod(0o640)
    mine, here = editor(tmp_path, 'sed -i.old s/before/after/ "$1"'), tmp_path / "here"
    here.mkdir()
    done = execsrv("files", "edit", "-u", url, str(path), EDITOR=mine, TMPDIR=str(here))
    assert (done.returncode, path.read_text(), path.stat().st_mode & 0o777) == (0, "after\n", 0o640), done.stderr
    assert not list(here.iterdir())


@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="not here: setpriv, as root")
@pytest.mark.parametrize("mode", [0o664, 0o2774])
def test_a_file_of_somebody_else_is_edited(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "theirs/file"
    path.parent.mkdir()
    path.write_text("before\n")
    for each in (path, path.parent):
        os.chown(each, 65534, 0 if each == path else 65534)
    path.chmod(mode)
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]  # one that may no more than its user
    with running_daemon(tmp_path, "unix", prefix=drop) as daemon:
        mine = editor(tmp_path, 'sed -i s/before/after/ "$1"')
        done = execsrv("files", "edit", "-u", daemon.url, str(path), EDITOR=mine)
    assert (done.returncode, path.read_text()) == (0, "after\n"), done.stderr
    assert ("the mode was 2774: cannot change" in done.stderr) == (mode == 0o2774)


def test_a_file_that_is_not_there_is_made(url: str, tmp_path: Path) -> None:
    path = tmp_path / "new"
    done = execsrv("files", "edit", "-u", url, str(path), EDITOR=editor(tmp_path, 'echo made > "$1"'))
    assert (done.returncode, path.read_text()) == (0, "made\n"), done.stderr


def test_a_file_that_is_not_there_is_not_made_where_nothing_was_saved(url: str, tmp_path: Path) -> None:
    done = execsrv("files", "edit", "-u", url, str(tmp_path / "tpyo"), EDITOR="true")
    assert done.returncode == 0, done.stderr
    assert f"nothing was saved, and `{tmp_path}/tpyo` was not made" in done.stderr
    assert not (tmp_path / "tpyo").exists()


def test_what_was_not_edited_is_not_written(url: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("as it was")
    before = path.stat()
    done = execsrv("files", "edit", "-u", url, str(path), EDITOR="true")
    assert done.returncode == 0
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("force", [False, True])
def test_what_was_changed_meanwhile_is_overwritten_only_by_force(url: str, tmp_path: Path, force: bool) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    mine = editor(tmp_path, f'echo mine > "$1"; echo theirs > {path}')
    done = execsrv("files", "edit", "-u", url, *(["--force"] if force else []), str(path), EDITOR=mine)
    assert path.read_text() == ("mine\n" if force else "theirs\n")
    if not force:
        assert done.returncode == 125
        kept = re.search("your text is in `(.*?)`", done.stderr)
        assert kept is not None, done.stderr
        assert Path(kept[1]).read_text() == "mine\n"


@pytest.mark.few
@pytest.mark.parametrize("theirs", ["rm {0}; mkdir {0}", "rm -r {0}; ln -s {0} {0}", "mv {1} {1}-gone"])
def test_what_cannot_be_put_back_is_not_lost(url: str, tmp_path: Path, theirs: str) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    mine = editor(tmp_path, f'echo mine > "$1"; {theirs.format(path, url.removeprefix("unix://"))}')
    done = execsrv("files", "edit", "-u", url, str(path), EDITOR=mine, TMPDIR=str(tmp_path))
    assert done.returncode == 125
    where, why = done.stderr.splitlines()
    assert re.fullmatch("execsrv: cannot .*", why)
    kept = re.fullmatch("execsrv: your text is in `(.*)`", where)
    assert kept is not None, done.stderr
    assert Path(kept[1]).read_text() == "mine\n"


@pytest.mark.parametrize(
    ("mine", "why"),
    [
        ("vi 'unclosed", "EDITOR is no command line, `vi 'unclosed`: No closing quotation"),
        ("does-not-exist -f", "there is no editor `does-not-exist` here: name one in VISUAL or EDITOR"),
    ],
)
def test_an_editor_that_cannot_be_started(url: str, tmp_path: Path, mine: str, why: str) -> None:
    path, here = tmp_path / "file", tmp_path / "here"
    path.write_text("before")
    here.mkdir()
    done = execsrv("files", "edit", "-u", url, str(path), EDITOR=mine, TMPDIR=str(here))
    assert (done.returncode, done.stderr) == (125, f"execsrv: {why}\n")
    assert not list(here.iterdir())


@pytest.mark.slow
def test_an_editor_that_fails_changes_nothing_and_loses_nothing(url: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    done = execsrv("files", "edit", "-u", url, str(path), EDITOR=editor(tmp_path, 'echo mine > "$1"; exit 3'))
    assert (done.returncode, path.read_text()) == (125, "before")
    kept = re.search("status 3; your text is in `(.*?)`", done.stderr)
    assert kept is not None, done.stderr
    assert Path(kept[1]).read_text() == "mine\n"


# -- run, with files --


def test_variables_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("\ufeffTWO=a b=c\n# a comment\nONE=1\n\nMINE\nNONE\n")
    script = 'echo "$ONE|$TWO|$MINE|${NONE-unset}|$LAST"'
    done = execsrv(
        "run",
        "--env-file",
        f"{tmp_path}/env",
        "-e",
        "LAST=5",
        "-e",
        "ONE=first",
        "sh",
        "-c",
        script,
        MINE="taken along",
    )
    assert (done.stdout, done.stderr) == ("first|a b=c|taken along|unset|5\n", "")


def test_a_variable_is_taken_along_to_a_server(url: str) -> None:
    done = execsrv("run", "-u", url, "-e", "MINE", "sh", "-c", "echo $MINE", MINE="from here")
    assert (done.stdout, done.stderr) == ("from here\n", "")


@pytest.mark.parametrize("text", ["=1", "a\0b=1"])
def test_a_line_of_a_file_that_is_no_variable_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "env").write_text(f"GOOD=1\n{text}\n")
    done = execsrv("run", "--env-file", f"{tmp_path}/env", "true")
    assert done.returncode == 125
    assert f"{tmp_path}/env" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_directory_of_a_server_counts_from_its_own(url: str) -> None:
    there = execsrv("run", "-u", url, "pwd").stdout.strip()
    done = execsrv("run", "-u", url, "--cwd", "..", "pwd")
    assert done.stdout.strip() == str(Path(there).parent), done.stderr


# -- recordings --


@pytest.mark.few
@pytest.mark.parametrize("place", ["here", "there"])
def test_what_is_recorded_is_played(url: str, tmp_path: Path, place: str) -> None:
    cast = f"{tmp_path}/demo.cast"
    words = ["-u", url] if place == "there" else []
    done = execsrv("run", *words, "--record", cast, "sh", "-c", "echo one; echo two; exit 3")
    assert (done.returncode, done.stdout) == (3, "one\ntwo\n"), done.stderr
    assert execsrv("play", cast).stdout.replace("\r", "") == "one\ntwo\n"
    facts = json.loads(execsrv("play", "--json", cast).stdout)
    assert facts["exitCode"] == 3
    assert "echo two" in facts["command"]


@pytest.mark.few
@pytest.mark.parametrize(("told", "code"), [("0", 0), ("-1", -1), ("\u00b2", None), ("1" * 5000, None), ("", None)])
def test_an_exit_that_another_has_recorded(tmp_path: Path, told: str, code: int | None) -> None:
    parts = ({"version": 3, "term": {"cols": 80, "rows": 24}}, [0.1, "o", "one"], [0.1, "x", told])
    (tmp_path / "odd.cast").write_text("\n".join(map(json.dumps, parts)) + "\n")
    done = execsrv("play", "--json", f"{tmp_path}/odd.cast")
    assert (done.returncode, done.stderr, json.loads(done.stdout)["exitCode"]) == (0, "", code)


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_recording_that_cannot_be_written_ends_and_the_command_does_not(url: str, tmp_path: Path, place: str) -> None:
    words = [*EXECSRV, "run", *(["-u", url] if place == "there" else []), "--record", f"{tmp_path}/cast"]
    command = ["sh", "-c", "seq 5000; echo END; exit 3"]
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *words, *command]
    # What Python compiles it keeps, and of that as much as the limit lets it: half a module, for all who come after.
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(limited, capture_output=True, text=True, timeout=PATIENCE, env=env)
    assert done.stdout.endswith("\n5000\nEND\n")
    assert done.stderr == f"execsrv: cannot write the recording: File too large: {tmp_path}/cast\n"
    assert done.returncode == 125
    lines = (tmp_path / "cast").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert all(map(json.loads, lines))


def test_a_recording_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    done = execsrv("run", "--record", f"{tmp_path}/none/x", "echo", "out")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"{tmp_path}/none/x" in done.stderr


@pytest.fixture
def long_cast(tmp_path: Path) -> str:
    """Three words, with a minute between each two, and a marker before the last."""
    header = {"version": 3, "term": {"cols": 80, "rows": 24}}
    events = [[0.01, "o", "\x1b[?25lone"], [60, "o", "two"], [30, "m", "here"], [30, "o", "three"]]
    (tmp_path / "long.cast").write_text("\n".join(json.dumps(part) for part in (header, *events)) + "\n")
    return f"{tmp_path}/long.cast"


def test_keys_while_it_plays(long_cast: str) -> None:
    with seen("play", long_cast) as terminal:
        terminal.see("one")
        terminal.type(" ")
        terminal.type(".")
        terminal.see("onetwo")
        terminal.type("]")
        terminal.type("]")
        terminal.see("onetwothree")


@pytest.mark.few
@pytest.mark.parametrize(("key", "number"), [("q", 0), ("", signal.SIGTERM), ("", signal.SIGHUP), ("", signal.SIGINT)])
def test_it_is_ended_in_the_middle_and_the_terminal_is_as_before(long_cast: str, key: str, number: int) -> None:
    with seen("play", "--speed", "0.5", long_cast) as terminal:
        before = termios.tcgetattr(terminal.program.child_fd)
        terminal.see("one")
        assert termios.tcgetattr(terminal.program.child_fd) != before
        terminal.type(key)
        if number:
            os.kill(terminal.program.pid, number)
        while terminal._draw():
            pass
        assert termios.tcgetattr(terminal.program.child_fd) == before
        assert terminal.end() == -number
        assert b"\x1b[?25h" in terminal.output  # the cursor is back


def test_all_at_once_leaves_the_terminal_as_it_was(long_cast: str) -> None:
    with seen("play", "--all-at-once", long_cast) as terminal:
        terminal.see("onetwothree")
        assert terminal.end() == 0
        assert not terminal.emulator.cursor.hidden


def test_without_keys_it_is_interrupted(long_cast: str) -> None:
    with seen_program(["sh", "-c", f"cat {long_cast} | {shlex.join(EXECSRV)} play -"], (24, 80), {}) as terminal:
        terminal.see("one")
        terminal.type("\x03")
        terminal.end()
        assert b"\x1b[?25h" in terminal.output
        assert "Traceback" not in terminal.text


def cast(folder: Path, *lines: str) -> str:
    path = folder / "a.cast"
    path.write_text("\n".join(['{"version": 3, "term": {"cols": 80, "rows": 24}}', *lines]) + "\n")
    return str(path)


@pytest.mark.parametrize("options", [[], ["--all-at-once"]])
def test_a_terminal_is_not_asked_what_it_was_asked_then(tmp_path: Path, options: list[str]) -> None:
    asks = r"\u001b]11;?\u0007\u001b[6n\u001b[31masked\u001b[m"
    path = cast(tmp_path, f'[0.01, "o", "{asks}"]', '[1, "o", "two"]', '[0.1, "m", ""]', '[0, "o", "three"]')
    with seen("play", *options, path) as terminal:
        terminal.see("asked")
        assert b"]11;?" not in terminal.output
        assert b"[6n" not in terminal.output
        assert b"\x1b[31masked" in terminal.output
        terminal.see("askedtwothree")  # and no answer was taken for keys


@pytest.mark.few
@pytest.mark.parametrize("time", ["Infinity", "NaN", "-Infinity", "1e300", "1" * 400])
def test_a_time_that_is_none_is_said(tmp_path: Path, time: str) -> None:
    path = cast(tmp_path, '[0.1, "o", "one"]', f'[{time}, "o", "two"]')
    with seen("play", path, size=(24, 300)) as terminal:
        assert terminal.end() == 125
        assert terminal.text.splitlines()[1:] == [f"execsrv: `{path}`, line 3: no event of an asciicast"]
    done = execsrv("play", "--json", path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (125, "", 1)


def test_it_is_slowed_down_beyond_measure(tmp_path: Path) -> None:
    path = cast(tmp_path, '[0.01, "o", "one"]', '[60, "m", "here"]', '[0, "o", "two"]')
    with seen("play", path) as terminal:
        terminal.see("one")
        for _ in range(32):
            terminal.type("-" * 64)
        terminal.type("]")
        terminal.type("]")
        terminal.see("onetwo")
        assert terminal.end() == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json\n",
        '{"version": 1}\n',
        '{"version": 3}\n{"not": "an event"}\n',
        pytest.param("[" * 100_000 + "\n", id="deep"),
    ],
)
def test_what_is_no_recording_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    done = execsrv("play", f"{tmp_path}/x")
    assert done.returncode == 125
    [line] = done.stderr.splitlines()
    assert f"{tmp_path}/x" in line
