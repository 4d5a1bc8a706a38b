"""`execsrv token`: the file of tokens that a server takes, changed in one step and under a lock.

A token is printed once and kept nowhere. The file has its hash, and so may be read by whoever may read it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from execsrv._cli.manners import print_text
from execsrv._cli.usage import UsageError
from execsrv._doors.tokens import (
    MAX_FILE_BYTES,
    NAME,
    Entry,
    new_token,
    parsed,
    parsed_role,
    parsed_time,
    read_own,
    sha256,
)
from execsrv._wire.writing import write_all
from execsrv.errors import ExecsrvError

_SPAN = re.compile(r"([0-9]{1,6})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def new(*, path: str | None, name: str, role: str, expires: str | None, out: str | None) -> int:
    """Add a token to a file, and print it, or write it to another file. Raises `ExecsrvError` and `UsageError`."""
    path = _named(path)
    if not NAME.fullmatch(name):
        raise UsageError("a name has letters, digits and `_.@-`, 64 at most, and begins with a letter or digit")
    token = new_token()
    entry = Entry(name, parsed_role(role), sha256(token), _expiry(expires))
    with _changing(path) as change:
        if any(known.name == name for known in parsed(change.text, path)):
            raise ExecsrvError(f"`{name}` is in `{path}` already: revoke it first")
        text = change.text
        change.text = text + ("" if text.endswith("\n") or not text else "\n") + entry.line()
        change.tell = partial(_print, token) if out is None else partial(_write_new, out, token)
    return 0


def _print(token: str) -> None:
    """Print a token before it is in the file, where one that nobody has is of no use. Raises `ExecsrvError`."""
    try:
        print_text(token + "\n")
    except OSError as error:
        raise ExecsrvError(f"cannot print the token, so it is not kept: {error.strerror}") from None


def _named(path: str | None) -> str:
    if not path:
        raise UsageError("--file is missing: the file of tokens")
    return path


def list_all(*, path: str | None, as_json: bool) -> int:
    """Print the tokens of a file, for people or as JSON. Raises `ExecsrvError` and `UsageError`."""
    path = _named(path)
    with _said():
        entries = parsed(read_own(path, "token file", MAX_FILE_BYTES), path)
    rows = [
        {
            "name": entry.name,
            "role": entry.role.word,
            "expires": entry.expires.isoformat(timespec="seconds") if entry.expires else None,
            "expired": entry.is_over,
        }
        for entry in entries
    ]
    if as_json:
        print_text(msgspec.json.encode(rows).decode() + "\n")
        return 0
    width = max((len(entry.name) for entry in entries), default=0)
    lines = "".join(
        f"{row['name']:{width}}  {row['role']:6}  {row['expires'] or 'never expires'}"
        f"{' (expired)' if row['expired'] else ''}\n"
        for row in rows
    )
    print_text(lines)
    return 0


def revoke(*, path: str | None, name: str) -> int:
    """Take a token out of a file. Raises `ExecsrvError` and `UsageError`."""
    path = _named(path)
    with _changing(path) as change:
        lines = change.text.splitlines(keepends=True)
        kept = [line for line in lines if line.split()[:1] != [name]]
        if kept == lines:
            raise ExecsrvError(f"`{name}` is not in `{path}`")
        change.text = "".join(kept)
    return 0


def _expiry(text: str | None) -> datetime | None:
    """Return the end of a time, None for never. Raises `UsageError`."""
    if text is None:
        return None
    now = datetime.now(UTC)
    try:
        if span := _SPAN.fullmatch(text):
            time = now + timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
        else:
            time = parsed_time(text)
    except OverflowError:
        raise UsageError(f"the time `{text}` is too long: expected one before the year 10000") from None
    except ValueError:
        raise UsageError(f"cannot read the time `{text}`: expected 12h, 30d or 2027-01-31T12:00") from None
    if time <= now:
        raise UsageError(f"the time `{text}` is over already")
    return time


class _Change:
    """The text of a file, before and after. `tell` is called once that after is on the disk, before it is in place."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tell: Callable[[], None] = lambda: None


@contextmanager
def _changing(path: str) -> Iterator[_Change]:
    """Give the text of a file, which is replaced by what becomes of it in the block. Others who change it wait."""
    folder = os.path.dirname(path) or "."
    with _said():
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            mode = 0o600
            text = ""
            if os.path.lexists(path):
                path = os.path.realpath(path)
                mode = os.stat(path).st_mode & 0o755
                text = read_own(path, "token file", MAX_FILE_BYTES)
            change = _Change(text)
            yield change
            if change.text != text or not os.path.exists(path):
                _replace(path, change, mode)
        finally:
            os.close(lock)


def _replace(path: str, change: _Change, mode: int) -> None:
    part = f"{path}.{os.getpid()}.part"
    _write_new(part, change.text, mode, path)
    try:
        change.tell()
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _write_new(path: str, text: str, mode: int = 0o600, shown: str | None = None) -> None:
    """Write a file that is not there yet, or leave none. Raises `OSError`, and `ExecsrvError` that names `shown`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        write_all(descriptor, text.encode() + (b"" if text.endswith("\n") or not text else b"\n"))
        os.fsync(descriptor)
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError):
            raise ExecsrvError(f"cannot write `{shown or path}`: {error.strerror}") from None
        raise
    finally:
        os.close(descriptor)


@contextmanager
def _said() -> Iterator[None]:
    """Raise `ExecsrvError` for what goes wrong in the block."""
    try:
        yield
    except OSError as error:
        where = f" `{error.filename}`" if error.filename else ""
        raise ExecsrvError(f"cannot open{where}: {error.strerror}") from None
