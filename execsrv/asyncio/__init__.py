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

from execsrv.asyncio.client import Client
from execsrv.asyncio.connect import connect, connect_unix, connect_websocket, launch, run
from execsrv.asyncio.process import Process

__all__ = ["Client", "Process", "connect", "connect_unix", "connect_websocket", "launch", "run"]
