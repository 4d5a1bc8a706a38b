"""The token of a client: given, in a file, or in the environment. It goes to the server and nowhere else.

A file is read for every new channel, so that a new token in it is taken at the next one. A token in the environment is
taken out of it when it is first asked for, so that nothing that this program starts inherits it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable

import trio

from execsrv.errors import ConnectionFailedError, InvalidParamsError
from execsrv.protocol.connection import MAX_TOKEN_CHARACTERS

TOKEN_VARIABLE = "EXECSRV_TOKEN"
TOKEN_FILE_VARIABLE = "EXECSRV_TOKEN_FILE"

ReadToken = Callable[[], Awaitable[str | None]]
"""Returns the token to be shown, None for none. Raises `ConnectionFailedError`."""

_taken: str | None = None


def take_token() -> str | None:
    """Return the token of the environment, which is not in it any more."""
    global _taken
    _taken = os.environ.pop(TOKEN_VARIABLE, None) or _taken
    return _taken


def token_reader(token: str | None, token_file: str | os.PathLike[str] | None) -> ReadToken:
    """Return what gives the token: this one, that of a file, or where neither is given, that of the environment.

    Raises `InvalidParamsError` where both are given, or a token is none.
    """
    if token is not None and token_file is not None:
        raise InvalidParamsError("a token and a token_file exclude each other", field="token_file")
    if token is None and token_file is None:
        token = take_token()
        token_file = None if token is not None else os.environ.get(TOKEN_FILE_VARIABLE) or None
    if token is not None:
        if not is_token(token):
            raise InvalidParamsError("a token is of printable ASCII without blanks", field="token")
        return _Given(token)
    return _OfFile(os.fspath(token_file)) if token_file is not None else no_token


def is_token(text: str) -> bool:
    """Return True for a text that can be a token in an HTTP header."""
    return 0 < len(text) <= MAX_TOKEN_CHARACTERS and all("!" <= letter <= "~" for letter in text)


async def no_token() -> None:
    """Return no token."""


class _Given:
    """A token that is in no repr."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __repr__(self) -> str:
        return "<a token>"

    async def __call__(self) -> str:
        return self._token


class _OfFile:
    """A token in a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"<the token in {self._path}>"

    async def __call__(self) -> str:
        limiter = trio.CapacityLimiter(1)
        try:
            text = await trio.to_thread.run_sync(_content, self._path, limiter=limiter, abandon_on_cancel=True)
        except OSError as error:
            text = f"cannot read the token file `{self._path}`: {error.strerror or error}"
            raise ConnectionFailedError(text) from error
        if not is_token(token := text.strip()):
            raise ConnectionFailedError(f"there is no token in `{self._path}`: expected one, in printable ASCII")
        return token


def _content(path: str) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return ""
        return file.read(MAX_TOKEN_CHARACTERS + 64).decode(errors="replace")
