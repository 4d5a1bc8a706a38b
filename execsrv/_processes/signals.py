"""Signals by name and by number. Pure: no I/O."""

from __future__ import annotations

import signal

from execsrv.errors import InvalidParamsError

_REAL_TIME = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
_NUMBERS = {
    **{number.name: int(number) for number in signal.Signals},
    **{f"SIGRTMIN+{number - _REAL_TIME.start}": number for number in _REAL_TIME},
}
_NAMES = {number: name for name, number in reversed(_NUMBERS.items())}  # the first name that a number has


def signal_number(wanted: str | int) -> int:
    """Return the number of a signal: "TERM", "SIGTERM", "sigrtmin+3" or 15, and SIGINT for "interrupt".

    Raises `InvalidParamsError`, which has all allowed names among its facts, and those of everyday use in its text.
    """
    number = None
    if isinstance(wanted, int):
        number = wanted if wanted in _NAMES else None
    elif wanted == "interrupt":
        number = int(signal.SIGINT)
    else:
        name = wanted.upper()
        number = _NUMBERS.get(name if name.startswith("SIG") else f"SIG{name}")
    if number is None:
        allowed = list(_NUMBERS)
        usual = ", ".join(name for name, each in _NUMBERS.items() if each not in _REAL_TIME)
        message = f"unknown signal {wanted!r}; expected a number, one of {usual}, or SIGRTMIN+N"
        raise InvalidParamsError(message, field="signal", allowed=allowed)
    return number


def signal_name(number: int) -> str:
    """Return the name of a signal, `SIG` and its number where it has none."""
    return _NAMES.get(number, f"SIG{number}")
