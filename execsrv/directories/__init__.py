"""Directories: where a pool learns which servers there are. A directory is a function that gives `Endpoint`s."""

from execsrv.directories.endpoint import Directory, Endpoint
from execsrv.directories.joined import FileDirectory
from execsrv.directories.named import directory_of

__all__ = ["Directory", "Endpoint", "FileDirectory", "directory_of"]
