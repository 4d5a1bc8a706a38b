"""Ways of not getting to a server, each in one line for people: its reason, and nothing of the libraries in between."""

from __future__ import annotations

import os
import re
import socket
import ssl
from http import HTTPStatus

import h11
import trio
import wsproto.utilities

from execsrv._wire.load_library import trio_websocket
from execsrv.errors import ConnectionFailedError, InvalidConfigError

CONNECT_ERRORS = (
    OSError,
    ValueError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    ConnectionFailedError,
    InvalidConfigError,
    trio_websocket.HandshakeError,
    wsproto.utilities.ProtocolError,
    h11.ProtocolError,
)
"""All that opening a websocket raises for what it finds, or does not find, at the other end."""

_REFUSED = re.compile(r"ALERT_(\w*CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")
"""What a server tells in TLS of a client's certificate."""

_UNKNOWN_AUTHORITY = {18, 19, 20, 21}
"""Codes of X509_STORE_CTX_get_error(3) for a chain that ends at nobody whom we trust."""

NO_TLS = (
    "a token is not sent to another machine without TLS; use `wss://`, or where the network is your own,"
    " --allow-plain-network (allow_plain_network)"
)
_NO_SERVER = "this is no exec server"
NO_HTTP = f"{_NO_SERVER}: it does not speak HTTP as a websocket does"
_BODY_CHARACTERS = 120


def why_unreachable(error: BaseException) -> str:
    """Return the reason why there is no connection."""
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                is_unknown = cause.verify_code in _UNKNOWN_AUTHORITY
                hint = "; set tls_ca_file (--ca-file) to its authority" if is_unknown else ""
                return f"its certificate is not trusted: {cause.verify_message}{hint}"
            case ssl.SSLError() if _REFUSED.search(cause.reason or ""):
                return f"it does not take our certificate ({_words(cause).partition('alert ')[2]})"
            case ssl.SSLError():
                return f"TLS failed ({_words(cause)}): does it speak `wss://`?"
            case socket.gaierror():
                return f"its name cannot be resolved: {cause.strerror}"
            case OSError() if cause.errno:
                return os.strerror(cause.errno)  # trio's text has the address as Python writes it
            case OSError() if cause.strerror:
                return cause.strerror
            case trio_websocket.ConnectionRejected():
                return _rejected(cause)
            case ConnectionFailedError() | InvalidConfigError():
                return str(cause)
            case UnicodeError():
                return "that is no name of a host"
            case h11.ProtocolError() | wsproto.utilities.ProtocolError() | trio_websocket.HandshakeError():
                return NO_HTTP
    return "the connection broke"


def is_final(error: BaseException) -> bool:
    """Return True where the next attempt would fail for the same reason.

    One of the two does not take the other, or there is no host of that name: not that nobody can be asked for it now.
    """
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError() | UnicodeError() | socket.gaierror(errno=socket.EAI_NONAME):
                return True
            case ssl.SSLError() if _REFUSED.search(cause.reason or ""):
                return True
            case trio_websocket.ConnectionRejected(status_code=401 | 403):
                return True
            case ConnectionFailedError(is_final=True):
                return True
    return False


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "unknown").lower().replace("_", " ")


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and all that it came from, the first of several at a time."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
        if isinstance(chain[-1], BaseExceptionGroup):
            following = chain[-1].exceptions[0]
        elif isinstance(following, BaseExceptionGroup):
            following = following.exceptions[0]
    return chain


def _rejected(error: trio_websocket.ConnectionRejected) -> str:
    """Return the words for an answer that is no websocket. An error may come from a server of ours, or from a proxy."""
    status = error.status_code
    answered = f"it answered {status}"
    if status in {known.value for known in HTTPStatus}:
        answered += f" {HTTPStatus(status).phrase}"
    if status not in (401, 403, 407, 408, 426, 429) and status < 500:
        return f"{_NO_SERVER}: {answered}"
    body = (error.body or b"")[: 4 * _BODY_CHARACTERS].decode(errors="replace").strip()
    if not body or body.startswith("<"):
        return answered
    line = "".join(letter if letter.isprintable() else " " for letter in body)
    return f"{answered}: {line[:_BODY_CHARACTERS]}"
