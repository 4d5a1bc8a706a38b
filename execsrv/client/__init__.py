"""The client: connecting to a server and running commands on it. Use it through the names in `execsrv`."""

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
