"""Pseudo-terminals: the server's end is the master, the command's end is known by name only. See pty(7)."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Mapping
from typing import Any

from execsrv.errors import InvalidParamsError

_UNLOCK = getattr(termios, "TIOCSPTLCK", 0x40045431)
_NUMBER = getattr(termios, "TIOCGPTN", 0x80045430)
_PEER = getattr(termios, "TIOCGPTPEER", 0x5441)  # Linux 4.13
_IUTF8 = 0o40000  # <asm-generic/termbits.h>, which the standard library does not name

_INPUT, _OUTPUT, _LOCAL = 0, 1, 3  # places in what termios.tcgetattr returns

MODES = {
    "iutf8": (_INPUT, _IUTF8),
    **{
        name: (part, getattr(termios, name.upper()))
        for part, names in (
            (_INPUT, "ignbrk brkint ignpar parmrk inpck istrip inlcr igncr icrnl ixon ixany ixoff imaxbel"),
            (_OUTPUT, "opost onlcr ocrnl onocr onlret"),
            (_LOCAL, "isig icanon iexten echo echoe echok echonl echoctl echoke noflsh tostop"),
        )
        for name in names.split()
    },
}
"""Modes that are on or off, by their names in stty(1)."""

KEYS = {
    name: getattr(termios, constant)
    for name, constant in (
        *((name, f"V{name.upper()}") for name in "intr quit erase kill eof eol eol2 start stop susp lnext".split()),
        ("werase", "VWERASE"),
        ("rprnt", "VREPRINT"),
        ("discard", "VDISCARD"),
    )
}
"""Keys with a meaning, by their names in stty(1). 0 is none."""

DEFAULT_MODES: Mapping[str, bool | int] = {"iutf8": True}
"""The modes of a terminal that differ from the kernel's: erasing a letter erases all of its bytes."""


def checked_modes(modes: Mapping[str, bool | int]) -> Mapping[str, bool | int]:
    """Return modes that a terminal can have. Raises `InvalidParamsError` for others."""
    for name, value in modes.items():
        field = f"modes[{name[:100]!r}]"
        if name not in KEYS and name not in MODES:
            raise InvalidParamsError(f"{field}: there is no such mode", field="modes")
        if name in MODES and not isinstance(value, bool):
            raise InvalidParamsError(f"{field}: is on or off, so true or false", field="modes")
        if name in KEYS and (isinstance(value, bool) or not 0 <= value <= 255):
            raise InvalidParamsError(f"{field}: is a key, so a number from 0 to 255", field="modes")
    return modes


def named(attributes: list[Any]) -> dict[str, bool | int]:
    """Return the modes that `tcgetattr` gives by their names in stty(1). The input of a new terminal is UTF-8."""
    switches = {name: bool(attributes[part] & flag) for name, (part, flag) in MODES.items()}
    keys = {name: attributes[6][key][0] for name, key in KEYS.items()}
    return {**switches, **keys, **DEFAULT_MODES}


def open_terminal(
    rows: int, cols: int, xpixel: int = 0, ypixel: int = 0, modes: Mapping[str, bool | int] = DEFAULT_MODES
) -> tuple[int, int, bytes]:
    """Open a new terminal of that size and with these modes, by their names in `MODES` and `KEYS`.

    Return its master, its other end, and the name by which a command opens that end. Neither is inheritable, and the
    master does not block. Raises `OSError` when the machine has no more terminals.
    """
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _UNLOCK, struct.pack("i", 0))
        (number,) = struct.unpack("i", fcntl.ioctl(master, _NUMBER, bytes(4)))
        set_size(master, rows, cols, xpixel, ypixel)
        _set_modes(master, modes)
        slave = fcntl.ioctl(master, _PEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    return master, slave, b"/dev/pts/%d" % number


def _set_modes(terminal: int, modes: Mapping[str, bool | int]) -> None:
    attributes = termios.tcgetattr(terminal)
    for name, value in {**DEFAULT_MODES, **modes}.items():
        if name in KEYS:
            attributes[6][KEYS[name]] = bytes([value])
        else:
            part, flag = MODES[name]
            attributes[part] = attributes[part] | flag if value else attributes[part] & ~flag
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)


def set_size(terminal: int, rows: int, cols: int, xpixel: int = 0, ypixel: int = 0) -> None:
    """Change the size; the job in front gets SIGWINCH from the kernel when it really changed."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, xpixel, ypixel))


def imitate(terminal: int, modes: list[Any] | None, window: bytes | None) -> None:
    """Give a new terminal the modes and the `struct winsize` of another, where there is one. Its input is UTF-8."""
    its: list[Any] = termios.tcgetattr(terminal) if modes is None else list(modes)
    its[_INPUT] |= _IUTF8
    termios.tcsetattr(terminal, termios.TCSANOW, its)
    if window is not None:
        set_window(terminal, window)


def set_window(terminal: int, window: bytes) -> None:
    """Change the size as `set_size` does, by a `struct winsize`."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, window)


def echoes(terminal: int) -> bool:
    """Return whether what is typed is shown. A terminal that is gone shows it as far as anybody knows."""
    try:
        return bool(termios.tcgetattr(terminal)[_LOCAL] & termios.ECHO)
    except termios.error:
        return True


def unread(descriptor: int) -> int:
    """Return how many bytes wait to be read, of a pipe or of the other end of a terminal: there, whole lines."""
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(count)


def name(master: int) -> str:
    """Return the name of the other end."""
    (number,) = struct.unpack("i", fcntl.ioctl(master, _NUMBER, bytes(4)))
    return f"/dev/pts/{number}"


def get_size(terminal: int) -> tuple[int, int]:
    """Return rows and columns."""
    rows, cols, _, _ = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    return rows, cols


def end_of_input(terminal: int, last_key: bytes) -> bytes:
    """Return the keys that are an end-of-file behind `last_key`, which is empty where nothing was typed.

    They are this terminal's own end-of-file character, Ctrl-D unless it was changed; twice in the middle of a line,
    where the first only hands over what was typed.
    """
    control: list[bytes] = termios.tcgetattr(terminal)[6]
    end = control[termios.VEOF]
    # The kernel throws the line away at these.
    fresh = {control[key] for key in (termios.VINTR, termios.VQUIT, termios.VSUSP, termios.VKILL)} - {b"\0"}
    return end if last_key in {b"", b"\r", b"\n", end, *fresh} else 2 * end
