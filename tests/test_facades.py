"""`execsrv.sync` and `execsrv.asyncio` say the words of the client for trio: all of them, and no others."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import execsrv
from tests import facades

WORLDS = ["sync", "asyncio"]


def test_they_are_written_from_the_client() -> None:
    written = facades.generated()
    for path, text in written.items():
        assert path.read_text() == text, "run `python -m tests.facades`"
    assert {path for world in WORLDS for path in (facades.ROOT / world).glob("*.py")} == written.keys()


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize("world", WORLDS)
def test_a_facade_has_the_words_of_its_class(world: str) -> None:
    for cls, is_held in facades.FACADES.items():
        module = importlib.import_module(f"execsrv.{world}.{facades.home(cls.__module__)}")
        facade = getattr(module, cls.__name__)
        words = (public(cls) | set(facades.members(cls))) - set(facades.DUNDERS)
        if is_held or "aclose" in words:
            words = (words - {"aclose"}) | {"close"}
        assert public(facade) == words, facade


@pytest.mark.parametrize("world", WORLDS)
def test_every_public_function_is_there_or_has_a_reason_not_to_be(world: str) -> None:
    package = importlib.import_module(f"execsrv.{world}")
    does_something = {
        name
        for name in execsrv.__all__
        if isinstance(getattr(execsrv, name), FunctionType) or inspect.ismodule(getattr(execsrv, name))
    }
    there = {name for name in package.__all__ if not inspect.isclass(getattr(package, name))}
    assert there == does_something - facades.NOT_HERE.keys()
    assert facades.NOT_HERE.keys() <= does_something


@pytest.mark.parametrize("world", WORLDS)
def test_every_public_class_that_waits_has_a_facade(world: str) -> None:
    package = importlib.import_module(f"execsrv.{world}")
    classes = [getattr(execsrv, name) for name in execsrv.__all__ if inspect.isclass(getattr(execsrv, name))]
    waiting = {cls.__name__ for cls in classes if facades.needs_facade(cls)}
    assert {"Client", "Process", "Files", "RemotePath"} <= waiting <= set(package.__all__)


def test_nothing_of_it_is_loaded_unasked() -> None:
    code = (
        "import sys, execsrv; execsrv.Client; "
        "found = {n for n in sys.modules if n.startswith(('execsrv._portal', 'execsrv.sync', 'execsrv.asyncio'))}; "
        "assert not found, found; execsrv.sync.launch; execsrv.asyncio.launch; import asyncio; asyncio.run"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_star_hides_no_module_of_the_library() -> None:
    assert not {"asyncio", "sync"} & set(execsrv.__all__)


@pytest.mark.parametrize("world", WORLDS)
def test_a_facade_is_not_made(world: str) -> None:
    package = importlib.import_module(f"execsrv.{world}")
    with pytest.raises(TypeError, match="a Client is not made"):
        package.Client()


def test_the_generator_is_no_part_of_the_package() -> None:
    assert not Path(facades.__file__).is_relative_to(facades.ROOT)
