"""What the documentation claims of the code: its tests exist, its examples run, nothing is missing from its tables."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from execsrv import Client, connect_in_process, connect_unix, serve
from execsrv.errors import ProtocolError, RequestError, SpawnError
from execsrv.errors.request import _SPAWN_KINDS
from execsrv.protocol import METHODS, NOTIFICATIONS
from execsrv.protocol.methods import struct_named
from execsrv.testing import assert_no_strays
from tests import test_protocol_page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in (*sorted(DOCS.glob("*.md")), ROOT / "README.md")
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M), 1)
    if "8765" not in code  # which wants a daemon
    if page.name
    not in (
        "tutorial.md",
        "tasks.md",
        "testing.md",
        "conformance.md",
        "without-trio.md",
        "msgpack.md",
        "runner.md",
        "ray.md",
        "dask.md",
    )  # followed elsewhere
]
PROGRAMS = [
    pytest.param(code, said, id=f"{name}-{number}")
    for name in ("without-trio.md", "msgpack.md", "runner.md")
    for number, (code, said) in enumerate(
        re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", (DOCS / name).read_text(), re.S | re.M), 1
    )
]
"""Programs of their own, each with what it prints."""

CELLS = """
import ast, asyncio, sys

async def kernel(cells):
    for cell in cells:
        code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if (waiting := eval(code, names)) is not None:
            await waiting

names = {}
asyncio.run(kernel(sys.stdin.read().split("# cell\\n")))
"""
"""Runs cells as the kernel of a notebook does."""


def test_every_test_that_proves_a_guarantee_exists() -> None:
    page = (DOCS / "guarantees.md").read_text() + (DOCS / "survival.md").read_text().partition("## Proofs")[2]
    named = 0

    @cache
    def tests_of(file: str) -> set[str]:
        body = ast.parse((ROOT / "tests" / file).read_text()).body
        return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}

    for file, names in re.findall(r"`((?:\w+/)?test_\w+\.py)`: ((?:`test_\w+`(?:, )?)+)", page):
        tests = tests_of(file)
        for name in re.findall(r"`(\w+)`", names):
            assert name in tests, f"{file} has no {name}"
            named += 1
    assert named == len(re.findall(r"`test_\w+`", page)) > 40
    for line in page.splitlines():
        if line.startswith("| ") and not line.startswith(("| promise", "| ---")):
            assert "`test_" in line, f"not proved: {line}"


def test_the_schema_is_that_of_the_structs() -> None:
    written = runpy.run_path(str(DOCS / "schema.py"))["written"]()
    assert (DOCS / "protocol.schema.json").read_text() == written, "run `python docs/schema.py`"


def test_the_schema_is_whole() -> None:
    schema = msgspec.json.decode((DOCS / "protocol.schema.json").read_bytes())
    titles = {message["title"] for message in schema["anyOf"]}
    for name in METHODS:
        assert {f"request {name}", f"response {name}"} < titles
    assert {f"notification {name}" for name in NOTIFICATIONS} < titles
    references = set(re.findall(r'"\$ref":"#/\$defs/(\w+)"', msgspec.json.encode(schema).decode()))
    assert references == schema["$defs"].keys()


def fields(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


PAGES = {
    "fs": "files.md",
    "connection": "sharing.md",
    "http": "relay.md",
    "environment": "environment.md",
    "server/limits": "environment.md",
    "environmentConfig": "environment.md",
    "capabilityRoots": "environment.md",
    "capabilities": "environment.md",
}
"""The families of methods, and the methods, that are not on protocol.md."""


def page_of(name: str) -> str | None:
    return PAGES.get(name) or PAGES.get(name.partition("/")[0])


EVERYWHERE = {"sandbox"}
"""Said once for all methods of files.md."""

ENVIRONMENT = {
    field.strip("`") for field, *_ in dict(test_protocol_page.tables(test_protocol_page.PAGE))["environmentInfo"]
}
"""Said with `initialize`, on protocol.md."""


def test_the_protocol_page_has_every_field() -> None:
    documented: dict[tuple[str, str], set[str]] = {}
    for side, head, field, _ in test_protocol_page.rows():
        documented.setdefault((side, head), set()).add(field)
    for name, method in METHODS.items():
        if page_of(name) is None:
            assert documented.pop(("sent", name), set()) == fields(method.params), name
            assert documented.pop(("heard", name), set()) == fields(method.result), name
    for name, struct in NOTIFICATIONS.items():
        if page_of(name) is None:
            assert documented.pop(("heard", name)) == fields(struct_named(struct)), name
    assert not documented


def test_the_other_pages_have_every_field() -> None:
    for name, struct in [
        *((name, struct) for name, method in METHODS.items() for struct in (method.params, method.result)),
        *((name, struct_named(struct)) for name, struct in NOTIFICATIONS.items()),
    ]:
        if page := page_of(name):
            sections = re.split(r"^## ", (DOCS / page).read_text(), flags=re.M)
            own = "".join(section for section in sections if re.search(rf"`{name}\b", section))
            assert own, f"{page} has no {name}"
            elsewhere = ENVIRONMENT if struct is METHODS["environment/info"].result else EVERYWHERE
            for field in fields(struct) - elsewhere:
                assert re.search(rf"\b{field}\b", own), f"{name} has no {field}"


def kinds(error: type[RequestError]) -> Iterator[tuple[str, str]]:
    for kind in error.__subclasses__():
        for word in {kind.kind, *_SPAWN_KINDS.values()} if kind is SpawnError else {kind.kind}:
            yield str(kind.code), word
        yield from kinds(kind)


def test_the_protocol_page_has_every_kind_of_error() -> None:
    table = dict(test_protocol_page.tables(test_protocol_page.PAGE))["code"]
    raised = {*kinds(RequestError), (str(ProtocolError.code), ProtocolError.kind)}
    assert {(code, kind.strip("`")) for code, kind, *_ in table} == raised


@pytest.mark.parametrize("code", EXAMPLES)
async def test_an_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    if "watch_screen" in code:
        pytest.importorskip("pyte", reason="needs execsrv[screen]")
    names: dict[str, Any] = {}
    exec(code.replace("trio.run(main)", ""), names)
    if "main" in names:
        await names["main"]()
    elif "example" in names:
        async with _client_for(code, tmp_path) as client:
            await names["example"](client)


@asynccontextmanager
async def _client_for(code: str, folder: Path) -> AsyncIterator[Client]:
    """A client in process, or on a unix socket for an example that needs one."""
    if "pass_streams" not in code:
        async with connect_in_process() as client:
            yield client
        return
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, f"unix://{folder}/socket")
        async with connect_unix(folder / "socket") as client:
            yield client
        nursery.cancel_scope.cancel()


@pytest.mark.few(3)
@pytest.mark.parametrize(("code", "said"), PROGRAMS)
def test_a_program_without_trio_prints_what_is_said(code: str, said: str, tmp_path: Path) -> None:
    with assert_no_strays():
        program = [sys.executable, "-W", "error", *(["-c", CELLS] if "# cell" in code else ["-"])]
        done = subprocess.run(program, input=code, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)


def test_every_program_without_trio_is_run() -> None:
    pages = [(DOCS / name).read_text() for name in ("without-trio.md", "msgpack.md", "runner.md")]
    assert len(PROGRAMS) == sum(page.count("```python") for page in pages)
