"""The pages that a newcomer follows, from an empty folder: every file saved, every command typed as it is printed."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
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


class Section(NamedTuple):
    """A part of a page that is followed in a folder of its own, with its blocks: language, file, content."""

    name: str
    blocks: list[tuple[str, str, str]]


def sections(page: str, heading: str) -> list[Section]:
    parts = re.split(rf"^{heading} (.*)\n", (ROOT / "docs" / page).read_text(), flags=re.M)
    named = zip(parts[1::2], parts[2::2], strict=True)
    found = [Section(f"{page} {title}", [block[1:] for block in BLOCK.findall(text)]) for title, text in named]
    return [section for section in found if any(block[0] in ("python", "console") for block in section.blocks)]


SECTIONS = [*sections("tutorial.md", "#"), *sections("tasks.md", "##"), *sections("testing.md", "##")]


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
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, **terminal, "PATH": path, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return done.stdout


def compare(said: str, shown: str) -> None:
    """Compare what was printed with a page, where "..." stands for anything, and a pid for another."""
    pattern = re.escape(shown).replace(re.escape("..."), ".*")
    pattern = re.sub(r"pid\\? \d+", r"pid \\d+", pattern)
    assert re.fullmatch(pattern, said, re.S), f"printed:\n{said}\nshown:\n{shown}"


@pytest.mark.parametrize("section", [pytest.param(section, id=section.name) for section in SECTIONS])
def test_a_page_is_followed_from_an_empty_folder(section: Section, tmp_path: Path, tools: str) -> None:
    for program in NEEDED:
        if any(f'["{program}"' in content for _, _, content in section.blocks) and not shutil.which(program):
            pytest.skip(f"needs {program}")
    followed = [*section.blocks, ("", "", "")]
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
