"""What is said to people at a terminal: by `serve`, what to do next; by `shell`, as much as was asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.faults.daemon import running_daemon
from tests.peers import PATIENCE
from tests.terminals import EXECSRV, cuttable, seen
from tests.test_tokens import write


def test_serve_says_what_to_do_next(tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "EXECSRV_URL": ""}
    with seen("serve", "--listen", "unix://", size=(24, 150), env=env) as server:
        server.see(f"execsrv listening on unix://{tmp_path}/execsrv/socket")
        server.see("  run a command:  execsrv run --url unix:// -- COMMAND\n")
        server.see("  be at a shell:  execsrv shell\n")
        server.see("  see what runs:  execsrv ps\n")
        server.see("  end it:         Ctrl-C")
        done = subprocess.run(
            [*EXECSRV, "run", "--url", "unix://", "--", "echo", "done"],
            capture_output=True,
            text=True,
            env={**os.environ, **env},
            timeout=PATIENCE,
        )
        assert (done.stdout, done.stderr) == ("done\n", "")
        server.type("\x03")
        assert server.end() == 0


def test_it_names_the_url_where_nobody_else_does(tmp_path: Path) -> None:
    with seen("serve", "--listen", "ws://127.0.0.1:0", size=(24, 150), env={"EXECSRV_URL": ""}) as server:
        found = re.search(r"see what runs:  execsrv ps --url (ws://127\.0\.0\.1:\d+)", server.see("Ctrl-C"))
        assert found is not None
    tokens = ["--token-file", str(tmp_path / "tokens")]
    write(tmp_path / "tokens", me="owner")
    with seen("serve", "--listen", "ws://127.0.0.1:0", "--web", *tokens, size=(24, 150)) as server:
        assert re.search(r"\n  open its page:  http://127\.0\.0\.1:\d+/\r?\n", server.see("Ctrl-C"))
    own = f"unix://{tmp_path}/a b"
    with seen("serve", "--listen", own, size=(24, 150), env={"EXECSRV_URL": own}) as server:
        server.see("be at a shell:  execsrv shell\n")


@pytest.mark.parametrize("words", [["--quiet"], ["--log-format", "json"], ["--codex"]])
def test_nobody_is_told_who_does_not_want_to_know(tmp_path: Path, words: list[str]) -> None:
    with seen("serve", "--listen", "ws://127.0.0.1:0", *words, size=(24, 150)) as server:
        server.see("listening on")
        server.type("\x03")
        assert server.end() == 0
        assert "run a command" not in server.text


def test_serve_on_a_terminal_without_a_place_to_listen(tmp_path: Path) -> None:
    with seen("serve", size=(24, 150)) as server:
        server.see("to listen for clients: execsrv serve --listen unix://")
        server.type("\x04")
        assert server.end() == 0


# -- shell --


def test_shell_says_how_it_ended(tmp_path: Path) -> None:
    with running_daemon(tmp_path, "unix") as daemon:
        with seen("shell", "--json", "--verbose", daemon.url, "sh", "-c", "exit 7", size=(24, 200)) as terminal:
            assert terminal.end() == 7
        assert re.search(rf"^execsrv: it runs at {re.escape(daemon.url)} as pid \d+$", terminal.text, re.M)
        assert re.search(r"^execsrv: it ended after [\d.]+ s: exited with status 7$", terminal.text, re.M)
        facts = json.loads(terminal.text.splitlines()[-1])
        assert facts.pop("seconds") > 0
        assert facts == {"how": "exited", "exitCode": 7, "signal": None}
        with seen("shell", "--json", daemon.url, "sh", "-c", "read line") as terminal:
            terminal.type("~.")
            assert terminal.end() == 125
        assert json.loads(terminal.text.splitlines()[-1])["how"] == "leave"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_quiet_shell_says_nothing_of_a_lost_connection(tmp_path: Path, quiet: bool) -> None:
    words = ["--quiet"] if quiet else []
    script = "echo ready; read a; echo got $a; read a"
    with (
        running_daemon(tmp_path, "unix", "--resume-grace", "60") as daemon,
        cuttable(daemon.url, f"{tmp_path}/line") as line,
        seen("shell", *words, line.url, "sh", "-c", script) as terminal,
    ):
        terminal.see("ready")
        line.cut()
        if not quiet:
            terminal.see("the connection is lost")
        line.mend()
        terminal.line("one")
        terminal.see("got one")
        assert (b"connection is lost" in terminal.output) is not quiet
