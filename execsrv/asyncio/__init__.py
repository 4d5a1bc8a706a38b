# Written by tests/facades.py from the client: change that, and run `python -m tests.facades`.
"""The client for asyncio. Its words are those of `execsrv`.

    import asyncio
    import execsrv.asyncio

    async def main():
        async with execsrv.asyncio.launch() as client:
            print((await client.run(["uname", "-a"], text=True)).stdout)

    asyncio.run(main())

What is opened (`launch`, `connect`, `client.start`) is an asynchronous context manager; awaited instead, it stays open
until its `close()`. A task that is cancelled ends what it waits for.
"""

from execsrv.asyncio import replwrap
from execsrv.asyncio.client import Client
from execsrv.asyncio.connect import connect, connect_unix, connect_websocket, launch, run
from execsrv.asyncio.file_handles import RemoteFile
from execsrv.asyncio.files import Files
from execsrv.asyncio.http import Http, HttpStream
from execsrv.asyncio.lease import Lease
from execsrv.asyncio.many import Results
from execsrv.asyncio.pool import Pool
from execsrv.asyncio.process import Process
from execsrv.asyncio.remote_path import RemotePath
from execsrv.asyncio.replwrap import REPLWrapper
from execsrv.asyncio.screen import WatchedScreen
from execsrv.asyncio.sharing import Joined
from execsrv.asyncio.tree_changes import Changes

__all__ = [
    "Changes",
    "Client",
    "Files",
    "Http",
    "HttpStream",
    "Joined",
    "Lease",
    "Pool",
    "Process",
    "REPLWrapper",
    "RemoteFile",
    "RemotePath",
    "Results",
    "WatchedScreen",
    "connect",
    "connect_unix",
    "connect_websocket",
    "launch",
    "replwrap",
    "run",
]
