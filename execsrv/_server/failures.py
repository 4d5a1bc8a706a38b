"""The answers to requests that were refused, or that hit a fault of ours."""

from __future__ import annotations

import logging
import os
from collections import Counter
from itertools import count

from execsrv.errors import InternalError, RequestError
from execsrv.protocol import ErrorObject, Failure, Message, MessageId, Response

logger = logging.getLogger(__name__)

_TEXT_CHARACTERS = 1000

UNENCODABLE = UnicodeEncodeError, OverflowError, TypeError
"""Errors of an encoder: of text with half of a surrogate pair, of a number that is too large, of anything else."""

_SERVER = os.urandom(4).hex()
_requests = count(1)
"""Both together name a request that hit a fault, to its client and in the log."""


refused: Counter[tuple[str, str]] = Counter()
"""Requests of this process that were refused, by the kind of the error and by the limit that it names."""


def cut(text: str) -> str:
    """Return the beginning of an error's text: it may quote a request, and waits for its reader too."""
    return text[:_TEXT_CHARACTERS]


def failure_of(id: MessageId | None, error: Exception, method: str = "") -> Failure:
    """Return the answer to a request that ended with this error."""
    if not isinstance(error, RequestError):
        request = f"{_SERVER}-{next(_requests)}"
        logger.error("internal error in %s", method, exc_info=error, extra={"request": request})
        error = InternalError(f"internal error in `{method}`: {type(error).__name__}", requestId=request)
    logger.debug("refused %s: %s: %s", method, error.kind, error.message)
    refused[error.kind, str(error.facts.get("limit", ""))] += 1
    code, message, data = error.to_wire()
    data = {name: cut(value) if isinstance(value, str) else value for name, value in data.items()}
    return Failure(id, ErrorObject(code, cut(message), data))


def instead_of(message: Message | None, error: Exception) -> Failure:
    """Return what is sent in place of an answer that has no encoding, as a fault of ours. Raises it for all else."""
    if not isinstance(message, Response | Failure):
        raise error
    return failure_of(message.id, error, "the answer")
