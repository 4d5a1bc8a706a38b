"""TLS for websockets: what a server shows of itself and asks of clients, and which servers a client trusts.

The rules are those of Python's default contexts, and names are checked. A server speaks TLS 1.3 alone: it has no old
clients, and what was wrong before is gone there. A context is made of files, whole or not at all, and never asks a
terminal for a passphrase.
"""

from __future__ import annotations

import os
import ssl
import stat
from typing import Any, NoReturn

import trio

from execsrv.errors import InvalidConfigError
from execsrv.limits import ClientConfig, ServerConfig

_MAX_FILE_BYTES = 1024 * 1024

SecureStream = trio.SSLStream[trio.SocketStream]


class ManyRecords(ssl.SSLObject):
    """TLS that gives all that is there in one read. OpenSSL gives one record, 16 KiB at most, and each takes a turn."""

    _error: ssl.SSLError | None = None

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        """Return up to `size` bytes, nothing at the end. Raises `ssl.SSLError`, behind all that came before it."""
        if buffer is not None:
            return super().read(size, buffer)
        if self._error is not None:
            raise self._error
        data = super().read(size)
        pieces, left = [data], size - len(data)
        try:
            while data and left > 0:
                data = super().read(left)
                pieces.append(data)
                left -= len(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._error = error
        return b"".join(pieces)


def server_context(config: ServerConfig) -> ssl.SSLContext:
    """Read the certificate of a server, and the authorities of its clients. Raises `InvalidConfigError`.

    A client may leave its certificate out, and is known by something else then. Nothing is remembered from one
    connection for the next: whoever comes again is looked at again.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.sslobject_class = ManyRecords
    if not config.tls_certificate_file:
        raise InvalidConfigError("`wss://` needs a tls_certificate_file")
    _load_certificate(context, config.tls_certificate_file, config.tls_key_file, "--tls-key-file")
    if config.tls_client_ca_file:
        _load_authorities(context, config.tls_client_ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(config: ClientConfig) -> ssl.SSLContext:
    """Read which servers are trusted, and the certificate that is shown to them. Raises `InvalidConfigError`."""
    if config.tls_ca_file:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # in which no other authority is trusted
        _load_authorities(context, config.tls_ca_file)
    else:
        context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    context.sslobject_class = ManyRecords
    if config.tls_certificate_file:
        _load_certificate(context, config.tls_certificate_file, config.tls_key_file, "--key-file")
    elif config.tls_key_file:
        raise InvalidConfigError("a tls_key_file (--key-file) needs a tls_certificate_file (--certificate-file)")
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str, option: str) -> None:
    """Have a certificate shown, by the key that `option` of the command line names. Raises `InvalidConfigError`."""

    def no_passphrase() -> NoReturn:
        raise InvalidConfigError(f"the key in `{key or certificate}` has a passphrase, which nobody could enter")

    _expect("certificate", certificate, b"CERTIFICATE-----")
    hint = "" if key else f"; set tls_key_file ({option}) to the file that has it"
    _expect("key", key or certificate, b"PRIVATE KEY-----", hint)
    try:
        context.load_cert_chain(certificate, key or None, no_passphrase)
    except OSError as error:
        why = "the key is another one's" if isinstance(error, ssl.SSLError) and "MISMATCH" in error.reason else error
        raise InvalidConfigError(f"cannot use the certificate in `{certificate}`: {why}") from error


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    _expect("certificate", path, b"CERTIFICATE-----")
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise InvalidConfigError(f"cannot use the certificates in `{path}`: {error}") from error


def _expect(what: str, path: str, mark: bytes, hint: str = "") -> None:
    """Raises `InvalidConfigError` for a file that cannot be read or has nothing of that kind: OpenSSL says less."""
    try:
        # A FIFO that nobody writes to would hang, and OpenSSL reads the file once more.
        with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidConfigError(f"cannot read the {what} in `{path}`: it is no file")
            if mark not in file.read(_MAX_FILE_BYTES):
                raise InvalidConfigError(f"there is no {what} in PEM in `{path}`{hint}")
    except OSError as error:
        raise InvalidConfigError(f"cannot read the {what} in `{path}`: {error.strerror or error}") from error


def name_of_peer(stream: SecureStream) -> str | None:
    """Return who the other side is by its certificate, which was checked. None if it has shown none.

    It is the common name of the subject or, where there is none, its first other name.
    """
    certificate = stream.getpeercert()
    if not certificate:
        return None
    for part in certificate.get("subject", ()):
        for kind, value in part:
            if kind == "commonName" and value:
                return str(value)
    for _, value in certificate.get("subjectAltName", ()):
        return str(value)
    return ""
