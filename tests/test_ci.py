"""Steps of CI systems, and first processes of containers: `execsrv run --junit` and `execsrv init`."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from execsrv.testing import assert_no_strays, serving
from tests.peers import PATIENCE
from tests.test_daemon import EXECSRV, execsrv

# -- the report --


@pytest.fixture(params=["here", "there"])
def place(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    if request.param == "here":
        yield []
        return
    with serving() as server:
        yield ["--url", server.url]


def case(path: Path) -> tuple[ElementTree.Element, list[tuple[str, str | None, str | None]], str]:
    """Return the suite of a report, what is wrong with its one case, and the output in it."""
    [suite] = ElementTree.parse(path).getroot()
    [case] = suite
    wrong = [(found.tag, found.get("type"), found.get("message")) for found in case if found.tag != "system-out"]
    counted = {tag: suite.get(f"{tag}s") for tag in ("failure", "error")}
    assert counted == {tag: str(sum(found[0] == tag for found in wrong)) for tag in counted}
    return suite, wrong, case.findtext("system-out") or ""


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("options", "script", "wrong", "status"),
    [
        ([], "true", [], 0),
        ([], "exit 3", [("failure", "exit", "ended with exit status 3")], 3),
        ([], "kill -SEGV $$", [("failure", "signal", "died of SIGSEGV")], 139),
        (["--timeout", "1"], "sleep 1000", [("failure", "timeout", "was not done after 1 s")], 124),
        (["--idle-timeout", "1"], "sleep 1000", [("failure", "timeout", "was idle for 1 s")], 124),
    ],
)
def test_a_report_says_how_it_ended(
    place: list[str], options: list[str], script: str, wrong: object, status: int, tmp_path: Path
) -> None:
    path = tmp_path / "report.xml"
    done = execsrv("run", *place, *options, "--junit", str(path), "sh", "-c", f"echo out; echo error >&2; {script}")
    assert (done.returncode, done.stdout) == (status, "out\n")
    assert done.stderr.startswith("error\n")
    suite, told, output = case(path)
    assert told == wrong
    assert sorted(output.split()) == ["error", "out"]
    assert (suite.get("tests"), suite[0].get("classname")) == ("1", "execsrv.run")
    assert shlex.split(suite[0].get("name", ""))[:2] == ["sh", "-c"]


def test_a_report_on_what_was_not_started_is_an_error(place: list[str], tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    assert execsrv("run", *place, "--junit", str(path), "/does/not/exist").returncode == 127
    _, [(tag, kind, message)], output = case(path)
    assert (tag, kind, output) == ("error", "execsrv", "")
    assert "/does/not/exist" in str(message)


def test_a_report_holds_what_no_xml_can_and_the_end_of_much(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    script = r"""yes | head -c 300000; printf '\033[1m\0\377]]>&<&amp;\n'"""
    assert execsrv("run", "-q", "--junit", str(path), "--", "sh", "-c", script, errors="replace").returncode == 0
    _, wrong, output = case(path)
    assert wrong == []
    end = "\N{REPLACEMENT CHARACTER}[1m" + 2 * "\N{REPLACEMENT CHARACTER}" + "]]>&<&amp;\n"
    assert output.endswith(f"y\n{end}")
    left_out, _, kept = output.partition("\n")
    assert left_out == f"[{300_000 + 17 - 256 * 1024} bytes before this are left out]"
    assert len(kept) == 256 * 1024


def test_a_run_that_is_killed_has_not_passed(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    with assert_no_strays(within=PATIENCE):
        words = [*EXECSRV, "run", "--junit", str(path), "--", "sh", "-c", "echo ready; sleep 1000"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.kill()
    assert case(path)[1] == [("error", "unfinished", "did not come to its end: execsrv was killed")]


def test_a_report_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path) -> None:
    done = execsrv("run", "--junit", f"{tmp_path}/none/report.xml", "touch", f"{tmp_path}/ran")
    assert done.returncode == 125
    assert done.stderr == f"execsrv: cannot write the report `{tmp_path}/none/report.xml`: No such file or directory\n"
    assert not (tmp_path / "ran").exists()


def test_a_directory_of_a_report_that_the_command_removes_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.xml"
    path.parent.mkdir()
    done = execsrv("run", "--junit", str(path), "sh", "-c", f"rm -r {path.parent}; exit 3")
    assert (done.returncode, done.stderr) == (3, "")
    assert case(path)[1] == [("failure", "exit", "ended with exit status 3")]


def test_a_report_that_cannot_be_written_any_more_loses_no_status(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.xml"
    path.parent.mkdir()
    done = execsrv("run", "--junit", str(path), "sh", "-c", f"rm -r {path.parent}; touch {path.parent}; exit 3")
    said = f"execsrv: cannot write the report `{path}`, of a command that ended with status 3: File exists\n"
    assert (done.returncode, done.stderr) == (125, said)


@pytest.mark.slow
def test_a_report_takes_the_place_of_no_pipe_and_follows_a_link(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    done = execsrv("run", "--junit", str(pipe), "touch", f"{tmp_path}/ran")
    assert (done.returncode, pipe.is_fifo(), (tmp_path / "ran").exists()) == (125, True, False)
    assert done.stderr == f"execsrv: cannot write the report `{pipe}`: not a regular file\n"
    link.symlink_to("report.xml")
    assert execsrv("run", "--junit", str(link), "true").returncode == 0
    assert link.is_symlink()
    assert case(tmp_path / "report.xml")[1] == []


# -- the first process of a container --

CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.fixture(params=["first", "ordinary"])
def init(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "ordinary":
        return [*EXECSRV, "init"]
    if not shutil.which("unshare") or subprocess.run([*CONTAINER, "true"], capture_output=True).returncode:
        pytest.skip("not allowed to make a pid namespace, or no unshare to do it with")
    return [*CONTAINER, *EXECSRV, "init"]


def result(words: list[str], **options: Any) -> tuple[int, str, str]:
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, **options)
    return done.returncode, done.stdout, done.stderr


def test_an_init_ends_as_its_command(init: list[str]) -> None:
    assert result([*init, "--", "sh", "-c", "read x; echo $x; echo no >&2; exit 3"], input="yes\n") == (
        3,
        "yes\n",
        "no\n",
    )
    assert result([*init, "sh", "-c", "kill -KILL $$"])[0] in (137, -9)
    assert result([*init, "/does/not/exist"])[0] == 127


def test_an_init_passes_signals_on_each_time(init: list[str]) -> None:
    script = """
        trap 'n=$((n+1)); echo term $n; [ $n -lt 3 ] || exit 7' TERM
        trap 'echo hup' HUP; trap 'echo usr1' USR1
        echo ready; while :; do sleep 1000 & wait $!; kill $!; done 2>/dev/null
    """
    with subprocess.Popen([*init, "--", "bash", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        pid = process.pid if "unshare" not in init else child_of(process.pid)
        for number, word in [
            (signal.SIGHUP, "hup"),
            (signal.SIGUSR1, "usr1"),
            (signal.SIGTERM, "term 1"),
            (signal.SIGTERM, "term 2"),
            (signal.SIGTERM, "term 3"),
        ]:
            os.kill(pid, number)
            assert process.stdout.readline() == f"{word}\n"
        assert process.wait(PATIENCE) == 7


def child_of(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_an_init_with_a_grace_kills_what_is_deaf(init: list[str]) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 1000; done"
    words = [*init, "--grace", "100ms", "--", "bash", "-c", script]
    with assert_no_strays(within=PATIENCE), subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid if "unshare" not in init else child_of(process.pid), signal.SIGTERM)
        assert process.wait(PATIENCE) in (137, -9)


def test_an_init_reaps_orphans_while_its_command_runs(init: list[str]) -> None:
    script = """
        (setsid sh -c 'echo $$; exec sleep 0.1' &)
        read orphan; while [ -e /proc/$orphan ]; do sleep 0.01; done; echo gone
    """
    both = f"mkfifo orphans; exec <>orphans; {script.replace('echo $$;', 'echo $$ >orphans;')}"
    folder = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()
    try:
        assert result([*init, "--", "bash", "-c", both], cwd=folder) == (0, "gone\n", "")
    finally:
        shutil.rmtree(folder)


def test_an_init_ends_what_outlives_its_command(init: list[str]) -> None:
    with assert_no_strays():
        status, out, error = result([*init, "--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo started"])
    assert (status, out) == (0, "started\n")
    assert error.startswith("execsrv: ended sleep (pid ")
