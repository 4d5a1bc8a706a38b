"""The tokens that one server takes: opaque ones of a file, and signed ones. Nothing of it is loaded where none is set.

They are read at the start and again when the server is told to. What cannot be read then leaves those that were there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from execsrv._doors.principal import BEARER, NO_TOKENS, TOKEN, Principal
from execsrv.errors import UnauthorizedError
from execsrv.limits import ServerConfig

if TYPE_CHECKING:
    from execsrv._doors.signed_tokens import Signer
    from execsrv._doors.tokens import TokenFile


class Credentials:
    """All that a server knows of tokens."""

    def __init__(self) -> None:
        self._tokens: TokenFile | None = None
        self._signer: Signer | None = None

    def __repr__(self) -> str:
        return f"<Credentials {self._tokens or 'no tokens'}, {self._signer or 'no signer'}>"

    def load(self, config: ServerConfig) -> None:
        """Read everything that is set. Raises `InvalidConfigError`, and then changes nothing. Blocks."""
        tokens = signer = None
        if config.token_file:
            from execsrv._doors.tokens import read_tokens

            tokens = read_tokens(config.token_file)
        if config.bearer_secret_file:
            from execsrv._doors.signed_tokens import read_signer

            signer = read_signer(config)
        self._tokens, self._signer = tokens, signer

    def take(self, other: Credentials) -> None:
        """Know what another one has read."""
        self._tokens, self._signer = other._tokens, other._signer

    def lets_in(self, principal: Principal) -> bool:
        """Return False for who came in by a token of the file that is not there any more, or not in that role.

        Another token of the same name is not the one by which they came in, and neither is one of another secret.
        """
        if principal.name.startswith(TOKEN):
            return self._tokens is not None and self._tokens.has(principal)
        if principal.name.startswith(BEARER):
            return self._signer is not None and self._signer.has(principal)
        return True

    def find(self, token: str) -> Principal:
        """Return whose token it is. Raises `UnauthorizedError`."""
        if self._signer is not None and (self._tokens is None or token.count(".") == 2):
            return self._signer.find(token)
        if self._tokens is not None:
            return self._tokens.find(token)
        raise UnauthorizedError(NO_TOKENS)
