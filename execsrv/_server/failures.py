"""The answers to requests that were refused, or that hit a fault of ours."""

from __future__ import annotations

import logging

from execsrv.errors import InternalError, RequestError
from execsrv.protocol import ErrorObject, Failure, MessageId

logger = logging.getLogger(__name__)

_TEXT_CHARACTERS = 1000


def cut(text: str) -> str:
    """Return the beginning of an error's text: it may quote a request, and waits for its reader too."""
    return text[:_TEXT_CHARACTERS]


def failure_of(id: MessageId | None, error: Exception, method: str = "") -> Failure:
    """Return the answer to a request that ended with this error."""
    if not isinstance(error, RequestError):
        logger.error("internal error in %s", method, exc_info=error)
        error = InternalError(f"internal error in `{method}`: {type(error).__name__}")
    code, message, data = error.to_wire()
    data = {name: cut(value) if isinstance(value, str) else value for name, value in data.items()}
    return Failure(id, ErrorObject(code, cut(message), data))
