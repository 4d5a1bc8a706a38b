"""Run commands for somebody else: start them, stream their output, feed their input, and leave nothing behind.

    import execsrv, trio

    async def main():
        async with execsrv.connect_in_process() as client:
            result = await client.run(["make", "-j8"], cwd="/src", timeout=600)
            print(result.exit_code, result.stdout)

    trio.run(main)

`connect_websocket`, `connect_unix`, `connect_stdio` and `launch` give the same client for a server elsewhere; `serve`
is the daemon. What can go wrong is in `execsrv.errors`, every setting in `execsrv.limits`, the wire in
`execsrv.protocol`.
"""

import sys

if sys.platform == "win32":
    raise ImportError("execsrv needs a POSIX system (Linux, or macOS with fewer guarantees); it cannot run on Windows")

from execsrv._in_process import connect_in_process
from execsrv._log.log import Closed, Exited, Gap
from execsrv._server.host import package_version
from execsrv.client import (
    Client,
    Event,
    Process,
    Result,
    connect,
    connect_stdio,
    connect_unix,
    connect_websocket,
    launch,
)
from execsrv.limits import ClientConfig, Limits, ServerConfig
from execsrv.protocol import Chunk
from execsrv.server import serve

__all__ = [
    "Chunk",
    "Client",
    "ClientConfig",
    "Closed",
    "Event",
    "Exited",
    "Gap",
    "Limits",
    "Process",
    "Result",
    "ServerConfig",
    "connect",
    "connect_in_process",
    "connect_stdio",
    "connect_unix",
    "connect_websocket",
    "launch",
    "serve",
]

__version__ = package_version()
