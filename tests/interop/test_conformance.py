"""The conformance kit and the exec-server of the Codex CLI: the page says truthfully where that differs."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import trio

from execsrv.conformance import check
from execsrv.conformance.report import line, summary

PAGE = Path(__file__).parent.parent.parent / "docs" / "conformance.md"


def test_the_page_says_how_the_server_of_the_cli_stands(codex_program: str, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "CODEX_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    words = [codex_program, "exec-server", "--listen", "ws://127.0.0.1:0"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().decode().strip()
            found = trio.run(partial(check, url, patience=10))
        finally:
            process.terminate()
    page = PAGE.read_text()
    for said in summary(found):
        assert f"{said}\n" in page, "\n".join(summary(found))
    told = page.partition("## Codex")[2]
    for verdict in found:
        if verdict.kind != "ok" and verdict.case.suite not in ("commands", "additions"):
            assert f"| {verdict.case.title} |" in told, line(verdict)
