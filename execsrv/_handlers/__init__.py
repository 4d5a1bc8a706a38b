"""One short function per method: the only place that knows both the wire and the sessions.

A module for each family of methods; `table.py` holds the one table that all of them are entered into.
"""

from execsrv._handlers import command, files, machine, process
from execsrv._handlers.machine import tell_of_environment
from execsrv._handlers.table import HANDLERS

__all__ = ["HANDLERS", "command", "files", "machine", "process", "tell_of_environment"]
