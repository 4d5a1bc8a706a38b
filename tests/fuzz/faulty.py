"""An execsrv with a fault of one kind, which the fuzzer has to find: `python -m tests.fuzz.faulty KIND serve ...`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from execsrv._cli.app import main
from execsrv._server.methods import HANDLERS, handler_of
from execsrv.protocol import EnvironmentStatus, Nothing

METHOD = "environmentConfig/read"


def fail() -> None:
    raise RuntimeError("a fault")


FAULTS: dict[str, Callable[[], Any]] = {
    "traceback": fail,
    "end": lambda: os._exit(3),
    "answer": lambda: EnvironmentStatus(),
    "descriptor": lambda: os.dup(2),
    "command": lambda: subprocess.Popen(["sleep", "1000"]),
    "hang": lambda: time.sleep(1000),
}


if __name__ == "__main__":
    kind = sys.argv.pop(1)

    def run(*_: object) -> Any:
        done = FAULTS[kind]()
        return done if isinstance(done, EnvironmentStatus) else Nothing()

    HANDLERS[METHOD] = handler_of(METHOD)._replace(run=run)
    main()
