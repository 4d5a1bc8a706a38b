"""The forms of a log: text on a terminal, JSON elsewhere, and a number by which a client finds its error in it."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from execsrv._cli.daemon_log import OutletHandler
from execsrv._cli.log_forms import Json
from execsrv._outlet import open_outlet
from execsrv._server.failures import failure_of
from tests.peers import PATIENCE
from tests.test_daemon import EXECSRV
from tests.test_daemon import execsrv as run_execsrv
from tests.test_reloading import running


def log_of(tmp_path: Path, *args: str, say: list[str] | None = None) -> list[str]:
    """All that a server says on stderr from its start to its end."""
    argv = [*EXECSRV, "serve", "--listen", f"unix://{tmp_path}/s", *args]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            for line in say or []:
                run_execsrv("run", "--url", f"unix://{tmp_path}/s", "sh", "-c", line)
            server.terminate()
            _, log = server.communicate(timeout=PATIENCE)
        finally:
            server.kill()
    return str(log).splitlines()


def events(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_where_nobody_looks_it_is_json(tmp_path: Path) -> None:
    lines = log_of(tmp_path)
    plain = [line for line in lines if not line.startswith("{")]
    assert plain == [f"execsrv listening on unix://{tmp_path}/s"]
    last = events(lines)[-1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", last.pop("time"))
    assert last == {"level": "INFO", "logger": "execsrv._cli.serve", "message": "ending on SIGTERM"}


def test_it_is_what_was_asked_for(tmp_path: Path) -> None:
    lines = log_of(tmp_path, "--log-format", "json")
    assert [line for line in lines if not line.startswith("{")] == []
    assert f"execsrv listening on unix://{tmp_path}/s" in [event["message"] for event in events(lines)]
    lines = log_of(tmp_path, "--log-format", "text")
    assert not events(lines)
    assert lines[-1].endswith(" INFO execsrv._cli.serve: ending on SIGTERM")


@pytest.mark.parametrize(
    ("args", "levels"), [(["--log-level", "warning"], set()), (["--quiet"], set()), ([], {"INFO"})]
)
def test_the_level_is_what_was_asked_for(args: list[str], levels: set[str], tmp_path: Path) -> None:
    assert {event["level"] for event in events(log_of(tmp_path, *args))} == levels


def test_on_a_terminal_it_is_text(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    argv = [*EXECSRV, "serve", "--listen", f"unix://{tmp_path}/s"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=slave) as server:
        assert server.stdout is not None
        server.stdout.readline()
        server.terminate()
        assert server.wait(PATIENCE) == 0
    os.close(slave)
    said = b""
    while b"SIGTERM" not in said:
        said += os.read(master, 4096)
    os.close(master)
    assert b" INFO execsrv._cli.serve: ending on SIGTERM\r\n" in said
    assert b"{" not in said


async def test_the_level_can_be_changed_while_it_runs(tmp_path: Path) -> None:
    file, path = tmp_path / "execsrv.toml", f"{tmp_path}/s"
    file.write_text("log_level = 'info'")
    with running("--listen", f"unix://{path}", "--config", str(file)) as server:
        file.write_text("log_level = 'error'")
        server.process.send_signal(signal.SIGHUP)
        server.until("log_level was info, and is error")
        file.write_text("log_level = 'info'")
        server.process.send_signal(signal.SIGHUP)
        assert "reloaded the settings" in server.until("")
        server.process.terminate()
        server.until("SIGTERM")


# -- JSON --


def logged(tmp_path: Path, say: Any) -> list[dict[str, Any]]:
    path = tmp_path / "log"
    with open(path, "wb") as file, open_outlet(file.fileno()) as outlet:
        handler = OutletHandler(outlet, Json(says_all=True))
        logger = logging.Logger("somebody")
        logger.addHandler(handler)
        say(logger)
        handler.flush()
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("text", ["a\n{}", "\r\x1b[2J\x00\x7f\t", "\x85\u2028\u202e", "\udcff lone", '"}', "é"])
def test_no_text_can_forge_an_event(text: str, tmp_path: Path) -> None:
    (event,) = logged(tmp_path, lambda logger: logger.warning("heard %s", text))
    assert (event["level"], event["logger"]) == ("WARNING", "somebody")
    assert event["message"].startswith("heard ")
    assert event["message"].isprintable()


def test_an_event_is_bounded(tmp_path: Path) -> None:
    def fail(logger: logging.Logger) -> None:
        try:
            raise ValueError("x" * 1_000_000 + "\n" * 1000)
        except ValueError:
            logger.exception("y" * 1_000_000)

    (event,) = logged(tmp_path, fail)
    assert len(event["message"]) == 1027
    assert event["traceback"].startswith("Traceback (most recent call last):\n")
    assert len(event["traceback"]) < 300_000


def test_floods_are_counted_in_json_too(tmp_path: Path) -> None:
    def flood(logger: logging.Logger) -> None:
        for number in range(10_000):
            logger.warning("again and again %d", number)

    said = logged(tmp_path, flood)
    assert len(said) + sum(event.get("moreLikeIt", 0) for event in said) == 10_000
    assert len(said) < 2000


def test_a_client_is_told_where_its_error_is_in_the_log(tmp_path: Path) -> None:
    answers = []

    def fail(logger: logging.Logger) -> None:
        logging.getLogger("execsrv._server.failures").addHandler(logger.handlers[0])
        try:
            for _ in range(2):
                answers.append(failure_of(1, KeyError("secret"), "process/start"))
        finally:
            logging.getLogger("execsrv._server.failures").removeHandler(logger.handlers[0])

    told = logged(tmp_path, fail)
    ids = [answer.error.data["requestId"] for answer in answers]
    assert len({*ids}) == 2
    assert [event["requestId"] for event in told] == ids
    assert all("KeyError" in event["traceback"] for event in told)
    assert "secret" not in repr(answers)
