"""Help for the tests of programs that start processes: fixtures for pytest, a server for nox, faults, recordings.

The fixtures are in `execsrv.testing.pytest_plugin`, which pytest loads by itself. To import this costs next to nothing:
each name brings in what it needs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; `typing` would take as long as all else here
if TYPE_CHECKING:
    from execsrv.testing.conversations import ConversationError as ConversationError
    from execsrv.testing.conversations import recording as recording
    from execsrv.testing.conversations import replaying as replaying
    from execsrv.testing.faults import Fault as Fault
    from execsrv.testing.faults import FaultyLine as FaultyLine
    from execsrv.testing.faults import open_faulty_line as open_faulty_line
    from execsrv.testing.no_strays import assert_no_strays as assert_no_strays
    from execsrv.testing.running_server import RunningServer as RunningServer
    from execsrv.testing.running_server import ServerFailedError as ServerFailedError
    from execsrv.testing.running_server import serving as serving

_HOMES = {
    "ConversationError": "conversations",
    "recording": "conversations",
    "replaying": "conversations",
    "Fault": "faults",
    "FaultyLine": "faults",
    "open_faulty_line": "faults",
    "assert_no_strays": "no_strays",
    "RunningServer": "running_server",
    "ServerFailedError": "running_server",
    "serving": "running_server",
}

__all__ = [
    "ConversationError",
    "Fault",
    "FaultyLine",
    "RunningServer",
    "ServerFailedError",
    "assert_no_strays",
    "open_faulty_line",
    "recording",
    "replaying",
    "serving",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        value: object = getattr(import_module(f"execsrv.testing.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'execsrv.testing' has no attribute {name!r}")
