"""The keys by which a user speaks with execsrv itself, not with the command: `~.` at the start of a line, as in ssh.

Pure. Some other key, such as Ctrl-], may be the escape instead of the tilde, and then it needs no start of a line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from execsrv.errors import ExecsrvError

DEFAULT_KEY = "~"
_LINE_ENDS = frozenset(b"\r\n")
_CONTROL = re.compile(r"(?:\^|ctrl-|c-)([a-z@\[\\\]^_?])", re.I)


def parse_key(option: str, text: str) -> int | None:
    """Return the character of a key: `~`, `^]` or `ctrl-]`. None for `none`. Raises `ExecsrvError`."""
    if text == "none":
        return None
    if (control := _CONTROL.fullmatch(text)) is not None:
        return 127 if control[1] == "?" else ord(control[1].upper()) & 31
    if len(text) == 1 and text.isascii() and text.isprintable():
        return ord(text)
    raise ExecsrvError(f"invalid {option} `{text}`; expected a character such as `~`, a key such as `^]`, or `none`")


def shown_key(key: int) -> str:
    """Return the name of a key for people."""
    if key == 127:
        return "^?"
    return f"^{chr(key + 64)}" if key < 32 else chr(key)


class EscapeKeys:
    """Finds the escapes among what is typed. The escape twice is the key itself, once."""

    def __init__(self, key: int | None, actions: Mapping[int, str], direct: Mapping[int, str] | None = None) -> None:
        """`actions` are by the key that follows the escape, and those in `direct` by a key that means them anywhere."""
        self._key = key
        self._actions = actions
        self._direct = direct or {}
        self._at_start = True
        self._held = False

    def take(self, keys: bytes) -> list[bytes | str]:
        """Return in order what is for the command, and the actions between."""
        taken: list[bytes | str] = []
        passed = bytearray()

        def act(action: str) -> None:
            if passed:
                taken.append(bytes(passed))
                passed.clear()
            taken.append(action)

        for key in keys:
            if self._held:
                self._held = False
                if (action := self._actions.get(key)) is not None:
                    act(action)
                    self._at_start = True
                    continue
                if key != self._key:
                    passed.append(self._key or 0)
            elif key in self._direct:
                act(self._direct[key])
                continue
            elif key == self._key and (self._at_start or key < 32):
                self._held = True
                continue
            passed.append(key)
            self._at_start = key in _LINE_ENDS
        if passed:
            taken.append(bytes(passed))
        return taken
