"""The house: imports go downward only, and the two wings do not know each other."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import execsrv

ROOT = Path(execsrv.__file__).parent

FLOORS = [
    # values: no trio, no I/O
    {"errors", "limits", "protocol"},
    # rules: still no I/O
    {"_paths", "_codec", "_handshake", "_head_tail", "_output", "_exchange", "_background", "_signal_names"},
    # the operating system, each kind alone
    {"_transports", "_processes", "_files", "_environment", "_discovery", "_http"},
    # the service
    {"_session", "_relay"},
    {"_sessions", "_outbox"},
    {"_handlers"},
    {"_connection"},
    {"_talk"},
    {"server", "client"},
    # roof
    {"_embedded"},
    {"__init__", "_signals", "_doctor", "testing"},
    {"_run", "_config", "pytest_plugin"},
    {"_daemon", "_options"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SERVICE = {"_session", "_relay", "_http", "_sessions", "_outbox", "_handlers", "_connection", "_talk", "server"}
SERVICE |= {"_processes", "_files"}
PURE = {"errors", "limits", "protocol", "_paths", "_signal_names", "_codec", "_handshake", "_head_tail", "_output"}
PURE |= {"_exchange"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, in functions and for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(path: Path) -> set[str]:
    names = [name.split(".") for name in imports(path)]
    return {parts[1] if parts[1] in FLOOR_OF else "__init__" for parts in names if parts[0] == "execsrv" and parts[1:]}


SOURCES = sorted(ROOT.rglob("*.py"))


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in SOURCES} == set(FLOOR_OF)


def test_imports_go_downward() -> None:
    upward = {
        f"{path.relative_to(ROOT)} -> {room}"
        for path in SOURCES
        for room in own_imports(path)
        if room != room_of(path) and FLOOR_OF[room] > FLOOR_OF[room_of(path)]
    }
    assert not upward


def test_wings_do_not_know_each_other() -> None:
    for path in SOURCES:
        if room_of(path) == "client":
            assert not own_imports(path) & SERVICE, path
        elif room_of(path) in SERVICE:
            assert "client" not in own_imports(path), path


def test_transports_know_no_methods_and_processes_no_messages() -> None:
    for path in SOURCES:
        if room_of(path) == "_transports":
            assert not own_imports(path) & {"_handlers", "_processes", "_session", "_handshake"}, path
        elif room_of(path) in ("_processes", "_files"):
            assert not own_imports(path) & {"_codec", "_transports", "_handlers"}, path


def test_ground_floor_is_pure() -> None:
    for path in SOURCES:
        if room_of(path) in PURE:
            roots = {name.split(".")[0] for name in imports(path)}
            assert not roots & {"trio", "trio_websocket", "socket", "subprocess", "select"}, path


def test_the_guardian_needs_the_standard_library_alone() -> None:
    for name in ("guardian", "cgroup", "census", "lineage", "marks"):
        roots = {found.split(".")[0] for found in imports(ROOT / "_processes" / f"{name}.py")}
        assert roots <= {*sys.stdlib_module_names, "execsrv"}, name


def test_protocol_methods_all_have_handlers() -> None:
    from execsrv._handlers import HANDLERS
    from execsrv.protocol import METHODS

    assert HANDLERS.keys() == METHODS.keys() - {"initialize"}  # which a talk answers itself
