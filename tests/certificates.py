"""Authorities and certificates, made for one test, and files of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

LOOPBACK = "127.0.0.1"


class Authority:
    """An authority of a test's own, and where it puts what it makes."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = self._write(f"{name}.pem", self._ca.cert_pem.bytes())

    def _write(self, name: str, content: bytes) -> str:
        path = self._folder / name
        path.write_bytes(content)
        return str(path)

    def server(self, *names: str, file: str = "server.pem") -> str:
        """The file of a server's certificate and its key."""
        leaf = self._ca.issue_cert(*(names or [LOOPBACK]))
        return self._write(file, leaf.private_key_and_cert_chain_pem.bytes())

    def client(self, name: str, *, expired: bool = False) -> str:
        """The file of a client's certificate and its key."""
        now = datetime.now(UTC)
        end = now - timedelta(days=1) if expired else now + timedelta(days=1)
        leaf = self._ca.issue_cert(
            f"{name}@example.org", common_name=name, not_before=now - timedelta(days=2), not_after=end
        )
        return self._write(f"{name}.pem", leaf.private_key_and_cert_chain_pem.bytes())

    def dated(self, start: int, end: int) -> str:
        """The file of a server's certificate that is valid from and to so many days from now."""
        now = datetime.now(UTC)
        leaf = self._ca.issue_cert(
            LOOPBACK, not_before=now + timedelta(days=start), not_after=now + timedelta(days=end)
        )
        return self._write("dated.pem", leaf.private_key_and_cert_chain_pem.bytes())
