"""Directories: where a pool learns which servers there are. A directory is a function that gives `Endpoint`s."""

from typing import TYPE_CHECKING

from execsrv.directories.dns import DnsDirectory
from execsrv.directories.endpoint import Directory, Endpoint
from execsrv.directories.joined import FileDirectory
from execsrv.directories.named import directory_of

if TYPE_CHECKING:
    from execsrv.directories.kubernetes import KubernetesDirectory

__all__ = ["Directory", "DnsDirectory", "Endpoint", "FileDirectory", "KubernetesDirectory", "directory_of"]


def __getattr__(name: str) -> object:
    """Return `KubernetesDirectory`, which brings in HTTP and TLS, for those who want it."""
    if name == "KubernetesDirectory":
        from execsrv.directories.kubernetes import KubernetesDirectory

        return KubernetesDirectory
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
