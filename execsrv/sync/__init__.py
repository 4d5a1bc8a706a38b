# Written by tests/facades.py from the client: change that, and run `python -m tests.facades`.
"""The client for plain code: scripts, notebooks, threads. The words of `execsrv`, without `await`.

    import execsrv.sync

    with execsrv.sync.launch() as client:
        print(client.run(["uname", "-a"], text=True).stdout)

Each call blocks the thread that makes it. What is opened (`launch`, `connect`, `client.start`) is a context manager, or
is kept until its `close()`. What is left open when the interpreter exits is closed then.
"""

from execsrv.sync import replwrap
from execsrv.sync.client import Client
from execsrv.sync.connect import connect, connect_unix, connect_websocket, launch, run
from execsrv.sync.file_handles import RemoteFile
from execsrv.sync.files import Files
from execsrv.sync.http import Http, HttpStream
from execsrv.sync.lease import Lease
from execsrv.sync.many import Results
from execsrv.sync.pool import Pool
from execsrv.sync.process import Process
from execsrv.sync.remote_path import RemotePath
from execsrv.sync.replwrap import REPLWrapper
from execsrv.sync.screen import WatchedScreen
from execsrv.sync.sharing import Joined
from execsrv.sync.tree_changes import Changes

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
