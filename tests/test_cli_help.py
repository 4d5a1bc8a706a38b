"""The register of commands: its help, its man page and its documentation, and what is said of mistakes."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pexpect
import pytest

from execsrv._cli import parsing, typer_parsing
from execsrv._cli.help import command_help
from execsrv._cli.man import roff
from execsrv._cli.parsing import HelpWantedError
from execsrv._cli.register import GROUPS, command, commands, names
from execsrv._cli.register.kinds import Command
from execsrv._cli.usage import UsageError
from tests.peers import PATIENCE
from tests.terminals import put_away

ROOT = Path(__file__).parent.parent
EXECSRV = [sys.executable, "-m", "execsrv"]
PARSERS = [pytest.param(parsing.parsed, id="own"), pytest.param(typer_parsing.parsed, id="typer")]
Parser = Callable[[Command, Sequence[str]], dict[str, Any]]


def execsrv(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    plain = {"PATH": "/usr/bin:/bin", "COLUMNS": "80", **env}
    return subprocess.run([*EXECSRV, *words], capture_output=True, text=True, env=plain, timeout=PATIENCE, cwd=ROOT)


@pytest.mark.few(3)
@pytest.mark.parametrize("name", names())
def test_the_help_of_a_command_fits_and_has_examples(name: str) -> None:
    done = execsrv(*name.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "…" not in done.stdout
    found = command(name)
    assert found.examples
    said = " ".join(done.stdout.split())
    for option in found.options:
        assert f" {option.label} " in said
    for example in found.examples:
        assert " ".join(example.line.split()) in said


@pytest.mark.parametrize("name", names())
def test_the_handler_of_a_command_takes_what_is_parsed(name: str) -> None:
    from importlib import import_module
    from inspect import signature

    from execsrv._cli.reach import Reach
    from execsrv._cli.register.common import MANNERS

    found = command(name)
    keys = {option.key for option in found.options} | {argument.key for argument in found.arguments}
    if not found.raw:
        manners = {option.key for option in MANNERS}
        for bundle, needed, word in (({*Reach._fields}, {"url", "reconnect"}, "reach"), (manners, manners, "manners")):
            if needed <= keys:
                keys = keys - bundle | {word}
    module, _, handler = found.handler.partition(":")
    function = getattr(import_module(f"execsrv._cli.{module}"), handler)
    signature(function).bind(**dict.fromkeys(keys))


@pytest.mark.parametrize("name", names())
def test_the_examples_of_a_command_can_be_parsed(name: str) -> None:
    found = command(name)
    for example in found.examples:
        line = re.search(r"execsrv [^>)|;&]*", example.line)
        assert line is not None
        words = shlex.split(line[0])[1:]
        assert " ".join(words).startswith(name)
        readers = [parsing.parsed]
        if name not in ("serve", "run", "init", "bridge"):
            readers.append(typer_parsing.parsed)
        for parsed in readers:
            parsed(found, words[len(name.split()) :])


def test_narrow_and_wide_terminals() -> None:
    for columns, most in (("50", 50), ("200", 80), ("10", 40)):
        done = execsrv("files", "ls", "--help", COLUMNS=columns)
        assert max(map(len, done.stdout.splitlines())) <= most
    assert len(command_help(command("run"), 60).splitlines()) > len(command_help(command("run"), 80).splitlines())


def test_all_commands_are_listed() -> None:
    done = execsrv("--help")
    for name in {name.partition(" ")[0] for name in names()}:
        assert f"\n  {name} " in done.stdout
    for group in GROUPS:
        said = execsrv(group).stdout
        assert all(f"\n  {name.partition(' ')[2]} " in said for name in names() if name.startswith(f"{group} "))


def test_man_page_and_documentation_are_those_of_the_register() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    written = runpy.run_path(str(ROOT / "docs" / "commands.py"))["written"]
    assert page == written(page), "run `python docs/commands.py`"
    manual = (ROOT / "docs" / "execsrv.1").read_text()
    assert manual == roff(), "run `python docs/commands.py`"
    assert execsrv("man").stdout == manual
    for found in commands():
        assert f"\n### {found.name}\n" in page
        assert f".SS {found.usage_line}" in manual.replace("\\-", "-")


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["serv"], "unknown command `serv`: did you mean `serve`?; see `execsrv --help`", 2),
        (["--versoin"], "unknown option `--versoin`: did you mean `--version`?; see `execsrv --help`", 2),
        (["xyzzy"], "unknown command `xyzzy`; see `execsrv --help`", 2),
        (["files", "lst"], "unknown command of `files` `lst`: did you mean `ls`?; see `execsrv files --help`", 2),
        (
            ["run", "--timout", "5", "true"],
            "unknown option `--timout`: did you mean `--timeout` or `--idle-timeout`?; see `execsrv run --help`",
            125,
        ),
        (
            ["play", "--sped", "5", "x"],
            "unknown option `--sped`: did you mean `--speed`?; see `execsrv play --help`",
            125,
        ),
        (["run", "--log", "x", "true"], "unknown option `--log`; see `execsrv run --help`", 125),
        (["run", "--timeout"], "`--timeout` needs a value: TIME; see `execsrv run --help`", 125),
        (["run"], "COMMAND... is missing; see `execsrv run --help`", 125),
        (
            ["run", "--timeout", "soon", "true"],
            "cannot take `soon` for --timeout: expected a time above 0, such as `5`, `5s`, `1m` or `2h`;"
            " see `execsrv run --help`",
            125,
        ),
        (["serve", "--quiet=yes"], "`--quiet` takes no value; see `execsrv serve --help`", 2),
    ],
)
def test_a_mistake_is_one_line_with_what_was_meant(words: list[str], said: str, code: int) -> None:
    done = execsrv(*words)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"execsrv: {said}\n")


def test_an_error_is_one_line_with_a_hint(tmp_path: Path) -> None:
    done = execsrv("files", "ls", XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 125
    assert done.stderr == (
        f"execsrv: cannot connect to `{tmp_path}/execsrv/socket`: No such file or directory; start one with"
        " `execsrv serve --listen unix://`, or name another with `--url`\n"
    )
    assert execsrv("files", "ls", "-v", XDG_RUNTIME_DIR=str(tmp_path)).stderr.count("because of") >= 1


@pytest.mark.parametrize("parsed", PARSERS)
def test_both_parsers_read_the_same(parsed: Parser) -> None:
    play = command("play")
    nothing: dict[str, Any] = {"path": "x", "speed": 1.0, "idle_limit": None, "all_at_once": False}
    manners: dict[str, Any] = {"as_json": False, "quiet": False, "verbose": False}
    for words, changed in [
        (["x"], nothing),
        (["-s", "2", "x"], {"speed": 2.0}),
        (["-s2", "x"], {"speed": 2.0}),
        (["--speed=2", "x"], {"speed": 2.0}),
        (["x", "--speed", "2"], {"speed": 2.0}),
        (["-qv", "x"], {"quiet": True, "verbose": True}),
        (["-qs", "2", "x"], {"quiet": True, "speed": 2.0}),
        (["--", "--speed"], {"path": "--speed"}),
        (["-i", "1m", "-i", "500ms", "x"], {"idle_limit": 0.5}),
        (["--json", "-"], {"as_json": True, "path": "-"}),
    ]:
        assert parsed(play, words) == nothing | manners | changed, words
    assert parsed(command("files cat"), ["a", "b", "--server-uid", "1", "--server-uid", "2"])["server_uid"] == (1, 2)
    for wrong in (["x", "y"], [], ["--nope", "x"], ["-X", "x"], ["--speed", "0", "x"], ["x", "--speed"]):
        with pytest.raises(UsageError):
            parsed(play, wrong)
    for helped in (["-h"], ["x", "--help"]):
        with pytest.raises(HelpWantedError):
            parsed(play, helped)


@pytest.mark.parametrize("parsed", PARSERS)
def test_a_variable_stands_in_for_an_option(parsed: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECSRV_URL", "unix:///a")
    assert parsed(command("files ls"), [])["url"] == "unix:///a"
    assert parsed(command("files ls"), ["-u", "unix:///b"])["url"] == "unix:///b"
    monkeypatch.setenv("EXECSRV_URL", "")
    assert parsed(command("files ls"), [])["url"] is None


def test_times_have_units() -> None:
    run = command("run")
    for text, seconds in (
        ("5", 5),
        ("5s", 5),
        ("1m", 60),
        ("1.5h", 5400),
        ("250ms", 0.25),
        (".5", 0.5),
        ("2d", 172800),
    ):
        assert parsing.parsed(run, ["--timeout", text, "true"])["timeout"] == pytest.approx(seconds)
    for text in ("", "s", "5 s", "-1", "1e9", "inf", "nan", "5x", "0"):
        with pytest.raises(UsageError):
            parsing.parsed(run, ["--timeout", text, "true"])


@pytest.mark.parametrize(
    ("words", "code"),
    [(["serve"], 0), (["run", "--", "true"], 0), (["_complete", ""], 0), (["ps", "-u", "unix:///nonexistent/s"], 125)],
    ids=["serve", "run", "_complete", "ps"],
)
def test_a_start_does_not_load_what_it_does_not_need(words: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *EXECSRV[1:], *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == code
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not loaded & {"typer", "pydantic", "rich", "click", "argparse"}
    assert ("trio" in loaded) == (words[0] != "_complete")


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (["se"], ["", "serve"]),
        (["files", ""], ["", "ls", "cat", "edit"]),
        (["files", "ls", ""], ["files"]),
        (["play", "--sp"], ["", "--speed"]),
        (["play", "--speed", ""], [""]),
        (["run", "--cwd", ""], ["directories"]),
        (["run", ""], ["commands"]),
        (["run", "ls", "-"], ["files"]),
        (["completion", "z"], ["", "zsh"]),
        (["serve", "--log-format="], ["", "--log-format=auto", "--log-format=text", "--log-format=json"]),
        (["nope", ""], [""]),
    ],
)
def test_what_completes_a_word(words: list[str], reply: list[str]) -> None:
    done = execsrv("_complete", *words)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, reply, "")


def test_completion_in_bash(tmp_path: Path) -> None:
    (tmp_path / "execsrv").write_text(f'#!/bin/sh\nexec {shlex.join(EXECSRV)} "$@"\n')
    (tmp_path / "execsrv").chmod(0o755)
    (tmp_path / "demo file.cast").touch()
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TERM": "dumb", "PS1": "> ", "PYTHONPATH": str(ROOT)}
    bash = pexpect.spawn(
        "bash", ["--norc", "--noprofile", "-i"], env=env, cwd=tmp_path, encoding="utf-8", timeout=PATIENCE
    )
    try:
        bash.sendline('bind "set enable-bracketed-paste off"; eval "$(execsrv completion bash)"; echo rea""dy')
        bash.expect_exact("ready\r\n")
        bash.send("execsrv pla\t")
        bash.expect_exact("execsrv play ")
        bash.send("--sp\t")
        bash.expect_exact("--speed ")
        bash.send("2 de\t")
        bash.expect_exact(r"demo\ file.cast")
    finally:
        put_away(bash)
