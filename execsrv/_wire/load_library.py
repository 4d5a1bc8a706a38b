"""trio-websocket, loaded without `importlib.metadata`.

The library asks that module for trio's version, once and for no other purpose, and what comes with it (email, zipfile,
csv) would take 1.7 MiB of every server with a listener, and a third of the time until its first peer is served.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import trio

__all__ = ["trio_websocket"]

_NAME = "importlib.metadata"


class _Metadata(ModuleType):
    """`importlib.metadata`, which knows trio's version by itself, and loads the real one for everything else.

    Another thread that imports the module meanwhile gets this one, and misses nothing.
    """

    @staticmethod
    def version(name: str) -> str:
        return trio.__version__ if name == "trio" else str(_real().version(name))

    def __getattr__(self, name: str) -> Any:
        return getattr(_real(), name)


def _real() -> ModuleType:
    if isinstance(sys.modules.get(_NAME), _Metadata):
        del sys.modules[_NAME]
    return importlib.import_module(_NAME)


def _stand_in() -> None:
    """Let one take the place of the real module, where that is not loaded yet."""
    if _NAME not in sys.modules and (spec := importlib.util.find_spec(_NAME)) is not None:
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Metadata
        sys.modules.setdefault(_NAME, module)


_stand_in()
try:
    import trio_websocket
finally:
    if isinstance(sys.modules.get(_NAME), _Metadata):
        del sys.modules[_NAME]
