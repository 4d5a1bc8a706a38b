"""Does a command: gives its function what it takes, and says in one line, with a hint, why it could not be done."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from execsrv._cli.interrupts import interruptible
from execsrv._cli.manners import Manners
from execsrv._cli.register.common import DEFAULT_URL, MANNERS
from execsrv._cli.register.kinds import Command
from execsrv._cli.streams import say
from execsrv._cli.usage import UsageError
from execsrv.errors import ConnectionFailedError, ExecsrvError, InvalidParamsError, NameTakenError, RequestError

_HINTS = {
    "unauthorized": "give a token with `--token-file FILE`",
    "files-disabled": "its `allow_files` is off",
    "limit-exceeded": "`execsrv limits` lists what is in use",
}
"""What to do about an error of a server, by its kind."""


def done(command: Command, handler: Callable[..., Any], values: dict[str, Any]) -> int:
    """Do a command with these values; return the exit status. Raises `UsageError`."""
    url = values.get("url")
    manners = Manners()
    keys = {option.key for option in command.options}
    if {"url", "reconnect"} <= keys:
        from execsrv._cli.reach import Reach

        values["reach"] = Reach(**{name: values.pop(name) for name in Reach._fields if name in keys})
    if {option.key for option in MANNERS} <= keys:
        manners = values["manners"] = Manners(**{option.key: values.pop(option.key) for option in MANNERS})
    logging.getLogger("execsrv").setLevel(logging.DEBUG if manners.verbose else logging.ERROR)
    told: list[signal.Signals] = []
    try:
        with interruptible(told):
            status: int = handler(**values)
            return status
    except BaseException as error:
        if told:
            return _die(told[0])
        return _ended(command, error, url, manners)


def _ended(command: Command, error: BaseException, url: str | None, manners: Manners) -> int:
    """Say why a command ended by an error, and return the exit status. Raises the error where it is none of those."""
    errors = list(_leaves(error))
    for kind, number in ((KeyboardInterrupt, signal.SIGINT), (BrokenPipeError, signal.SIGPIPE)):
        if any(isinstance(one, kind) for one in errors):
            return _die(number)
    wrong = next((one for one in errors if isinstance(one, ExecsrvError | OSError)), None)
    if wrong is None or isinstance(error, UsageError):
        raise error
    return _failed(command, wrong, url, manners)


def _failed(command: Command, error: BaseException, url: str | None, manners: Manners) -> int:
    say(f"execsrv: {explained(error, url)}")
    if manners.verbose:
        for cause in _causes(error):
            say(f"execsrv:   because of {type(cause).__name__}: {' '.join(str(cause).split())}")
    return command.failure


def explained(error: BaseException, url: str | None) -> str:
    """Return one line for an error, with what can be done about it."""
    if isinstance(error, OSError) and not isinstance(error, ExecsrvError):
        text = error.strerror or str(error)
        if error.filename is not None:
            text = f"cannot use `{os.fsdecode(error.filename)}`: {text}"
        return " ".join(text.split())
    text = " ".join(_complaint(error).split())
    hint = _hint(error, url)
    return f"{text}; {hint}" if hint else text


def _complaint(error: BaseException) -> str:
    """Return the text of an error. That of a name which a connection cannot have speaks of the option."""
    if isinstance(error, ConnectionFailedError):
        for cause in _causes(error):
            if isinstance(cause, NameTakenError):
                name = cause.facts.get("name")
                return f"the name `{name}` is in use: choose another --name, or `execsrv kill {name}`"
            if isinstance(cause, InvalidParamsError) and cause.facts.get("field") == "name":
                return str(cause)
    return str(error)


def _hint(error: BaseException, url: str | None) -> str:
    if isinstance(error, ConnectionFailedError):
        number = next((cause.errno for cause in (error, *_causes(error)) if isinstance(cause, OSError)), None)
        if url in (None, DEFAULT_URL) and number in (errno.ENOENT, errno.ECONNREFUSED):
            return "start one with `execsrv serve --listen unix://`, or name another with `--url`"
        return ""
    return _HINTS.get(error.kind, "") if isinstance(error, RequestError) else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__ or error.__context__) is not None:
        yield cause
        error = cause


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group and of the groups in it, or the error itself."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for one in error.exceptions:
        yield from _leaves(one)


def _die(number: signal.Signals) -> int:
    from execsrv._cli.heard_signals import die_of

    die_of(number)
    return 128 + number
