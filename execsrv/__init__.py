"""Run commands for somebody else: start them, stream their output, feed their input, and leave nothing behind.

    import execsrv, trio

    async def main():
        async with execsrv.connect_in_process() as client:
            result = await client.run(["make", "-j8"], cwd="/src", timeout=600)
            print(result.exit_code, result.stdout)

    trio.run(main)

`connect_websocket`, `connect_unix`, `connect_stdio` and `launch` give the same client for a server elsewhere; `serve`
is the daemon. Every setting is in `execsrv.limits`, the wire in `execsrv.protocol`.
"""

import sys

if sys.platform != "linux":
    raise ImportError(f"execsrv runs on Linux only, and this is {sys.platform}")

from execsrv._in_process import connect_in_process
from execsrv._log.log import Closed, Exited, Gap
from execsrv._version import __version__
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
from execsrv.errors import (
    AlreadyAttachedError,
    BadAnswerError,
    BusyError,
    CannotListenError,
    CommandError,
    CommandFailedError,
    CommandTimeoutError,
    ConnectionFailedError,
    ConnectionLostError,
    CutOffError,
    ExecsrvError,
    FileError,
    FileRefusedError,
    FilesDisabledError,
    HttpFailedError,
    HttpUnavailableError,
    InternalError,
    InvalidConfigError,
    InvalidListenURLError,
    InvalidParamsError,
    LimitExceededError,
    NotAllowedError,
    NotFoundError,
    NotReadyError,
    OutputTruncatedError,
    OutsideRootsError,
    ProcessExistsError,
    ProtocolError,
    RequestError,
    SandboxUnavailableError,
    SpawnError,
    StdinClosedError,
    UnknownConnectionError,
    UnknownMethodError,
    UnknownProcessError,
)
from execsrv.limits import ClientConfig, Limits, ServerConfig
from execsrv.protocol import Chunk
from execsrv.server import serve

__all__ = [
    "AlreadyAttachedError",
    "BadAnswerError",
    "BusyError",
    "CannotListenError",
    "Chunk",
    "Client",
    "ClientConfig",
    "Closed",
    "CommandError",
    "CommandFailedError",
    "CommandTimeoutError",
    "ConnectionFailedError",
    "ConnectionLostError",
    "CutOffError",
    "Event",
    "ExecsrvError",
    "Exited",
    "FileError",
    "FileRefusedError",
    "FilesDisabledError",
    "Gap",
    "HttpFailedError",
    "HttpUnavailableError",
    "InternalError",
    "InvalidConfigError",
    "InvalidListenURLError",
    "InvalidParamsError",
    "LimitExceededError",
    "Limits",
    "NotAllowedError",
    "NotFoundError",
    "NotReadyError",
    "OutputTruncatedError",
    "OutsideRootsError",
    "Process",
    "ProcessExistsError",
    "ProtocolError",
    "RequestError",
    "Result",
    "SandboxUnavailableError",
    "ServerConfig",
    "SpawnError",
    "StdinClosedError",
    "UnknownConnectionError",
    "UnknownMethodError",
    "UnknownProcessError",
    "__version__",
    "connect",
    "connect_in_process",
    "connect_stdio",
    "connect_unix",
    "connect_websocket",
    "launch",
    "serve",
]
