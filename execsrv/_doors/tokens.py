"""Opaque tokens: a file with the name, the role and the SHA-256 of each, written by `execsrv token`.

    # name role sha256 expiry
    ci owner 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 2027-01-31T00:00:00+00:00
    dashboard viewer 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752 never

A token is 32 random bytes, so that nobody can guess one from its hash, and whoever reads the file has none. It is
compared with every line, in a time that says nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from execsrv._doors.principal import TOKEN, Principal
from execsrv.errors import InvalidConfigError, UnauthorizedError
from execsrv.protocol.roles import Role

PREFIX = "exs_"
"""Begins every token, so that whatever looks for secrets in texts knows one."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
MAX_FILE_BYTES = 1024 * 1024

_HASH = re.compile(r"[0-9a-f]{64}")
_NEVER = "never"


class Entry(NamedTuple):
    """One token of a file."""

    name: str
    role: Role
    sha256: str
    expires: datetime | None

    @property
    def is_over(self) -> bool:
        """Return True when it is not taken any more."""
        return self.expires is not None and self.expires <= datetime.now(UTC)

    @property
    def principal(self) -> Principal:
        """Whoever presents it."""
        return Principal(f"{TOKEN}{self.name}", self.role, self.sha256)

    def line(self) -> str:
        """Return it as a file has it."""
        expiry = self.expires.isoformat(timespec="seconds") if self.expires else _NEVER
        return f"{self.name} {self.role.word} {self.sha256} {expiry}\n"


class TokenFile:
    """The tokens of a file as they were read."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)

    def __repr__(self) -> str:
        return f"{len(self.entries)} tokens"

    def find(self, token: str) -> Principal:
        """Return whose token it is. Raises `UnauthorizedError`."""
        found: Entry | None = None
        digest = sha256(token)
        for entry in self.entries:
            if hmac.compare_digest(entry.sha256, digest):
                found = entry  # and go on: all take the same time
        if found is None:
            raise UnauthorizedError("invalid websocket bearer token: it is not one of this server")
        if found.is_over:
            raise UnauthorizedError(f"invalid websocket bearer token: `{found.name}` has expired")
        return found.principal

    def has(self, principal: Principal) -> bool:
        """Return True where somebody may still come in by the token of this file by which they came in."""
        return any(entry.principal == principal and not entry.is_over for entry in self.entries)


def new_token() -> str:
    """Return a new token."""
    return PREFIX + secrets.token_urlsafe(32)


def sha256(token: str) -> str:
    """Return the hash of a token, as a file has it."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def read_tokens(path: str) -> TokenFile:
    """Read a file of tokens. Raises `InvalidConfigError`, also where another user could write to it."""
    return TokenFile(parsed(read_own(path, "token file", MAX_FILE_BYTES), path))


def parsed(text: str, path: str) -> list[Entry]:
    """Return the tokens in the text of a file. Raises `InvalidConfigError`, which never quotes a line."""
    entries: list[Entry] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            entries.append(_entry(words))
        except ValueError as error:
            raise InvalidConfigError(f"cannot read line {number} of the token file `{path}`: {error}") from None
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidConfigError(f"cannot read the token file `{path}`: `{twice[0]}` is in it twice")
    return entries


def _entry(words: list[str]) -> Entry:
    """Return the token of a line. Raises `ValueError`."""
    if not 3 <= len(words) <= 4:
        raise ValueError("expected `NAME ROLE SHA256 EXPIRY`")
    name, word, digest, expiry = [*words, _NEVER][:4]
    if not NAME.fullmatch(name):
        raise ValueError("the name has other characters than letters, digits and `_.@-`, or more than 64")
    if not _HASH.fullmatch(digest):
        raise ValueError("the hash is not 64 small hexadecimal digits")
    return Entry(name, parsed_role(word), digest, None if expiry == _NEVER else parsed_time(expiry))


def parsed_role(word: str) -> Role:
    """Return the role with this name. Raises `ValueError`."""
    by_word = {role.word: role for role in Role}
    if word not in by_word:
        raise ValueError(f"the role is not one of {', '.join(by_word)}")
    return by_word[word]


def parsed_time(text: str) -> datetime:
    """Return a time of ISO 8601, in UTC where it does not say. Raises `ValueError`."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("the expiry is neither `never` nor a time such as 2027-01-31T00:00:00+00:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def read_own(path: str, what: str, most: int) -> str:
    """Read a file that nobody but this user, or root, can have written. Raises `InvalidConfigError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise InvalidConfigError(f"cannot read the {what} `{path}`: it is no file")
            if facts.st_uid not in (os.geteuid(), 0):
                raise InvalidConfigError(f"cannot trust the {what} `{path}`: it belongs to uid {facts.st_uid}")
            if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise InvalidConfigError(f"cannot trust the {what} `{path}`: others may write to it (chmod go-w)")
            content = file.read(most + 1)
    except OSError as error:
        raise InvalidConfigError(f"cannot read the {what} `{path}`: {error.strerror or error}") from error
    if len(content) > most:
        raise InvalidConfigError(f"cannot read the {what} `{path}`: it is larger than {most} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidConfigError(f"cannot read the {what} `{path}`: it is not UTF-8") from None
