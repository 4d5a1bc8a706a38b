"""`execsrv map`: commands over lines of stdin, and the journal by which another run goes on."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from execsrv._cli.map_journal import open_journal
from execsrv.directories import directory_of
from execsrv.errors import ExecsrvError, InvalidConfigError
from execsrv.testing import ServerFailedError, serving
from tests.peers import PATIENCE
from tests.processes import broken_input, marked, new_mark
from tests.terminals import seen_program

ECHO = ["echo", "{}"]
ENV = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}


def result(number: int, line: str, **facts: object) -> bytes:
    return json.dumps({"line": number, "input": line, **facts}).encode() + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


def test_a_journal_tells_how_far_each_line_has_come(path: str) -> None:
    with open_journal(path, ECHO) as journal:
        assert journal.state(1, "a") == "new"
        for number, line in enumerate("abcd", 1):
            journal.begin(number, line)
        journal.write(result(2, "b", exitCode=3))
        journal.write(result(3, "c", error="gone", kind="unknown"))
        journal.write(result(4, "d", error="none", kind="no-server"))
        journal.write(result(6, "f", exitCode=0))
        journal.write(result(7, "g", exitCode=0, error="too late"))
    with open_journal(path, ECHO) as journal:
        states = [journal.state(number, line) for number, line in enumerate("abcdefg", 1)]
        assert states == ["begun", "failed", "unknown", "new", "new", "ended", "failed"]
        with pytest.raises(ExecsrvError, match="line 2 is not the one"):
            journal.state(2, "other")


def test_a_journal_that_is_torn_anywhere_goes_on_before_the_tear(path: str) -> None:
    with open_journal(path, ECHO) as journal:
        journal.begin(1, "a")
        journal.write(result(1, "a", exitCode=0))
    whole = Path(path).read_bytes()
    ends = [at for at, byte in enumerate(whole, 1) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        Path(path).write_bytes(whole[:cut])
        with open_journal(path, ECHO) as journal:
            lines = sum(end <= cut for end in ends)
            assert journal.state(1, "a") == ["new", "new", "begun", "ended"][lines]
            journal.write(result(2, "b", exitCode=0))
        with open_journal(path, ECHO) as journal:
            assert journal.state(2, "b") == "ended"


@pytest.mark.parametrize("content", [b"precious", b"precious\n", b'{"line": 1}\n', b'{"journal": 2, "command": []}\n'])
def test_a_file_that_is_no_journal_is_left_alone(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(ExecsrvError, match="is no journal"), open_journal(path, ECHO):
        pass
    assert Path(path).read_bytes() == content


def test_no_line_of_a_large_file_that_is_no_journal_is_read(path: str) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # of which nobody has the memory
    with pytest.raises(ExecsrvError, match="is no journal"), open_journal(path, ECHO):
        pass


@pytest.mark.parametrize("other", ["/dev/full", "/dev/null", "fifo"])
def test_a_journal_is_a_regular_file(other: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ExecsrvError, match="it is no regular file"), open_journal(str(tmp_path / other), ECHO):
        pass


@pytest.mark.few
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_journal_is_not_what_is_printed_to(path: str, stream: str) -> None:
    with open(path, "ab") as file:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: file}
        done = subprocess.run(words("none", "--journal", path, "echo"), input=b"", timeout=PATIENCE, env=ENV, **streams)
    complaint = f"execsrv: cannot use the journal `{path}`: {stream} is the same file\n".encode()
    said = complaint if stream == "stderr" else b""
    assert (done.returncode, Path(path).read_bytes(), done.stderr or complaint) == (125, said, complaint)


def test_a_journal_is_of_one_command_and_one_run(path: str) -> None:
    with open_journal(path, ECHO):
        with pytest.raises(ExecsrvError, match="another `execsrv map` writes it"), open_journal(path, ECHO):
            pass
        assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(ExecsrvError, match="is of another command"), open_journal(path, ["true"]):
        pass


# -- the command --


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    with serving() as one, serving() as two:
        yield f"{one.url},{two.url}"


def words(servers: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "execsrv", "map", "--pool", servers, *more]


def mapped(servers: str, lines: Iterable[str | int], *more: str) -> subprocess.CompletedProcess[bytes]:
    text = "".join(f"{line}\n" for line in lines).encode()
    return subprocess.run(words(servers, *more), input=text, capture_output=True, timeout=PATIENCE, env=ENV)


def results(said: bytes) -> dict[int, dict[str, Any]]:
    """Return the results by their lines, each of which is there once."""
    found = [json.loads(line) for line in said.splitlines()]
    by_line = {each["line"]: each for each in found}
    assert len(by_line) == len(found)
    return by_line


@contextmanager
def running_map(servers: str, count: int, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run it for the block over the numbers from 1, with a stdin that stays open."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words(servers, *more), **pipes, env=ENV) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(b"".join(b"%d\n" % number for number in range(1, count + 1)))
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_each_line_has_one_result(servers: str) -> None:
    script = r'echo "$0 $1"; printf "\377" >&2; [ "$1" != 2 ]'
    done = mapped(servers, [1, 2, "", "three  3"], "sh", "-c", script, "<{}>", "{}")
    assert (done.returncode, done.stderr) == (1, b"execsrv: 3 commands, 1 failed\n")
    found = results(done.stdout)
    assert {number: (each["input"], each["stdout"], each["exitCode"]) for number, each in found.items()} == {
        1: ("1", "<1> 1\n", 0),
        2: ("2", "<2> 2\n", 1),
        4: ("three  3", "<three  3> three  3\n", 0),
    }
    assert found[1]["argv"][-2:] == ["<1>", "1"]
    assert found[1]["stderrBase64"] == "/w=="
    assert found[1]["server"] in servers.split(",")


def test_the_line_is_the_last_word_where_it_has_no_place(servers: str) -> None:
    done = mapped(servers, ["a b"], "--quiet", "--max-output", "4", "echo", "-n", "123456")
    assert (done.returncode, done.stderr) == (0, b"")
    assert results(done.stdout)[1]["stdout"] == "12 b"
    assert results(done.stdout)[1]["omittedBytes"] == 6


def test_what_cannot_be_run_or_takes_too_long_is_a_result_too(servers: str) -> None:
    done = mapped(servers, [1], "no-such-program")
    assert (done.returncode, results(done.stdout)[1]["kind"]) == (1, "spawnNotFound")
    assert results(done.stdout)[1]["server"] in servers.split(",")
    [found] = results(mapped(servers, [60], "--timeout", "100ms", "sleep").stdout).values()
    assert (found["exitCode"], found["signal"], found["reason"]) == (143, "SIGTERM", "timeout")
    assert "did not end within 0.1 s" in found["error"]


def test_a_line_that_is_no_text_is_told_and_the_others_go_on(servers: str) -> None:
    done = subprocess.run(words(servers, "echo"), input=b"a\n\xff\nb", capture_output=True, timeout=PATIENCE, env=ENV)
    found = results(done.stdout)
    assert (done.returncode, found[2]["kind"], found[2]["error"]) == (1, "invalid-params", "the line is not UTF-8")
    assert [found[number]["stdout"] for number in (1, 3)] == ["a\n", "b\n"]


def test_a_line_that_is_too_long_is_told_and_the_others_go_on(servers: str) -> None:
    done = mapped(servers, ["a", "x" * (2 << 20), "b"], "echo")
    found = results(done.stdout)
    assert (done.returncode, found[2]["kind"]) == (1, "invalid-params")
    assert (found[2]["error"], found[2]["input"]) == ("the line is longer than 1048576 bytes", "x" * (1 << 20))
    assert [found[number]["stdout"] for number in (1, 3)] == ["a\n", "b\n"]


def test_a_line_that_is_the_very_place_is_the_last_word_once(servers: str) -> None:
    done = mapped(servers, ["{}"], "echo", "at {}")
    assert results(done.stdout)[1]["argv"] == ["echo", "at {}"]


def test_input_that_breaks_off_is_no_end_of_it(servers: str) -> None:
    with broken_input(b"1\n2\n3 that is torn") as broken:
        done = subprocess.run(words(servers, "echo"), stdin=broken, capture_output=True, timeout=PATIENCE, env=ENV)
    said = b"execsrv: cannot read stdin: Connection reset by peer\nexecsrv: 2 commands, 0 failed\n"
    assert (done.returncode, done.stderr) == (125, said)
    assert results(done.stdout).keys() == {1, 2}


def test_a_command_that_is_no_text_is_refused_before_anything_is_written(servers: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for more in ([], ["--journal", str(journal)]):
        done = mapped(servers, ["a"], *more, "printf", os.fsdecode(b"\xff"))
        said = b"execsrv: argv[1]: '\\udcff' cannot be sent as UTF-8\n"
        assert (done.returncode, done.stdout, done.stderr) == (125, b"", said)
    assert not journal.exists()


def test_a_line_that_is_no_text_waits_for_room_as_others_do(servers: str, tmp_path: Path) -> None:
    """So that a whole file of such lines is not held while nobody takes results."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with running_map(servers, 1, "-j", "1", "sh", "-c", f"cat {gate}") as process:
        assert process.stdin is not None
        process.stdin.write(b"\xff\n")
        process.stdin.flush()

        def is_read() -> bool:
            with suppress(OSError):
                os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
                return True
            return False

        wait_for(is_read)
        said, _ = process.communicate(timeout=PATIENCE)
    assert [json.loads(line)["line"] for line in said.splitlines()] == [1, 2]


@pytest.mark.slow
def test_two_that_fight_for_small_servers_both_have_all_their_results() -> None:
    with serving("unix://", "--max-sessions", "2") as one, serving("unix://", "--max-sessions", "2") as two:
        maps = [words(f"{one.url},{two.url}", "sh", "-c", "sleep 0.02") for _ in range(2)]
        lines = b"".join(b"%d\n" % number for number in range(40))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        running = [subprocess.Popen(each, **pipes, env=ENV) for each in maps]
        for process in running:
            assert process.stdin is not None
            process.stdin.write(lines)
            process.stdin.close()
            process.stdin = None
        for process in running:
            said, _ = process.communicate(timeout=PATIENCE)
            assert [each["exitCode"] for each in results(said).values()] == [0] * 40


def test_who_reads_no_more_of_the_results_ends_it(servers: str) -> None:
    with running_map(servers, 100, "-j", "2", "sh", "-c", "sleep 0.1") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait(PATIENCE)) == (b"", -signal.SIGPIPE)


def test_one_request_to_end_waits_for_what_runs_and_another_run_goes_on(servers: str, tmp_path: Path) -> None:
    ran, journal = tmp_path / "ran", str(tmp_path / "journal")
    command = ["sh", "-c", f"echo {{}} >> {ran}; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"]
    with running_map(servers, 20, "--journal", journal, "-j", "4", *command) as first:
        wait_for(lambda: ran.exists() and len(ran.read_text().split()) == 4)
        first.send_signal(signal.SIGINT)
        assert first.stderr is not None
        assert first.stderr.readline() == b"execsrv: waiting for 4 commands that run; once more ends them\n"
        (tmp_path / "go").touch()
        said, _ = first.communicate(timeout=PATIENCE)
        assert first.returncode == -signal.SIGINT
    assert len(results(said)) == 4
    done = mapped(servers, range(1, 21), "--journal", journal, "-j", "4", *command)
    assert (done.returncode, done.stderr) == (0, b"execsrv: 16 commands, 0 failed, 4 had ended before\n")
    assert results(said + done.stdout).keys() == {*range(1, 21)}
    assert sorted(map(int, ran.read_text().split())) == [*range(1, 21)]


def test_what_had_no_place_at_a_request_to_end_is_dropped_at_once_and_runs_the_next_time(tmp_path: Path) -> None:
    journal, lines = str(tmp_path / "journal"), [1, 2]
    with serving(f"unix://{tmp_path}/s", "--max-sessions", "1") as server:
        command = ["sh", "-c", f"echo >> {tmp_path}/ran; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"]
        with running_map(server.url, 2, "--journal", journal, *command) as first:
            wait_for(lambda: Path(journal).exists() and Path(journal).read_text().count("begun") == 2)
            wait_for((tmp_path / "ran").exists)
            first.send_signal(signal.SIGINT)
            assert first.stderr is not None
            assert b"commands that run; once more ends them" in first.stderr.readline()
            wait_for(lambda: "not-started" in Path(journal).read_text())
            (tmp_path / "go").touch()
            said, _ = first.communicate(timeout=PATIENCE)
        done = mapped(server.url, lines, "--journal", journal, *command)
    assert (first.returncode, done.returncode, len(results(said))) == (-signal.SIGINT, 0, 1)
    assert results(said + done.stdout).keys() == {1, 2}


def test_where_nothing_runs_a_request_to_end_is_heard_at_once(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with running_map(str(tmp_path / "none"), 2, "--journal", str(journal), "echo") as process:
        wait_for(lambda: journal.exists() and journal.read_text().count("begun") == 2)
        process.send_signal(signal.SIGTERM)
        said, complaint = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said, complaint) == (-signal.SIGTERM, b"", b"execsrv: 0 commands, 0 failed\n")


def test_what_had_failed_before_counts_in_the_exit_status(servers: str, tmp_path: Path) -> None:
    options = ["--journal", str(tmp_path / "journal"), "sh", "-c", "exit {}"]
    assert mapped(servers, [0, 1, 0], *options).returncode == 1
    done = mapped(servers, [0, 1, 0], *options)
    said = b"execsrv: 0 commands, 0 failed, 3 had ended before, 1 of them failed\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", said)


def test_what_was_under_way_at_a_sigkill_is_unknown_and_runs_again_only_where_it_may(
    servers: str, tmp_path: Path
) -> None:
    ran, journal = tmp_path / "ran", str(tmp_path / "journal")
    command = ["sh", "-c", f"echo {{}} >> {ran}; [ {{}} -le 4 ] || [ -e {tmp_path}/go ] || exec sleep 1000"]
    with running_map(servers, 20, "--journal", journal, "-j", "4", *command) as first:
        wait_for(lambda: ran.exists() and len(ran.read_text().split()) == 8)
        first.kill()
        said, _ = first.communicate()
    before = results(said)
    (tmp_path / "go").touch()
    done = mapped(servers, range(1, 21), "--journal", journal, *command)
    assert done.returncode == 1
    found = results(done.stdout)
    assert {number for number, each in found.items() if each.get("kind") == "unknown"} == {5, 6, 7, 8}
    assert {**before, **found}.keys() == {*range(1, 21)}
    assert sorted(map(int, ran.read_text().split())) == [*range(1, 21)]
    again = mapped(servers, range(1, 21), "--journal", journal, "--idempotent", *command)
    assert (again.returncode, {*results(again.stdout)}) == (0, {5, 6, 7, 8})


def test_a_second_request_ends_what_runs(servers: str) -> None:
    mark = new_mark()
    with running_map(servers, 3, "bash", "-c", f"exec -a {mark} sleep 1000 # {{}}") as process:
        wait_for(lambda: len(marked(mark)) == 3)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGTERM
    wait_for(lambda: not marked(mark))


def test_a_server_that_dies_leaves_unknown_ends_and_the_rest_goes_on(servers: str, tmp_path: Path) -> None:
    with suppress(ServerFailedError), serving() as dying:
        assert dying.pid is not None
        parents = tmp_path / "parents"
        command = ["sh", "-c", f"echo $PPID >> {parents}; exec sleep 1 # {{}}"]
        with running_map(f"{servers},{dying.url}", 30, "-j", "15", "--reconnect", "0", *command) as process:
            wait_for(lambda: parents.exists() and str(dying.pid) in parents.read_text().split())
            os.kill(dying.pid, signal.SIGKILL)
            assert process.stdin is not None
            said, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 1
    found = results(said)
    assert found.keys() == {*range(1, 31)}
    unknown = [each for each in found.values() if each.get("kind") == "unknown"]
    assert {each["server"] for each in unknown} == {dying.url}
    assert all(each["exitCode"] == 0 for each in found.values() if each not in unknown)


def test_a_terminal_shows_how_far_it_is_and_in_the_end_the_sum(servers: str, tmp_path: Path) -> None:
    lines, results = tmp_path / "lines", tmp_path / "results"
    lines.write_text("".join(f"{number}\n\n" for number in range(1, 31)))
    command = shlex.join([*words(servers, "-j", "3"), "sh", "-c", "sleep 0.1; [ {} != 7 ]"])
    with seen_program(["sh", "-c", f"exec {command} < {lines} > {results}"], (10, 100), {}) as terminal:
        assert terminal.end() == 1
    drawn = terminal.output.decode()
    assert re.search(r"\r\x1b\[K +\d+% \[#* *\] \d+ of 30  1 failed  \d+/s  [\d.]+ s left", drawn), drawn
    assert terminal.text == "execsrv: 30 commands, 1 failed"
    assert len(results.read_text().splitlines()) == 30


@pytest.mark.few
@pytest.mark.parametrize("verb", ["map", "run"])
def test_a_person_is_told_what_is_waited_for_and_it_goes_on_when_that_comes(verb: str, tmp_path: Path) -> None:
    pool = tmp_path / "servres"
    command = shlex.join([sys.executable, "-m", "execsrv", verb, "--pool", str(pool), "--", "echo", "ran"])
    with seen_program(["sh", "-c", f"echo line | {command}"], (10, 300), {}) as terminal:
        terminal.see(
            rf"^execsrv: waiting for a server, for 60 s at most: none is known to <FileDirectory {pool}, "
            "which is not there>$"
        )
        with serving("unix://", "--join", str(pool)):
            assert terminal.end() == 0
    assert "ran" in terminal.text
    assert terminal.text.count("which is not there") == 1


def test_what_names_no_server_is_told_at_once() -> None:
    done = mapped("http://nowhere,ws://", [1, 2, 3], "true")
    assert done.returncode == 125
    [said, total] = done.stderr.decode().splitlines()
    assert said.startswith("execsrv: no server can be used: 2 are known; http://nowhere: unsupported URL `http://nowh")
    assert "; ws://: cannot connect to `ws://`: expected `ws://HOST:PORT`" in said
    assert re.fullmatch(r"execsrv: [123] commands, [123] failed", total)


def test_a_pool_of_ray_without_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "execsrv.adapters.ray", None)
    with pytest.raises(InvalidConfigError, match=r"pip install 'execsrv\[ray\]'"):
        directory_of("ray://execsrv")


# -- the other commands of a pool --


def execsrv(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "execsrv", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, env=ENV,
    )  # fmt: skip


@pytest.mark.slow
def test_one_command_runs_on_a_server_of_a_pool_by_its_label_and_is_listed_there(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    command = ["run", "--pool", str(pool), "--label", "disk=fast", "--", "sh", "-c"]
    with (
        serving("unix://", "--join", str(pool)),
        serving("unix://", "--join", str(pool), "--label", "disk=fast") as fast,
        subprocess.Popen(
            [sys.executable, "-m", "execsrv", *command, "echo $PPID; read line; exit 3"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        assert int(process.stdout.readline()) == fast.pid
        with pool.open("a") as file:
            file.write('{"url": "ws://127.0.0.1:1"}\n{"url": "http://127.0.0.1:1"}\n')
        done = execsrv("ps", "--pool", str(pool), "--json")
        [listed] = json.loads(done.stdout)
        assert (listed["server"], listed["argv"][:2], listed["running"]) == (fast.url, ["sh", "-c"], True)
        assert done.returncode == 125
        assert "cannot list what runs on `ws://127.0.0.1:1`: cannot connect" in done.stderr
        assert "cannot list what runs on `http://127.0.0.1:1`: unsupported URL" in done.stderr
        assert execsrv("ps", "--pool", fast.url).stdout.split()[:3] == ["SERVER", "NAME", "STATE"]
        process.communicate(b"\n", timeout=PATIENCE)
        assert process.returncode == 3
    assert "no server is in the pool" in execsrv("ps", "--pool", str(tmp_path / "none")).stderr
    refused = execsrv("run", "--pool", "ssh://nowhere.invalid", "--no-bring", "true")
    assert (refused.returncode, refused.stderr.split(":")[1]) == (125, " cannot use --no-bring with --pool")
    refused = execsrv("run", "--pool", str(pool), "--detach", "true")
    assert (refused.returncode, refused.stderr.split(":")[1]) == (125, " cannot use --detach with --pool")
