"""One short function per method: the only place that knows both the wire and the sessions.

A module for each family of methods; `table.py` holds the register that all of them are entered into.
"""

from execsrv._server.methods import ceilings, command, files, host, listing, process, process_start, sharing, waiting
from execsrv._server.methods.host import tell_of_environment
from execsrv._server.methods.table import HANDLERS

__all__ = [
    "HANDLERS",
    "ceilings",
    "command",
    "files",
    "host",
    "listing",
    "process",
    "process_start",
    "sharing",
    "tell_of_environment",
    "waiting",
]
