"""A script: all that one peer says to a server, byte for byte. It is what is recorded, mutated and replayed.

A file is a line of JSON for the script itself and one for each step. Bytes are text in which each letter is a byte.
Words between two `@` stand for what is another in every run: the folder, the web server, the id of the session.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

FOLDER, WEB, SESSION = "@FOLDER@", "@WEB@", "@SESSION@"
PLACEHOLDERS = (FOLDER, WEB, SESSION)

GOOD_HEAD = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
NO_MASK = "\0\0\0\0"

Door = Literal["unix", "websocket", "stdio"]
DOORS: tuple[Door, ...] = ("unix", "websocket", "stdio")


class Step(Struct, frozen=True, omit_defaults=True, tag=str.lower):
    """The base of all steps."""


class Say(Step, frozen=True):
    """A message: a line, or a text frame; in msgpack, where that was agreed upon before."""

    text: str


class Raw(Step, frozen=True):
    """Bytes as they are."""

    data: str


class Frame(Step, frozen=True):
    """A frame of a websocket. `length` is what it claims, `wide` how many bytes say so; None: as it should be."""

    payload: str
    opcode: int = 1
    final: bool = True
    reserved: int = 0
    mask: str | None = NO_MASK
    length: int | None = None
    wide: int | None = None


class Hear(Step, frozen=True):
    """Wait until so many messages more have come, but not for long."""

    count: int


class Again(Step, frozen=True):
    """Leave the channel, and open another one."""

    reset: bool = False


class Script(Struct, frozen=True, omit_defaults=True):
    """A peer's part. `is_whole`: after it, the server is at the beginning of a message, and can be asked something."""

    door: Door | None = None
    """None: it is said at both where several peers come in."""
    head: str = GOOD_HEAD
    is_whole: bool = True
    last: Literal["half", "reset"] = "half"
    """How it ends: it says no more and listens, or it is gone."""
    steps: tuple[Say | Raw | Frame | Hear | Again, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the content of its file."""
        encode = msgspec.json.Encoder().encode
        steps, itself = self.steps, msgspec.structs.replace(self, steps=())
        return b"".join(encode(part) + b"\n" for part in (itself, *steps))

    @classmethod
    def from_bytes(cls, data: bytes) -> Script:
        """Return the script in a file."""
        head, *steps = data.splitlines()
        decoded = tuple(_step.decode(step) for step in steps)
        return msgspec.structs.replace(msgspec.json.decode(head, type=cls), steps=decoded)


_step = msgspec.json.Decoder(Say | Raw | Frame | Hear | Again)


def load(path: Path) -> dict[str, Script]:
    """Return the scripts of a file, or of a folder and those in it, by name."""
    paths = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    return {found.stem: Script.from_bytes(found.read_bytes()) for found in paths}


CORPUS = Path(__file__).parent / "corpus"
