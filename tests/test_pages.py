"""The pages that a newcomer follows, from an empty folder: every file saved, every command typed as it is printed."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from execsrv.testing import assert_no_strays

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\{code-block\} )?(\w+)\n(?::caption: (\S+)\n\n)?(.*?)^```", re.S | re.M)
NEEDED = ("gdb", "sqlite3")
"""Programs that a machine may lack."""

PORT = re.compile(r"\b812\d\b")
"""Ports of the pages. Others are used for them here, where several may follow a page at once."""


class Section(NamedTuple):
    """A part of a page that is followed in a folder of its own, with its blocks: language, file, content."""

    name: str
    blocks: list[tuple[str, str, str]]


def sections(page: str, heading: str) -> list[Section]:
    parts = re.split(rf"^{heading} (.*)\n", (ROOT / "docs" / page).read_text(), flags=re.M)
    named = zip(parts[1::2], parts[2::2], strict=True)
    found = [Section(f"{page} {title}", [block[1:] for block in BLOCK.findall(text)]) for title, text in named]
    return [section for section in found if any(block[0] in ("python", "console") for block in section.blocks)]


FOLLOWED = [("tutorial.md", "#"), ("tasks.md", "##"), ("testing.md", "##"), ("conformance.md", "#")]
SECTIONS = [section for page, heading in FOLLOWED for section in sections(page, heading)]


_QUIET = {"PYTEST_ADDOPTS": "-o asyncio_default_fixture_loop_scope=function"}
"""pytest-asyncio asked all who had it to choose a scope of loops; the pages are followed by people without it."""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PATH of somebody who has activated the environment of this Python, with this execsrv in it."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "execsrv").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m execsrv "$@"\n')
    (folder / "execsrv").chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def type_in(folder: Path, command: str, path: str) -> str:
    """Return what a command of a user prints."""
    terminal = {"TERM": "dumb", "PYTHON_BASIC_REPL": "1", "LC_ALL": "C.UTF-8"}
    installed = {"PYTEST_PLUGINS": "execsrv.testing.pytest_plugin"}  # an older installation may lack the entry point
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, **terminal, **installed, "PATH": path, "PYTHONPATH": str(ROOT), **_QUIET},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return done.stdout


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def compare(said: str, shown: str) -> None:
    """Compare what was printed with a page, where "..." stands for anything, and a pid for another."""
    pattern = re.escape(shown).replace(re.escape("..."), ".*")
    pattern = re.sub(r"pid\\? \d+", r"pid \\d+", pattern)
    assert re.fullmatch(pattern, said, re.S), f"printed:\n{said}\nshown:\n{shown}"


@pytest.mark.few(3)
@pytest.mark.parametrize("section", [pytest.param(section, id=section.name) for section in SECTIONS])
def test_a_page_is_followed_from_an_empty_folder(section: Section, tmp_path: Path, tools: str) -> None:
    for program in NEEDED:
        if any(f'["{program}"' in content for _, _, content in section.blocks) and not shutil.which(program):
            pytest.skip(f"needs {program}")
    port = str(free_port())
    blocks = [(language, file, PORT.sub(port, content)) for language, file, content in section.blocks]
    followed = [*blocks, ("", "", "")]
    with assert_no_strays():
        for (language, file, content), (after, _, shown) in itertools.pairwise(followed):
            if file:
                (tmp_path / file).write_text(content)
            elif language == "python":
                (tmp_path / "program.py").write_text(content)
                compare(type_in(tmp_path, "python program.py", tools), shown if after == "text" else "")
            elif language == "console":
                for line, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", content, re.M):
                    compare(type_in(tmp_path, line, tools), printed)


# -- the comparison --

COMPARISON = (ROOT / "docs" / "comparison.md").read_text()
LIBRARIES = ["subprocess", "pexpect", "asyncssh"]
RIVALS = [(file, content) for _, _, file, content in BLOCK.findall(COMPARISON)]
FRAME = re.compile(r"\s*$|\s*#|(import|from) |async def main\(|(trio|asyncio)\.run\(main")
"""Lines that the comparison does not count."""


def lines(program: str) -> str:
    return str(sum(not FRAME.match(line) for line in program.splitlines()))


def test_the_comparison_counts_right() -> None:
    tasks = {section.name.removeprefix("tasks.md "): section.blocks for section in sections("tasks.md", "##")}
    compared = 0
    for title, *told in re.findall(r"^\| \[(.*?)\]\S+ \| \d+ \|" + r" (\d*) +\|" * 5, COMPARISON, re.M):
        programs = [content for language, _, content in tasks[title] if language == "python"]
        plain = next((lines(program) for program in programs if "import execsrv.sync" in program), "")
        part = COMPARISON.partition(f"### {title}\n")[2].partition("\n### ")[0]
        rivals = {file.partition("-")[2]: lines(content) for _, _, file, content in BLOCK.findall(part)}
        counted = [lines(programs[0]), plain, *(rivals.get(f"{library}.py", "") for library in LIBRARIES)]
        assert told == counted, title
        compared += len(rivals)
    assert compared == len(RIVALS) > 10


@pytest.mark.few(3)
@pytest.mark.parametrize(
    "code", [pytest.param(code, id=file) for file, code in RIVALS if not file.endswith("asyncssh.py")]
)
def test_a_program_of_the_comparison_runs(code: str, tmp_path: Path, tools: str) -> None:
    if '"gdb' in code and not shutil.which("gdb"):
        pytest.skip("needs gdb")
    (tmp_path / "program.py").write_text(PORT.sub(str(free_port()), code))
    # The run ends what such a program leaves behind.
    said = type_in(tmp_path, "execsrv run -- python program.py 2>&1 && echo fine", tools)
    assert said.endswith("fine\n"), said
