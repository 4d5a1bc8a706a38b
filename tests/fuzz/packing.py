"""The same conversations in msgpack: the greeting asks for it, and bytes are spoilt that nobody can see in a text."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgspec

from tests.fuzz.scripts import PLACEHOLDERS, Again, Frame, Hear, Raw, Say
from tests.peers import with_bytes

ASKED = '"encoding":"msgpack"'

_HEADS = [0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, *range(0xC0, 0xE0)]
"""First bytes of values, of every kind."""


def packed(text: str) -> bytes:
    """Return the msgpack of a message in JSON, or the text itself, where it is none or says what msgpack cannot."""
    try:
        message = json.loads(text)
        if isinstance(message, dict) and "params" in message:
            message["params"] = with_bytes(message["params"])
        return msgspec.msgpack.encode(message)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return text.encode("utf-8", "surrogatepass")


def length_of(data: bytes) -> bytes:
    """Return what stands in front of a message on a stream."""
    return len(data).to_bytes(4, "little")


def greeting(text: str) -> str:
    """Return a message that asks for msgpack, where it is a greeting; any other as it is."""
    try:
        message = json.loads(text)
        if message["method"] != "initialize":
            return text
        message["params"]["encoding"] = "msgpack"
    except (ValueError, TypeError, KeyError, RecursionError):
        return text
    return json.dumps(message, separators=(",", ":"))


def spoilt(data: bytes, rng: Random) -> bytes:
    """Return msgpack that differs from a good one in some bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(7):
            case 0:
                changed[at : at + 1] = bytes([rng.choice(_HEADS)])
            case 1:
                changed[at : at + 1] = rng.randbytes(1)
            case 2:
                changed[at:at] = rng.randbytes(rng.choice([1, 2, 8]))
            case 3:
                del changed[at : at + rng.choice([1, 2, 20])]
            case 4:
                changed[at:at] = bytes([rng.choice(_HEADS)]) + rng.choice([b"\0", b"\xff"]) * rng.choice([1, 2, 4, 8])
            case 5:
                changed[at:at] = rng.choice([b"\x91", b"\x81", b"\x81\xa1a"]) * rng.choice([3, 2000])
            case _:
                start = rng.randrange(len(changed) + 1)
                changed[at:at] = changed[start : start + rng.choice([1, 10, 200])]
    return bytes(changed)


def conversation(
    steps: list[Say | Hear | Again], rng: Random, *, framed: bool
) -> tuple[list[Say | Raw | Frame | Hear | Again], bool]:
    """Return a conversation in msgpack, some messages spoilt, and whether its last one is whole."""
    said: list[Say | Raw | Frame | Hear | Again] = [
        Say(greeting(step.text)) if isinstance(step, Say) else step for step in steps
    ]
    whole, chance = True, rng.choice([0, 0.1, 0.3])
    for index in reversed(range(len(said))):
        step = said[index]
        if not isinstance(step, Say) or ASKED in step.text or rng.random() >= chance:
            continue
        if any(name in step.text for name in PLACEHOLDERS):
            continue  # which has another length when it is said
        data = spoilt(packed(step.text), rng)
        length = length_of(data)
        if not framed and rng.random() < 0.2:
            length, whole = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", rng.randbytes(4), length[:2]]), False
        payload = data.decode("latin-1")
        said[index] = Frame(payload, opcode=2) if framed else Raw(length.decode("latin-1") + payload)
    return said, whole


def plain(data: bytes) -> Any:
    """Return the JSON values of a message in msgpack. Raises `ValueError`."""
    return msgspec.to_builtins(msgspec.msgpack.decode(data))
