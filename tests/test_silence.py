"""The line about a command that is silent for long: seen while it is, gone before anything else is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from execsrv._cli.progress import Foot, Meter
from execsrv._cli.silence import Silence
from tests.terminals import Seen, put_away

CLEAR = "\r\x1b[K"
LINE = r"execsrv: running for [\d.]+ s, "

HASTY = """
import sys
from execsrv._cli import app, silence
silence.SILENT_SECONDS, silence._SAY_SECONDS = 0.2, 0.05
sys.argv[0] = "execsrv"
app.main()
"""
"""The command line, which finds everything long."""


def run_at_terminal(*words: str, cols: int = 100) -> Seen:
    return Seen([sys.executable, "-c", HASTY, "run", *words], (10, cols), {})


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_silent_command_is_told_of_and_its_output_is_left_alone(url: str, tmp_path: Path, place: str) -> None:
    gate = tmp_path / "gate"
    where = ["-u", url] if place == "there" else ["--progress"]
    script = f"echo first; while [ ! -e {gate} ]; do sleep .05; done; echo second"
    terminal = run_at_terminal(*where, "-n", "--", "sh", "-c", script)
    try:
        terminal.see(f"first\n{LINE}silent for [\\d.]+ s, 6 B came; the last: first$")
        gate.touch()
        assert terminal.end() == 0
        assert terminal.text == "first\nsecond"
        drawn = re.sub(rf"{re.escape(CLEAR)}({LINE}[^\r]*)?", "", terminal.output.decode())
        assert drawn == "first\r\nsecond\r\n"
    finally:
        put_away(terminal.program)


def test_one_that_has_said_nothing(url: str) -> None:
    terminal = run_at_terminal("-u", url, "-n", "sleep", "1000")
    try:
        terminal.see(f"{LINE}and nothing came$")
        terminal.type("\x03")
        terminal.end()
        assert "running" not in terminal.text
    finally:
        put_away(terminal.program)


def test_the_midst_of_a_line_is_left_alone(url: str, tmp_path: Path) -> None:
    terminal = run_at_terminal("-u", url, "-n", "sh", "-c", "printf 'compiling... '; sleep 1; echo done")
    try:
        assert terminal.end() == 0
        assert (terminal.text, terminal.output) == ("compiling... done", b"compiling... done\r\n")
    finally:
        put_away(terminal.program)


@pytest.mark.few
@pytest.mark.parametrize("words", [["-q"], ["--json"], ["--no-progress"], ["-t"]])
def test_nothing_is_said_where_nobody_wants_it(url: str, words: list[str]) -> None:
    terminal = run_at_terminal("-u", url, *words, "--", "sh", "-c", "sleep 1; echo done")
    try:
        assert terminal.end() == 0
        assert terminal.output.startswith(b"done\r\n")
    finally:
        put_away(terminal.program)


def test_nothing_lies_between_without_being_asked_for() -> None:
    terminal = run_at_terminal("--", "sh", "-c", "test -t 1 && test -t 2 && sleep 1 && echo done")
    try:
        assert terminal.end() == 0
        assert terminal.output == b"done\r\n"
    finally:
        put_away(terminal.program)


class Drawn(Foot):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def _write(self, text: str) -> bool:
        self.said.append(text)
        return True


def test_the_last_line_is_shown_without_what_moves_the_cursor() -> None:
    now = 0.0
    silence = Silence(lambda: now, Drawn())
    assert not silence.is_long
    silence.output(1, b"x" * 5000 + b"\n\x1b[31m 40%\r\x1b]0;title\x07 50% \x1b[0mof\tit\r\n\n")
    now = 9.9
    assert not silence.is_long
    now = 75.0
    assert silence.is_long
    assert silence.text == "execsrv: running for 1 m 15 s, silent for 1 m 15 s, 4.9 KiB came; the last: 50% of\\tit"


def test_a_line_is_cut_at_the_edge_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("execsrv._cli.progress.columns", lambda: 20)
    foot = Drawn()
    foot.draw("a" * 19)
    foot.draw("a" * 20)
    foot.clear()
    foot.clear()
    assert foot.said == [CLEAR + "a" * 19, CLEAR + "a" * 18 + "…", CLEAR]


def test_rate_and_rest_are_those_of_late() -> None:
    now = 0.0
    meter = Meter(lambda: now)
    meter.add(1000 << 20, moved=False)
    assert meter.rate == 0
    for second in range(1, 11):
        now = second
        meter.add((1 if second <= 5 else 10) << 20)
        assert meter.rate > 0
    assert meter.rate == 10 << 20
    assert meter.shown() == "1.0 GiB  10.0 MiB/s"
    meter.total = 2 * meter.done
    assert meter.shown() == " 50% [##########          ] 1.0 GiB of 2.1 GiB  10.0 MiB/s  1 m 46 s left"
    meter.total = meter.done + 1
    assert meter.shown().startswith(" 99% [################### ]")
    meter.total = 0
    assert meter.shown().startswith("100% [####################]")
