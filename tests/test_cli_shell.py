"""`execsrv shell` as a person meets it: real programs at a real terminal, drawn by an emulator."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from execsrv._cli.escape_keys import EscapeKeys, parse_key
from execsrv._cli.repainting import Modes
from execsrv.errors import ExecsrvError
from tests.peers import PATIENCE
from tests.processes import marked, new_mark
from tests.terminals import EXECSRV, Seen, cuttable, seen, seen_program


@contextmanager
def server(listen: str, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server whose shells are bash, and read no settings of whoever runs the tests."""
    env = {**os.environ, "HOME": "/tmp", "SHELL": "/bin/bash"}
    argv = [*EXECSRV, "serve", "--quiet", "--listen", listen, *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with server(f"unix://{tmp_path}/s", "--resume-grace", "60") as (url, _):
        yield url


def at_prompt(terminal: Seen) -> None:
    """Have a prompt that is known, and nothing else on the screen."""
    terminal.see(r"[$#] ?$")
    terminal.line("PS1='rea''dy> '; clear")
    terminal.see(r"\Aready>$")


def until_size(rows: int, cols: int) -> str:
    """Return what waits in a shell until its terminal has that size: it has others for a moment, to be painted anew."""
    # Asked once: it may have another again by the time that it is told.
    return f"until size=$(stty size); [ \"$size\" = '{rows} {cols}' ]; do sleep 0.05; done; echo it is $size"


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not here: {' '.join(missing)}")


def test_it_is_a_login_shell_of_the_size_and_locale_of_the_terminal(url: str) -> None:
    with seen("shell", url, size=(30, 100), env={"LC_TIME": "de_DE.UTF-8", "COLORTERM": "truecolor"}) as terminal:
        at_prompt(terminal)
        terminal.line("shopt login_shell; echo $0 $TERM $LC_TIME $COLORTERM; stty size")
        shown = terminal.see("^30 100$")
        assert "\nlogin_shell" in shown
        assert "on\n-bash xterm-256color de_DE.UTF-8 truecolor\n30 100" in shown
        terminal.resize(40, 120)
        terminal.line(f"clear; {until_size(40, 120)}")
        terminal.see("^it is 40 120$")
        terminal.line("exit 7")
        assert terminal.end() == 7


def test_job_control(url: str) -> None:
    with seen("shell", url) as terminal:
        at_prompt(terminal)
        terminal.line("sleep 1000")
        terminal.type("\x1a")
        terminal.see(r"Stopped\s+sleep 1000")
        terminal.line("bg; jobs; fg")
        terminal.see(r"Running\s+sleep 1000 &[^$]*sleep 1000$")
        terminal.type("\x03")
        terminal.line("echo status $?")
        terminal.see("^status 130$")
        terminal.line("(exit 5)")
        terminal.type("\x04")
        assert terminal.end() == 5


@pytest.mark.slow
@needs("vim", "less", "top", "tmux")
def test_full_screen_programs(url: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("".join(f"line {number}\n" for number in range(1, 201)))
    with seen("shell", url) as terminal:
        at_prompt(terminal)

        terminal.line(f"vim -Nu NONE {text}")
        terminal.see(r"\Aline 1\n(?s:.*)line 23$")
        assert terminal.emulator.is_alternate
        terminal.resize(12, 60)
        terminal.see(r"\Aline 1\n(?s:.*)line 11$")
        terminal.type("50Gonew words\x1b:wq\r")
        terminal.see("ready>$")
        assert not terminal.emulator.is_alternate
        assert text.read_text().splitlines()[50] == "new words"
        terminal.resize(24, 80)

        terminal.line(f"clear; less {text}")
        terminal.see(r"\Aline 1\n(?s:.*)line 23$")
        terminal.type("G")
        terminal.see(r"line 200\n\(END\)")
        terminal.type("q")
        terminal.see("ready>$")

        terminal.line("clear; top -d 60")
        terminal.see(r"\Atop - (?s:.*)PID +USER")
        terminal.type("q")
        terminal.see("ready>$")

        terminal.line(f"clear; tmux -f /dev/null -S {tmp_path}/tmux new -s inner 'PS1=inner sh'")
        terminal.see(r"inner(?s:.*)^\[inner\]")
        terminal.type("\x02%")  # split it
        terminal.see(lambda shown: shown.count("│") >= 20)
        terminal.resize(16, 70)
        terminal.see(lambda shown: 10 <= shown.count("│") <= 15 and "[inner]" in shown.splitlines()[15])
        terminal.type("\x02:")
        terminal.see("^:$")
        terminal.line("kill-server")
        terminal.see("ready>$")
        terminal.line("exit 0")
        assert terminal.end() == 0


def test_the_escape_keys(url: str) -> None:
    mark = new_mark()
    with seen("shell", url) as terminal:
        at_prompt(terminal)
        terminal.line("echo a~. b; stty -echo -icanon -isig; cat -v")
        terminal.see("^a~. b$")
        terminal.type("x\r~~.~q")  # not an escape: the key itself, and a tilde that is not at the start
        terminal.see(r"^~\.~q$")
        terminal.type("\r~?")
        terminal.see(r"~\.   end it(?s:.*)the key itself")
        terminal.type("\r~.")
        assert terminal.end() == 125
    with seen("shell", "--escape", "^]", url) as terminal:
        at_prompt(terminal)
        terminal.line(f"trap '' TERM HUP INT; exec -a {mark} sleep 1000")
        terminal.type("~.")
        terminal.see("~.")
        terminal.type("\x1d.")
        assert terminal.end() == 125
    assert not marked(mark)


def test_it_is_suspended_and_continued_by_the_shell_around_it(url: str) -> None:
    with seen_program(["bash", "--norc"], (24, 80), {"PS1": "outer> ", "COMMAND": " ".join(EXECSRV)}) as terminal:
        terminal.see("outer>$")
        terminal.line(f"$COMMAND shell {url}")
        at_prompt(terminal)
        terminal.line("echo it has $$")
        terminal.see("^it has [0-9]+$")
        terminal.type("~\x1a")
        terminal.see(r"Stopped(?s:.*)outer>$")
        terminal.resize(20, 70)
        terminal.line("clear; fg")
        terminal.see("shell")
        terminal.line(f"clear; {until_size(20, 70)}")
        terminal.see("^it is 20 70\nready>$")
        terminal.line("exit 3")
        terminal.see("outer>$")
        terminal.line("echo status $?; stty -a")
        shown = terminal.see("echoke")
        assert "status 3" in shown
        assert " icanon " in f" {shown} ".replace("\n", " ")


@pytest.mark.few
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_and_the_terminal_is_as_before(url: str, number: int) -> None:
    with seen("shell", url) as terminal:
        before = termios.tcgetattr(terminal.program.child_fd)
        at_prompt(terminal)
        assert termios.tcgetattr(terminal.program.child_fd) != before
        terminal.line("printf '\\033[?1049h\\033[?1000h\\033[?25lseen''it'")
        terminal.see("seenit")
        os.kill(terminal.program.pid, number)
        assert terminal.end() == -number
        assert not terminal.emulator.is_alternate
        assert not terminal.emulator.cursor.hidden
        assert b"\x1b[?1000l" in terminal.output


@pytest.mark.slow
def test_a_lost_connection_comes_back_and_the_screen_is_painted_anew(url: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("".join(f"line {number}\n" for number in range(1, 201)))
    with cuttable(url, f"{tmp_path}/line") as line, seen("shell", line.url) as terminal:
        at_prompt(terminal)
        terminal.line("echo it is $$ | tee pid; (sleep 1; echo behind)")
        shown = terminal.see("^it is [0-9]+$")
        line.cut()
        terminal.see(r"\[execsrv: the connection is lost; trying for 60 s to come back; ~\. gives up\]")
        line.mend()
        terminal.see(r"\[execsrv: connected again\](?s:.*)behind\nready>$|behind(?s:.*)connected again\](?s:.*)ready>$")
        terminal.line("clear; echo it is $$")
        assert terminal.see("^it is [0-9]+\nready>$").splitlines()[0] in shown  # the same shell
        terminal.line(f"vim -Nu NONE {text}")
        terminal.see(r"\Aline 1\n(?s:.*)line 23$")
        whole = terminal.text
        line.cut()
        terminal.see("the connection is lost")
        terminal.type("5G")  # what is typed meanwhile is not lost
        line.mend()
        terminal.see(lambda shown: "execsrv" not in shown and "line 23" in shown and terminal.emulator.cursor.y == 4)
        assert terminal.text.splitlines()[:22] == whole.splitlines()[:22]
        terminal.type(":q!\r")
        terminal.see("ready>$")
        line.cut()
        terminal.see("the connection is lost")
        terminal.type("\r~.")
        assert terminal.end() == 125


@pytest.mark.few
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, b"\r~."])
def test_a_resize_and_a_repaint_that_nobody_answers_keep_nobody_from_leaving(
    url: str, tmp_path: Path, how: int | bytes
) -> None:
    with cuttable(url, f"{tmp_path}/line") as line, seen("shell", line.url) as terminal:
        at_prompt(terminal)
        line.silence()
        terminal.resize(30, 100)
        terminal.type("\r~r")
        for _ in range(100):  # so many keys one by one
            terminal.output = b""
            os.write(terminal.program.child_fd, b"x\r~?")
            terminal.see(lambda _: b"the key itself" in terminal.output)
        if isinstance(how, bytes):
            terminal.type(how)
        else:
            os.kill(terminal.program.pid, how)
        assert terminal.end() == (125 if isinstance(how, bytes) else -how)


def test_a_lost_server_is_an_error_of_ours(tmp_path: Path) -> None:
    with server(f"unix://{tmp_path}/s") as (url, process), seen("shell", "--reconnect", "0", url) as terminal:
        at_prompt(terminal)
        process.kill()
        assert terminal.end() == 125
        assert "execsrv: " in terminal.text


def test_without_a_terminal_it_reads_a_script(url: str) -> None:
    done = subprocess.run(
        [*EXECSRV, "shell", url],
        input="echo out; echo err >&2; tty; exit 4\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\nnot a tty\n", "err\n")


def test_a_command_has_the_place_of_the_shell(url: str) -> None:
    with seen("shell", url, "--", "sh", "-c", "tty; stty size; exit 9", size=(11, 44)) as terminal:
        assert terminal.end() == 9
        assert "/dev/pts/" in terminal.text
        assert terminal.text.endswith("11 44")


# -- one that is kept, and those who come to it --


@pytest.mark.slow
def test_a_kept_shell_is_left_and_brought_back_from_another_terminal(url: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("".join(f"line {number}\n" for number in range(1, 201)))
    with seen("shell", "--name", "work", url) as terminal:
        at_prompt(terminal)
        terminal.line(f"clear; vim -Nu NONE {text}")
        terminal.see(r"\Aline 1\n(?s:.*)line 23$")
        terminal.type("\r~d")
        assert terminal.end() == 0
        assert not terminal.emulator.is_alternate
        assert terminal.text.endswith("execsrv: `work` goes on; `execsrv attach work` brings it back")
    with seen("shell", "--name", "work", url) as terminal:
        assert terminal.end() == 125
        assert "the name `work` is in use" in terminal.text.replace("\n", "")
    with seen("attach", "--url", url, "work", size=(12, 60)) as terminal:
        terminal.see(r"^line 11$")
        assert terminal.emulator.is_alternate
        terminal.type("gg")  # with less height it may have scrolled to the line of the cursor
        terminal.see(r"\Aline 1\n(?s:.*)line 11$")
        terminal.type(":q\r")
        terminal.see("ready>$")
        terminal.line(f"clear; {until_size(12, 60)}; exit 6")
        assert terminal.end() == 6
    with seen("shell", "--name", "work", url) as terminal:  # the name is free again
        at_prompt(terminal)
        terminal.line("exit 0")
        assert terminal.end() == 0


@pytest.mark.few
@pytest.mark.parametrize("how", ["signal", "hang up"])
def test_a_kept_shell_outlives_its_terminal(url: str, how: str) -> None:
    with seen("shell", "--name", "work", url) as terminal:
        at_prompt(terminal)
        terminal.line("echo it is $$")
        told = terminal.see("^it is [0-9]+$").splitlines()[1]
        if how == "signal":
            os.kill(terminal.program.pid, signal.SIGHUP)
            assert terminal.end() == -signal.SIGHUP
    with seen("attach", "--url", url, "work") as terminal:
        terminal.see("^it is [0-9]+$")
        terminal.line("clear; echo it is $$")
        assert told in terminal.see("^it is [0-9]+\nready>$")
        terminal.line("exit 0")
        assert terminal.end() == 0


@pytest.mark.few
@pytest.mark.parametrize("ends", [False, True])
def test_who_is_attached_comes_back_to_a_server_that_resumes_nothing(tmp_path: Path, ends: bool) -> None:
    script = "echo begun; read line; echo got $line; exit 5"
    with server(f"unix://{tmp_path}/s") as (url, _), cuttable(url, f"{tmp_path}/line") as line:
        with seen("run", "-dt", "--url", url, "--name", "ask", "--", "sh", "-c", script) as terminal:
            assert terminal.end() == 0
        with seen("attach", "--url", line.url, "ask") as terminal:
            terminal.see(r"\Abegun$")
            line.cut()
            terminal.see(r"\[execsrv: the connection is lost; trying for 60 s to come back; ~\. gives up\]")
            if ends:
                with seen("attach", "--url", url, "ask") as other:
                    other.line("other")
                    assert other.end() == 5
            line.mend()
            terminal.see(r"\[execsrv: connected again\]")
            if not ends:
                terminal.line("mine")
            assert terminal.end() == 5
            assert f"got {'other' if ends else 'mine'}" in terminal.text
            assert terminal.text.count("begun") == 1  # nothing is shown twice


@pytest.mark.slow
def test_several_are_at_one_shell_and_the_last_to_change_his_size_has_it(url: str) -> None:
    with seen("shell", "--name", "work", url) as first:
        at_prompt(first)
        with seen("attach", "--url", url, "--detach-key", "^]", "work", size=(20, 70)) as second:
            second.see("ready>$")
            second.line(f"clear; {until_size(20, 70)}")
            for terminal in (first, second):
                terminal.see("^it is 20 70$")
            first.resize(30, 100)
            first.line(f"clear; {until_size(30, 100)}")
            for terminal in (first, second):
                terminal.see("^it is 30 100$")
            second.type("\r~?")
            second.see(r"~d +detach: it goes on")
            second.type("in the midst of a line\x1d")
            assert second.end() == 0
        first.see("in the midst of a line$")
        first.type("\x15exit 0\r")
        assert first.end() == 0


def test_a_terminal_without_a_terminal_there_edits_its_own_lines(url: str) -> None:
    script = "while read line; do echo got $line; done"
    with seen("run", "-di", "--url", url, "--name", "ask", "--", "sh", "-c", script) as terminal:
        assert terminal.end() == 0
    with seen("attach", "--url", url, "ask") as terminal:
        terminal.type("won\x7f\x7fne\r")
        terminal.see(r"\Awne\ngot wne$")
        terminal.type("\x04")
        assert terminal.end() == 0
        assert "left `ask`, which goes on" in terminal.text


# -- its parts --


@pytest.mark.parametrize(
    ("option", "key"),
    [("~", 126), ("^]", 29), ("ctrl-p", 16), ("C-\\", 28), ("^?", 127), ("none", None), ("%", 37)],
)
def test_names_of_keys(option: str, key: int | None) -> None:
    assert parse_key("--escape", option) == key


@pytest.mark.parametrize("option", ["", "ab", "ä", "\n", "ctrl-", "^1"])
def test_what_is_no_key(option: str) -> None:
    with pytest.raises(ExecsrvError, match="invalid --escape"):
        parse_key("--escape", option)


ACTIONS = {ord("."): "leave", ord("?"): "help"}


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        (b"abc", [b"abc"]),
        (b"~.", ["leave"]),
        (b"a~.", [b"a~."]),
        (b"a\r~.b", [b"a\r", "leave", b"b"]),
        (b"~~.", [b"~."]),
        (b"~x~.", [b"~x~."]),
        (b"~?~.", ["help", "leave"]),
        (b"\n~?ls\r", [b"\n", "help", b"ls\r"]),
        (b"~", []),
    ],
)
def test_escapes_in_whole_and_by_single_keys(typed: bytes, taken: list[bytes | str]) -> None:
    assert EscapeKeys(126, ACTIONS).take(typed) == taken
    keys = EscapeKeys(126, ACTIONS)
    single = [part for key in typed for part in keys.take(bytes([key]))]
    assert _joined(single) == taken


def _joined(parts: list[bytes | str]) -> list[bytes | str]:
    joined: list[bytes | str] = []
    for part in parts:
        if joined and isinstance(part, bytes) and isinstance(last := joined[-1], bytes):
            joined[-1] = last + part
        else:
            joined.append(part)
    return joined


def test_modes_are_undone_wherever_the_output_is_cut() -> None:
    output = b"a\x1b[?1049;1006hb\x1b[?25l\x1b=\x1b[31m\x1b[?1006l\x1b[?7l"
    wanted = b"\x1b[m\x1b[?7h\x1b[?25h\x1b[?1049l\x1b>"
    for at in range(len(output) + 1):
        modes = Modes()
        modes.note(output[:at])
        modes.note(output[at:])
        assert modes.undo() == wanted
    bytewise = Modes()
    for byte in output:
        bytewise.note(bytes([byte]))
    assert bytewise.undo() == wanted
    bytewise.note(b"\x1bc")
    assert bytewise.undo() == b"\x1b[m"
    assert Modes().undo() == b""
