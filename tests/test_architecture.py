"""The house: imports go downward only, and the two wings do not know each other."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import execsrv
from execsrv.protocol import messages
from execsrv.protocol.methods import METHODS, NOTIFICATIONS

ROOT = Path(execsrv.__file__).parent

FLOORS = [
    # values: no trio, no I/O
    {"_setting_units"},
    {"errors", "limits", "protocol", "_version"},
    # rules, and the log
    {"_nursery", "_lent", "_budget"},
    {"_threads", "_log"},
    {"_memory"},
    {"_wire.passing", "_wire.channel"},
    {"_wire"},
    # the machine, each kind alone
    {"_processes", "_files", "_http", "_outlet", "_typed_ahead", "_web"},
    {"_doors", "_login_shells", "_policies"},
    {"_runner"},
    # the service
    {"_server.failures", "_server.handshake"},
    {"_server.outbox", "_server.feed", "_server.view", "_server.host", "_server.start_options", "_server.secrets"},
    {"_server.ending", "_server.denial"},
    {"_server.pump"},
    {"_server.framed_pump", "_server.onward_pump"},
    {"_server.pumps"},
    {"_server.session"},
    {"_server.starting"},
    {"_server.roster", "_server.runners"},
    {"_server.over_runner"},
    {"_server.sessions"},
    {"_server.start_keys", "_server.looks", "_server.ports"},
    {"_server.sizes", "_server.sharing", "_server.visits", "_server.connection_names"},
    {"_server.methods"},
    {"_server.connection"},
    {"_server.connections", "_server.for_operators"},
    {"_server.dispatch"},
    {"_server"},
    # its two wings, and what tells clients of servers
    {"record"},
    {"server", "client", "directories"},
    # roof
    {"pool"},
    {"_in_process", "processes"},
    {"_run"},
    {"agents"},
    {"_portal"},
    {"sync", "asyncio"},
    {"agents.adapters"},
    {"_api"},
    {"conformance"},
    {"__init__", "testing", "adapters"},
    {"_cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
"""A room is a module or a package, and holds what no longer name in here does. `_wire` and `_server` have floors of
their own, and `agents.adapters` is a room by itself: it brings in frameworks, and the worlds that those live in."""

WINGS = {"_server", "_processes", "_files", "_http", "_doors", "_policies", "_runner", "server"}, {"client"}
PURE = {"_setting_units", "errors", "limits", "protocol", "_budget", "_log", "_http.request", "_doors.principal"}
PURE |= {"client.far_commands", "client.far_side"}
PURE |= {f"_runner.{name}" for name in ("frames", "version_1_messages", "version_2_messages")}
PURE |= {f"_wire.{name}" for name in ("bounds", "call_bounds", "codecs", "framing", "last_word")}
PURE |= {f"_wire.{name}" for name in ("msgpack_values", "packed", "paths", "pieces", "quoting", "unreadable", "urls")}
PURE |= {"_wire.websocket_frames", "_server.handshake"}
"""Modules and packages that do no I/O, and import nothing of ours but each other."""


def room_of(name: str) -> str:
    """Return the room that a dotted name within the package is in."""
    parts = name.split(".")
    found = (".".join(parts[:end]) for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in FLOOR_OF)
    return next(found, "__init__")


def module_of(path: Path) -> str:
    """Return the dotted name of a file within the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports(path: Path) -> set[str]:
    """Return every module that a file imports, in functions and for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(path: Path) -> set[str]:
    """Return the rooms that a file imports from."""
    return {room_of(name) for name in own_modules(path)}


SOURCES = sorted(ROOT.rglob("*.py"))
MODULES = {module_of(path) for path in SOURCES}


def own_modules(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, or imports something from."""
    names = {name.removeprefix("execsrv.") for name in imports(path) if name.startswith("execsrv.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


def test_every_room_has_a_floor() -> None:
    assert {room_of(module_of(path)) for path in SOURCES} == set(FLOOR_OF)


PAGE = (Path(__file__).parent.parent / "docs/architecture.md").read_text()


def told_in(table: str, column: int) -> list[str]:
    """Return what a column of a table has between backticks. A line outside of it counts as an empty row."""
    return [name for row in table.splitlines() for name in re.findall("`([^`]+)`", f"{row}|||".split("|")[column])]


def test_the_page_has_every_room() -> None:
    """In the first column of its table, once: folders as `room/`, and modules that stand alone as `room.py`."""
    told = told_in(PAGE.partition("## The rooms")[2].partition("| in `_server/` |")[0], 1)
    rooms = [f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")]
    rooms += [path.name for path in ROOT.glob("*.py") if path.stem not in ("__init__", "__main__", "_version")]
    assert Counter(told) == Counter(rooms)


def test_the_page_has_every_module_of_the_server() -> None:
    """In its table, in whichever column."""
    table = PAGE.partition("| in `_server/` |")[2].partition("\n## ")[0]
    told = [name for name in [*told_in(table, 1), *told_in(table, 2)] if name.endswith((".py", "/"))]
    modules = [path.name for path in (ROOT / "_server").glob("*.py") if path.stem != "__init__"]
    assert Counter(told) == Counter([*modules, "methods/", "table.py"])


def test_the_page_has_every_layer_from_the_lowest_on() -> None:
    """As they are in here. A name may be that of a part of the room that the one before is in."""
    told = [name.replace("/", ".") for name in told_in(PAGE.partition("\n## Layers\n")[2], 2)]
    for index, name in enumerate(told):
        if name not in FLOOR_OF:
            told[index] = f"{house(told[index - 1])}.{name}"
    assert Counter(told) == Counter(FLOOR_OF.keys())
    assert told == sorted(told, key=FLOOR_OF.__getitem__)


def test_imports_go_downward() -> None:
    upward = {
        f"{path.relative_to(ROOT)} -> {room}"
        for path in SOURCES
        for room in own_imports(path)
        if FLOOR_OF[room] > FLOOR_OF[room_of(module_of(path))]
    }
    assert not upward


def test_rooms_form_no_cycle() -> None:
    """Floors could cut a room in parts, and those on one floor import from each other."""
    rooms: dict[str, set[str]] = {}
    for path in SOURCES:
        room, used = (house(room_of(module_of(path))), {house(room) for room in own_imports(path)})
        rooms.setdefault(room, set()).update(used - {room})
    TopologicalSorter(rooms).prepare()  # which raises `CycleError`, with the rooms


def house(room: str) -> str:
    """Return the whole room of a part that has a floor of its own."""
    return room if room == "agents.adapters" else room.partition(".")[0]


def packages(path: Path) -> set[str]:
    """Return the packages at the top of the house that a file imports from."""
    return {room.partition(".")[0] for room in own_imports(path)}


def test_wings_do_not_know_each_other() -> None:
    for path in SOURCES:
        for wing, other in (WINGS, WINGS[::-1]):
            if module_of(path).partition(".")[0] in wing:
                assert not packages(path) & other, path


METHODS_OF_THE_WIRE = {
    # Most of what a client reads is output: it is read in one step, and not in two.
    "_wire.codecs": {"ProcessOutput", "process/output"},
}
"""What a module of `_wire` knows of methods all the same."""


def test_the_wire_knows_no_methods() -> None:
    """It has of the protocol what is about all messages, and names no method."""
    for path in SOURCES:
        if module_of(path).startswith("_wire"):
            assert not packages(path) & {"_server", "_processes", "_log"}, path
            known = {name.rpartition(".")[2] for name in imports(path) if name.startswith("execsrv.protocol.")}
            constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
            known = known - set(vars(messages)) | {*METHODS, *NOTIFICATIONS, "initialized"}.intersection(constants)
            assert known == METHODS_OF_THE_WIRE.get(module_of(path), set()), path


def test_the_machine_knows_no_messages() -> None:
    for path in SOURCES:
        if module_of(path).partition(".")[0] in ("_processes", "_files"):
            used = {name for name in own_modules(path) if name.startswith("_wire")}
            assert used <= {"_wire.paths", "_wire.quoting", "_wire.turns"}, path
            assert "_server" not in packages(path), path


METHODS_OF_THE_SERVER = {
    # The greeting is no handler's: it is what brings a channel and its connection together.
    "_server.conversation": {"Initialize", "Initialized"},
    "_server.dispatch": {"Initialize", "Initialized"},
    # It tells of the machine, and knows no session.
    "_server.host": {"CapabilityRootsFound", "EnvironmentConfig", "EnvironmentConfigRead", "EnvironmentInfo"},
}
"""The structs of methods that are known beside `_server/methods/`, and not in `_files` and `_http`, which are methods'
own work."""


def test_only_the_handlers_know_both_the_wire_and_the_sessions() -> None:
    """Nothing else below them or beside them takes what a method takes or gives, and `Dispatch` alone calls them."""
    structs = {name for method in METHODS.values() for name in (method.params.__name__, method.result.__name__)}
    for path in SOURCES:
        module = module_of(path)
        room = module.partition(".")[0]
        if room in ("_log", "_processes", "_policies", "_login_shells", "_doors", "_runner", "_server"):
            if not module.startswith("_server.methods"):
                known = {name.rpartition(".")[2] for name in imports(path) if name.startswith("execsrv.protocol")}
                assert known & structs == METHODS_OF_THE_SERVER.get(module, set()), path
                assert module == "_server.dispatch" or "_server.methods" not in own_imports(path), path
            if room != "_server":
                called = {"Message", "Request", "Notification", "Response", "Failure"}
                assert not {name.rpartition(".")[2] for name in imports(path) if "protocol" in name} & called, path


def is_pure(module: str) -> bool:
    return bool({module, module.partition(".")[0]} & PURE)


def test_the_pure_know_no_trio_no_io_and_only_each_other() -> None:
    for path in SOURCES:
        if is_pure(module_of(path)):
            roots = {name.split(".")[0] for name in imports(path)}
            assert not roots & {"trio", "trio_websocket", "socket", "subprocess", "select"}, path
            assert {name for name in own_modules(path) if not is_pure(name)} == set(), path


def test_the_guardian_needs_the_standard_library_alone() -> None:
    for name in ("guardian", "cgroup", "proc", "rlimit_mark"):
        roots = {found.split(".")[0] for found in imports(ROOT / "_processes" / f"{name}.py")}
        assert roots <= {*sys.stdlib_module_names, "execsrv"}, name


@pytest.mark.parametrize("package", sorted({module_of(path).partition(".")[0] for path in SOURCES}))
def test_no_module_is_above_300_lines(package: str) -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in SOURCES
        if module_of(path).partition(".")[0] == package
        if not path.read_text().startswith("# Written by ")  # which nobody has to read
    }
    assert not {name: length for name, length in lengths.items() if length > 300}


def sources_with(word: str) -> Iterator[tuple[Path, ast.Module]]:
    """Yield the files that have a word in them: few, and parsing is most of the time."""
    for path in SOURCES:
        if word in (text := path.read_text()):
            yield path, ast.parse(text)


def test_every_user_of_threads_has_a_limiter_of_its_own() -> None:
    mentions, limited = 0, 0
    for _, tree in sources_with("to_thread"):
        for node in ast.walk(tree):
            mentions += isinstance(node, ast.Attribute) and node.attr == "to_thread"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "trio.to_thread.run_sync":
                limited += any(keyword.arg == "limiter" for keyword in node.keywords)
    assert mentions == limited > 0


NEW_LIMITERS = {
    "_cli/copy_places._is_directory": "one look of one program",
    "_cli/detaching.start_detached": "one line of one program",
    "_cli/reloading.reload": "a reading that hangs is left behind, and the next one must not wait for it",
    "_files/blocks.aclose": "once in the life of a channel, and every other place may be taken by what hangs",
    "_runner/named.open_fifo": "once for each way of one program",
    "_server/entrance.load": "as for any reading again",
    "_server/for_operators.open_operations": "as for any reading again",
    "_threads.run_with_tls": "who dials bounds how often, and one that hangs is left behind",
    "_wire/stdio.read_shared": "a cancelled read is left behind, and the next reads what comes then",
    "client/far_channel._bring": "once for each server that is reached",
}
"""Functions that make a limiter for each call, which limits nothing, and why that is no harm."""


def test_a_limiter_lasts_longer_than_a_call() -> None:
    makers: dict[ast.Call, str] = {}
    for path, tree in sources_with("CapacityLimiter"):
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and ast.unparse(call.func) in (
                    "trio.to_thread.run_sync",
                    "run_in_thread",
                ):
                    given = [*call.args, *(keyword.value for keyword in call.keywords)]
                    if any(ast.unparse(value).startswith("trio.CapacityLimiter(") for value in given):
                        # The innermost function comes last.
                        makers[call] = f"{path.relative_to(ROOT).with_suffix('')}.{function.name}"
    assert {*makers.values()} == NEW_LIMITERS.keys()
