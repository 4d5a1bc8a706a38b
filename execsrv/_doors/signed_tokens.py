"""Signed tokens: JSON web tokens (RFC 7519), signed with HS256 by a secret that the server shares with their issuer.

The rules and the words are those of the Codex exec-server: `exp` is required, `nbf` is kept to, `iat` is not looked at,
issuer and audience are checked where they are set. Beyond that, `sub` is the name and `role` the role, and an audience
in a token is checked in any case, as RFC 7519 section 4.1.3 demands. PyJWT does the cryptography.
"""

from __future__ import annotations

import hmac
import logging
import math
import os
import stat
from typing import Any

from execsrv._doors.principal import BEARER, Principal
from execsrv._doors.tokens import parsed_role, read_own
from execsrv.errors import InvalidConfigError, UnauthorizedError
from execsrv.limits import ServerConfig
from execsrv.protocol.roles import Role

try:
    import jwt
except ImportError as error:
    raise InvalidConfigError("cannot check signed tokens: `execsrv[jwt]` is not installed") from error

logger = logging.getLogger(__name__)

_MIN_SECRET_BYTES = 32
_MAX_SECRET_BYTES = 64 * 1024
_NAME_CHARACTERS = 128

_SALT = os.urandom(32)
"""Of this process: the mark of a secret is good for nothing but to be compared here."""


class Signer:
    """Whoever shares a secret with us, and signs tokens with it."""

    def __init__(self, secret: bytes, issuer: str, audience: str, skew: float) -> None:
        self._secret = secret
        self._mark = hmac.digest(_SALT, secret, "sha256").hex()
        self._issuer = issuer or None
        self._audience = audience or None
        self._skew = skew

    def __repr__(self) -> str:
        return f"a signer of {self._issuer or 'any issuer'}"

    def find(self, token: str) -> Principal:
        """Return whose token it is. Raises `UnauthorizedError`."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                issuer=self._issuer,
                audience=self._audience,
                leeway=math.ceil(self._skew),
                options={"require": ["exp"], "verify_iat": False},
            )
        except jwt.ExpiredSignatureError:
            raise UnauthorizedError("expired websocket jwt") from None
        except jwt.ImmatureSignatureError:
            raise UnauthorizedError("websocket jwt is not valid yet") from None
        except (jwt.InvalidIssuerError, jwt.MissingRequiredClaimError) as error:
            raise UnauthorizedError(_MISSING.get(getattr(error, "claim", "iss"), _INVALID)) from None
        except jwt.InvalidAudienceError:
            raise UnauthorizedError(_MISSING["aud"]) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise UnauthorizedError(_INVALID) from None
        return Principal(f"{BEARER}{_name(claims.get('sub'))}", _role(claims.get("role", Role.OWNER.word)), self._mark)

    def has(self, principal: Principal) -> bool:
        """Return True where somebody came in by a token of this secret, whether or not that has expired."""
        return principal.credential == self._mark


_INVALID = "invalid websocket jwt"
_MISSING = {"iss": "websocket jwt issuer mismatch", "aud": "websocket jwt audience mismatch"}


def _name(subject: object) -> str:
    if subject is None:
        return "nobody"
    if not isinstance(subject, str) or not 0 < len(subject) <= _NAME_CHARACTERS or not subject.isprintable():
        raise UnauthorizedError(_INVALID)
    return subject


def _role(word: object) -> Role:
    try:
        return parsed_role(str(word))
    except ValueError:
        raise UnauthorizedError(_INVALID) from None


def read_signer(config: ServerConfig) -> Signer:
    """Read the secret. Raises `InvalidConfigError`."""
    path = config.bearer_secret_file
    secret = read_own(path, "secret", _MAX_SECRET_BYTES).strip().encode()
    if os.stat(path).st_mode & stat.S_IROTH:
        logger.warning("every user of this machine may read the secret in `%s`, and sign tokens with it", path)
    if len(secret) < _MIN_SECRET_BYTES:
        raise InvalidConfigError(f"cannot use the secret `{path}`: it is shorter than {_MIN_SECRET_BYTES} bytes")
    return Signer(secret, config.bearer_issuer, config.bearer_audience, config.bearer_clock_skew)
