"""A method is written in four places: its structs, its row in the table, its handler, and its page with an exchange."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from msgspec import Struct

from execsrv._files.files import Files
from execsrv._server import methods
from execsrv._server.methods import HANDLERS, handler_of, home_of
from execsrv._server.methods.table import Handler
from execsrv._server.starting import Deferred
from execsrv.protocol import METHODS, NOTIFICATIONS
from execsrv.protocol.methods import struct_named
from tests.test_protocol_page import EXCHANGES, PAGES, messages

for module in iter_modules(methods.__path__):
    import_module(f"{methods.__name__}.{module.name}")

DOCS = Path(__file__).parent.parent / "docs"
FAMILIES = {
    "initialize": ["connection"],
    "process": ["process", "waiting", "listing"],
    "connection": ["sharing"],
    "command": ["command", "process"],  # what both dialects say alike
    "fs": ["files", "file_extras"],
    "http": ["http"],
    "server": ["ceilings"],
    "environment": ["host"],
    "environmentConfig": ["host"],
    "capabilityRoots": ["host"],
    "capabilities": ["host"],
}
"""The modules of `execsrv.protocol` for what comes before the first "/" of a method's name."""

NEVER_BUSY = {"process/signal"}
"""Methods that may have to wait, for a runner, and are not refused when many requests do: they may end what those wait
for. As long as one waits, it counts against the budget."""

NAMING_ANEW = {"process/start", "process/attach"}
"""Methods whose `processId` is a session that begins with them, or one of somebody else's."""

TITLES = {
    name
    for page in PAGES
    for line in re.findall(r"^##+ (.*)$", (DOCS / page).read_text(), re.M)
    for name in re.findall(r"`([^`]+)`", line)
}
SENT = {method for side, method, _ in messages() if side == "sent"} - {"initialized"}
ANSWERED = {method for side, method, _ in messages() if side == "heard"}


def results(type_: Any) -> Iterator[tuple[Any, bool]]:
    """What a handler may answer by its return type, and whether that comes later."""
    if isinstance(type_, UnionType) or get_origin(type_) is Union:
        for part in get_args(type_):
            yield from results(part)
    elif get_origin(type_) is Coroutine:
        yield get_args(type_)[2], True
    elif get_origin(type_) is Deferred:
        yield get_args(type_)[0], False
    else:
        yield type_, False


def of_its_family(struct: type[Struct], name: str) -> bool:
    return struct.__module__.rpartition(".")[2] in ["messages", *FAMILIES[name.partition("/")[0]]]


def found_handler(name: str) -> Handler | None:
    """The handler that a server finds."""
    try:
        return handler_of(name)
    except LookupError:
        return None


def missing(name: str) -> Iterator[str]:
    """Each place in which a method is not written, or not as it is elsewhere."""
    method, handler = METHODS.get(name), found_handler(name)
    if name.partition("/")[0] not in FAMILIES:
        yield "a module of execsrv.protocol for its family (FAMILIES of this file)"
    elif method is None:
        yield "a row in METHODS (execsrv/protocol/methods.py)"
    elif not all(of_its_family(struct, name) for struct in (method.params, method.result)):
        yield "structs in the module of its family (execsrv/protocol)"
    if handler is None:
        if name != "initialize":  # which a conversation answers itself
            yield "a handler (execsrv/_server/methods)"
    elif method is not None:
        hints = get_type_hints(handler.run, {**handler.run.__globals__, "Files": Files})
        answers = list(results(hints["return"]))
        if hints["params"] is not method.params or {result for result, _ in answers} != {method.result}:
            yield "the same structs in METHODS and at its handler"
        if handler.run.__module__ != home_of(name):
            yield "a handler in the module that `_HOMES` names (execsrv/_server/methods/__init__.py)"
        named = {"process_id", "session_id"}.intersection(method.params.__struct_fields__)
        if ({handler.of} - {""}) != (named if name not in NAMING_ANEW else set()):
            yield "`of=` at its handler, for the session that a call names"
        if handler.waits != any(later for _, later in answers) and name not in NEVER_BUSY:
            yield "`@handles_later` where its handler may have to wait, and `@handles` where it never does"
    if name not in TITLES:
        yield "a heading on a page (docs)"
    if name not in SENT or name not in ANSWERED:
        yield "an exchange on a page (docs), with its answer"


@pytest.mark.parametrize("name", sorted({*METHODS, *HANDLERS, *SENT & TITLES}))
def test_a_method_is_written_in_every_place(name: str) -> None:
    assert not list(missing(name)), f"{name} is missing something"


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EXCHANGES
    monkeypatch.setitem(METHODS, "fs/new", METHODS["fs/walk"])
    assert [place.partition(" (")[0] for place in missing("fs/new")] == [
        "a handler",
        "a heading on a page",
        "an exchange on a page",
    ]
    monkeypatch.setitem(HANDLERS, "fs/new", Handler(HANDLERS["fs/copy"].run, waits=False, holds=True))
    assert [place.partition(" (")[0] for place in missing("fs/new")] == [
        "the same structs in METHODS and at its handler",
        "`@handles_later` where its handler may have to wait, and `@handles` where it never does",
        "a heading on a page",
        "an exchange on a page",
    ]
    monkeypatch.delitem(METHODS, "fs/new")
    assert next(missing("fs/new")).startswith("a row in METHODS")


def test_who_is_told_a_word_takes_newer_ones() -> None:
    """But for the names of streams, and for what answers a question of the client's own."""
    told = [*(method.result for method in METHODS.values()), *map(struct_named, NOTIFICATIONS.values())]
    _, parts = msgspec.json.schema_components(told)
    closed = {
        f"{struct}.{field}"
        for struct, part in parts.items()
        for field, kind in part.get("properties", {}).items()
        if "'enum'" in str(kind) and "propertyNames" not in kind
    }
    of_streams = {f"{struct}.stream" for struct in ("Chunk", "CommandOutputDelta", "ProcessHappened", "ProcessOutput")}
    assert closed == {*of_streams, "ProcessStarted.passed", "ProcessWritten.status", "ProcessHappened.happened"}
