"""Directories: where a pool learns which servers there are. A directory is a function that gives `Endpoint`s."""

from execsrv.directories.endpoint import Directory, Endpoint

__all__ = ["Directory", "Endpoint"]
