"""Help for the tests of programs that start processes: fixtures for pytest, a server for nox, faults, recordings.

The fixtures are in `execsrv.testing.pytest_plugin`, which pytest loads by itself. To import this costs next to nothing:
each name brings in what it needs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; `typing` would take as long as all else here
if TYPE_CHECKING:
    from execsrv.testing.no_strays import assert_no_strays as assert_no_strays
    from execsrv.testing.running_server import RunningServer as RunningServer
    from execsrv.testing.running_server import ServerFailedError as ServerFailedError
    from execsrv.testing.running_server import serving as serving

_HOMES = {
    "assert_no_strays": "no_strays",
    "RunningServer": "running_server",
    "ServerFailedError": "running_server",
    "serving": "running_server",
}

__all__ = ["RunningServer", "ServerFailedError", "assert_no_strays", "serving"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        value: object = getattr(import_module(f"execsrv.testing.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'execsrv.testing' has no attribute {name!r}")
