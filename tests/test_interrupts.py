"""Ctrl-C at commands that ask a server: what they had to put back is put back, and they die of it, without a word."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from execsrv import launch
from execsrv.protocol import ProcessListing
from tests.peers import PATIENCE
from tests.processes import marked, new_mark
from tests.terminals import EXECSRV, seen
from tests.test_cli_files import editor

FULL_SCREEN = r"printf '\033[?1049h\033[?1000h\033[?25lseen''it'; sleep 1000"


def execsrv(*words: str, url: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "EXECSRV_URL": url}
    return subprocess.run([*EXECSRV, *words], capture_output=True, text=True, env=env, timeout=PATIENCE)


@contextmanager
def silent_server(folder: Path) -> Iterator[tuple[str, socket.socket]]:
    """A server that takes calls, and never answers."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        server.listen()
        server.settimeout(PATIENCE)
        yield f"unix://{folder}/s", server


def until_marked(mark: str, *, there: bool) -> None:
    deadline = time.monotonic() + PATIENCE
    while bool(marked(mark)) != there:
        assert time.monotonic() < deadline, f"{mark} is {'not there' if there else 'still there'}"
        time.sleep(0.01)


@pytest.mark.few(2)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_the_log_of_a_full_screen_program_leaves_the_terminal_as_it_was(url: str, number: int) -> None:
    assert execsrv("run", "-dt", "--name", "full", "sh", "-c", FULL_SCREEN, url=url).returncode == 0
    with seen("logs", "-f", "full", env={"EXECSRV_URL": url}) as terminal:
        terminal.see("seenit")
        assert terminal.emulator.is_alternate
        os.kill(terminal.program.pid, number)
        assert terminal.end() == -number
        assert b"\x1b[?1049l" in terminal.output
        assert b"\x1b[?1000l" in terminal.output
        assert not terminal.emulator.is_alternate
        assert not terminal.emulator.cursor.hidden
        assert "Traceback" not in terminal.text


def test_a_server_that_has_answered_what_is_not_waited_for_any_more_has_nothing_to_say(tmp_path: Path) -> None:
    """It speaks msgpack already, and the client has not heard of that."""
    server = shlex.join([*EXECSRV, "serve", "--log-level", "warning"])
    late = tmp_path / "late.sh"
    late.write_text(f"{server} | (dd bs=1 count=1 of={tmp_path}/answered 2>/dev/null; exec cat >/dev/null)\n")
    words = [*EXECSRV, "run", "--reconnect", "10", "--url", f"exec:sh {late}", "--", "true"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "answered").exists() or not (tmp_path / "answered").stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (-signal.SIGINT, b"")


def test_an_interrupt_is_heard_while_a_type_is_looked_at_for_the_first_time() -> None:
    """Of errors in there msgspec says nothing, and an interrupt is one."""
    interrupts: list[signal.Signals] = []

    class Interrupting(type):
        def __hash__(cls) -> int:
            if interrupts:
                signal.raise_signal(interrupts.pop())
            return super().__hash__()

    class Field(metaclass=Interrupting):
        pass

    listing = msgspec.defstruct("Listing", [("processes", list[Any]), ("field", Field | None, None)])

    async def main() -> None:
        async with launch() as client:
            interrupts.append(signal.SIGINT)
            await client._connection.calls.call("process/list", ProcessListing(), listing)
            await trio.sleep(PATIENCE)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job of a script ignores
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.few(2)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_what_was_being_left_running_is_ended(url: str, number: int) -> None:
    """Nobody has read its name, so nobody would find it."""
    mark = new_mark()
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        argv = [*EXECSRV, "run", "-d", "-u", url, "bash", "-c", f"exec -a {mark} sleep 1000"]
        with subprocess.Popen(argv, stdout=writer, stderr=subprocess.PIPE, text=True) as program:
            assert program.stderr is not None
            until_marked(mark, there=True)
            program.send_signal(number)
            assert program.stderr.read() == ""
            assert program.wait(PATIENCE) == -number
    finally:
        os.close(reader)
        os.close(writer)
    until_marked(mark, there=False)


def test_a_signal_ends_who_waits_for_an_editor(url: str, tmp_path: Path) -> None:
    env = {"EXECSRV_URL": url, "VISUAL": shlex.quote(editor(tmp_path, "echo editing; read line"))}
    with seen("files", "edit", str(tmp_path / "file"), env=env) as terminal:
        terminal.see("editing")
        os.kill(terminal.program.pid, signal.SIGTERM)
        terminal.program.wait()
        assert terminal.end() == -signal.SIGTERM


def test_an_editor_has_the_key_to_itself(url: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    script = """trap 'got=1' INT; echo editing; until [ "$got" ]; do sleep .05; done; read line; echo "$line" > "$1" """
    env = {"EXECSRV_URL": url, "VISUAL": shlex.quote(editor(tmp_path, script))}
    with seen("files", "edit", str(path), env=env) as terminal:
        terminal.see("editing")
        terminal.type("\x03")
        terminal.line("mine")
        assert terminal.end() == 0, terminal.text
    assert path.read_text() == "mine\n"


@pytest.mark.few
@pytest.mark.parametrize("words", [["logs", "large"], ["files", "cat", "HERE/large"]])
def test_output_that_nobody_reads_holds_up_no_interrupt(url: str, words: list[str], tmp_path: Path) -> None:
    flood = ["sh", "-c", "yes | head -c 1000000 | tee large"]
    assert execsrv("run", "-d", "--name", "large", "--cwd", str(tmp_path), *flood, url=url).returncode == 0
    assert execsrv("wait", "large", url=url).returncode == 0
    argv = [*EXECSRV, *(word.replace("HERE", str(tmp_path)) for word in words), "-u", url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        os.read(program.stdout.fileno(), 1)
        program.send_signal(signal.SIGINT)
        assert program.wait(PATIENCE) == -signal.SIGINT
        assert program.stderr.read() == b""


def test_an_interrupt_that_was_to_be_ignored_is(url: str) -> None:
    assert execsrv("run", "-di", "--name", "it", "sh", "-c", "echo ready; read x; echo over", url=url).returncode == 0
    script = f"trap '' INT; exec {shlex.join(EXECSRV)} logs -f it -u {shlex.quote(url)}"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGINT)
        subprocess.run([*EXECSRV, "attach", "it", "-u", url], input="\n", text=True, timeout=PATIENCE, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        assert program.stdout.read() == "over\n"
        assert program.wait(PATIENCE) == 0


MOMENTS = ["execsrv._cli", "msgspec", "trio", "execsrv.client", "execsrv._cli.terminal", "execsrv._cli.calling"]


@pytest.mark.few(2)
@pytest.mark.parametrize("module", MOMENTS)
def test_an_interrupt_while_it_is_being_loaded_is_quiet(module: str, tmp_path: Path) -> None:
    with silent_server(tmp_path) as (url, _):
        argv = [sys.executable, "-X", "importtime", *EXECSRV[1:], "logs", "-u", url, "x"]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as program:
            assert program.stderr is not None
            while program.stderr.readline().rpartition("|")[2].strip() != module:
                assert program.poll() is None
            program.send_signal(signal.SIGINT)
            rest = program.stderr.read()
            assert program.wait(PATIENCE) == -signal.SIGINT
    assert not [line for line in rest.splitlines() if not line.startswith("import time:")]


@pytest.mark.few
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [["logs", "x"], ["run", "-d", "true"], ["ps"], ["cp", "x", ":x"]])
def test_an_interrupt_while_a_server_does_not_answer_is_quiet(command: list[str], number: int, tmp_path: Path) -> None:
    with silent_server(tmp_path) as (url, server):
        argv = [*EXECSRV, *command[:1], "-u", url, *command[1:]]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as program:
            with server.accept()[0]:
                program.send_signal(number)
                assert program.communicate(timeout=PATIENCE)[1] == ""
            assert program.returncode == -number
