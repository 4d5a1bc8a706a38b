"""One short function per method: the only place that knows both the wire and the sessions.

A module for each family of methods, which is loaded when one of them is first asked for; `table.py` holds the register
that all of them are entered into.
"""

from importlib import import_module

from execsrv._server.methods.table import HANDLERS, Handler

__all__ = ["HANDLERS", "handler_of", "home_of"]

_HOMES = {
    "process/start": "process_start",
    "process/wait": "waiting",
    "process/waitFor": "waiting",
    "process/list": "listing",
    "process/attach": "attaching",
    "process/detach": "attaching",
    "process": "process",
    "connection": "sharing",
    "command": "command",
    "fs": "files",
    "http": "http",
    "server": "ceilings",
    "environment": "host",
    "environmentConfig": "host",
    "capabilityRoots": "host",
    "capabilities": "host",
}
"""The module of a method, or of all that have the same word in front of the first "/"."""


def handler_of(method: str) -> Handler:
    """Return the handler of a method. Raises `LookupError` where there is none."""
    if method not in HANDLERS:
        import_module(home_of(method))
    return HANDLERS[method]


def home_of(method: str) -> str:
    """Return the name of the module that the handler of a method is in. Raises `LookupError` where there is none."""
    return f"{__name__}.{_HOMES.get(method) or _HOMES[method.partition('/')[0]]}"
