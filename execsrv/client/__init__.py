"""The client: connecting to a server and running commands on it. Use it through the names in `execsrv`.

`connect` has the ways to a server. Those by another program, such as ssh, are chosen in `far_commands` and started
in `far_channel`. `connection` greets, and resumes over another channel when one is lost; `calls` asks and waits.
`starting` asks for a command. `mirror` is what the client has of it, and `process` what users have; `reading` and
`streams` read it, `expect` talks with it, `patterns` searches what it says, and `waiting` waits for it. `files`,
`transfer` (put and get), `http` and `sharing` are the rest that a server offers.
"""

from execsrv.client.client import Client
from execsrv.client.connect import connect, connect_stdio, connect_unix, connect_websocket, launch
from execsrv.client.file_handles import RemoteFile
from execsrv.client.file_info import FileInfo
from execsrv.client.files import Files
from execsrv.client.http import Http, HttpAnswer, HttpStream, ServerVariable
from execsrv.client.parameters import DEVNULL, PIPE, STDOUT
from execsrv.client.policy import Policy
from execsrv.client.process import Process
from execsrv.client.reading import Event
from execsrv.client.remote_path import RemotePath
from execsrv.client.result import Result
from execsrv.client.transfer import Transferred
from execsrv.client.tree_changes import FileChanged
from execsrv.client.waiting import Happened

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Client",
    "Event",
    "FileChanged",
    "FileInfo",
    "Files",
    "Happened",
    "Http",
    "HttpAnswer",
    "HttpStream",
    "Policy",
    "Process",
    "RemoteFile",
    "RemotePath",
    "Result",
    "ServerVariable",
    "Transferred",
    "connect",
    "connect_stdio",
    "connect_unix",
    "connect_websocket",
    "launch",
]
