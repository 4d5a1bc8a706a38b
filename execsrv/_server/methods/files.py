"""`fs/*`: the files of the server's machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from execsrv._server.methods.table import HANDLERS, Answer, Caller, Handler, check_unconfined
from execsrv.protocol import FileCall

if TYPE_CHECKING:
    from execsrv._files.files import Files

METHODS: dict[str, Callable[[Files, Any], Answer]] = {
    "fs/readFile": lambda files, params: files.read_file(params),
    "fs/writeFile": lambda files, params: files.write_file(params),
    "fs/createDirectory": lambda files, params: files.create_directory(params),
    "fs/getMetadata": lambda files, params: files.get_metadata(params),
    "fs/canonicalize": lambda files, params: files.canonicalize(params),
    "fs/readDirectory": lambda files, params: files.read_directory(params),
    "fs/walk": lambda files, params: files.walk(params),
    "fs/remove": lambda files, params: files.remove(params),
    "fs/copy": lambda files, params: files.copy(params),
    "fs/open": lambda files, params: files.blocks.open(params),
    "fs/readBlock": lambda files, params: files.blocks.read_block(params),
    "fs/writeBlock": lambda files, params: files.blocks.write_block(params),
    "fs/close": lambda files, params: files.blocks.close(params),
    "fs/watchMissing": lambda files, params: files.watches.watch_missing(params),
}


def _file_handler(method: Callable[[Files, Any], Answer]) -> Handler:
    def handler(caller: Caller, params: Any) -> Answer:
        if isinstance(params, FileCall):
            check_unconfined(params.sandbox)
        return method(caller.files(), params)

    return handler


HANDLERS.update({name: _file_handler(method) for name, method in METHODS.items()})
