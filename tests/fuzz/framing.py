"""Mutations of what carries messages: frames and their HTTP head, and lines."""

from __future__ import annotations

import struct
from itertools import pairwise
from random import Random

from tests.fuzz.mutations import Steps
from tests.fuzz.scripts import GOOD_HEAD, NO_MASK, Again, Frame, Hear, Raw, Say, Script

Carried = list[Say | Raw | Frame | Hear | Again]


def lines(steps: Steps, rng: Random) -> tuple[Carried, bool]:
    """Return the steps with some of the lines cut or filled up, and whether the last one is whole."""
    carried: Carried = list(steps)
    whole = True
    for index in reversed(range(len(carried))):
        step = carried[index]
        if not isinstance(step, Say) or rng.random() < 0.5:
            continue
        line = to_bytes(step.text) + "\n"
        match rng.randrange(9):
            case 0:
                at = rng.randrange(len(line))
                carried[index : index + 1] = [Raw(line[:at]), Hear(0), Raw(line[at:])]
            case 1 if len(line) < 3000:
                carried[index : index + 1] = [Raw(letter) for letter in line]
            case 2:
                carried[index : index + 1] = [Raw("\n" * rng.choice([1, 3, 70_000])), step]
            case 3:
                carried[index : index + 1] = [Raw(to_bytes("\ufeff")), step]
            case 4:
                carried[index] = Raw(line[:-1] + "\r\n")
            case 5:
                carried[index] = Raw(rng.choice([" ", "\t\r", "\x0b", "\0", "\xff", "\xc0\x80", "\xed\xa0\x80"]) + line)
            case 6 if index == len(carried) - 1:
                carried[index], whole = Raw(line[: rng.randrange(1, len(line))]), False
            case 7 if index == len(carried) - 1:
                carried[index], whole = Raw('"' + "x" * rng.choice([70_000, 3_300_000])), False
            case _:
                at = rng.randrange(len(line))
                carried[index] = Raw(line[:at] + chr(rng.randrange(256)) + line[at + rng.randrange(2) :])
                whole = whole and carried[index] == Raw(line)
    return carried, whole


def frames(steps: Steps, rng: Random) -> tuple[Carried, bool]:
    """Return the steps in frames, some of them such as nobody sends, and whether the last message is whole."""
    carried: Carried = []
    whole = True
    chance = rng.choice([0.1, 0.3, 1.0])
    for step in steps:
        if not isinstance(step, Say):
            carried.append(step)
            continue
        payload = to_bytes(step.text)
        whole_parts = _fragments(payload, rng) if rng.random() < 0.4 else [Frame(payload)]
        parts: list[Frame | Raw] = [*whole_parts]
        if rng.random() < chance:
            index = rng.randrange(len(parts))
            parts[index : index + 1], kept = _spoilt(whole_parts[index], rng)
            whole = whole and kept
        carried += parts
    return carried, whole


def _fragments(payload: str, rng: Random) -> list[Frame]:
    """Return a message in parts, with control frames between some of them."""
    count = rng.choice([2, 3, 10, 255, 256, 257, 400])
    cuts = [0, *sorted(rng.randrange(len(payload) + 1) for _ in range(count - 1)), len(payload)]
    parts = []
    for number, (start, end) in enumerate(pairwise(cuts), 1):
        parts.append(Frame(payload[start:end], opcode=0 if number > 1 else 1, final=number == count))
        if number < count and rng.random() < 2 / count:
            parts.append(_control(rng))
    return parts


def _control(rng: Random) -> Frame:
    return Frame("p" * rng.choice([0, 1, 4, 125]), opcode=rng.choice([9, 9, 10]))


def _spoilt(frame: Frame, rng: Random) -> tuple[list[Frame | Raw], bool]:
    """Return frames in the place of one, and whether what follows can still be understood."""
    payload, opcode, final = frame.payload, frame.opcode, frame.final
    match rng.randrange(20):
        case 0:
            mask = "".join(chr(rng.randrange(256)) for _ in range(4))
            return [Frame(payload, opcode, final, mask=mask)], True
        case 1:
            return [Frame(payload, opcode, final, mask=None)], False
        case 2:
            return [Frame(payload, opcode=rng.choice([3, 4, 5, 6, 7, 11, 12, 15]), final=final)], False
        case 3:
            return [Frame(payload, opcode, final, reserved=rng.randrange(1, 8))], False
        case 4:
            return [Frame(payload, opcode, final, wide=rng.choice([2, 8]))], len(payload) > 125
        case 5:
            length = rng.choice(
                [0, len(payload) + 1, len(payload) * 2 + 7, 2**16, 2**31, 2**32, 2**62, 2**63, 2**64 - 1]
            )
            return [Frame(payload, opcode, final, length=length)], False
        case 6:
            return [Frame("", opcode=0), frame], False
        case 7:
            return [Frame(payload[:5], opcode=1, final=False), frame], False
        case 8:
            return [Frame("p" * 126, opcode=rng.choice([8, 9, 10])), frame], False
        case 9:
            return [Frame("p", opcode=rng.choice([8, 9, 10]), final=False), frame], False
        case 10:
            return [_close(rng), frame], False
        case 11:
            return [Frame(payload, opcode=2, final=final) if opcode == 1 else frame], True
        case 12:
            return [*[Frame("x" * rng.choice([0, 125]), opcode=9)] * rng.choice([2, 70, 700]), frame], True
        case 13:
            at = rng.randrange(len(payload) + 1)
            bad = rng.choice(["\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc3", "\xe2\x82"])
            return [Frame(payload[:at] + bad + payload[at:], opcode, final)], False
        case 14:
            return [Raw("".join(chr(rng.randrange(256)) for _ in range(rng.choice([1, 2, 13, 200])))), frame], False
        case 15:
            return [
                Frame("", opcode=1, final=False),
                *[Frame("", opcode=0, final=False)] * rng.choice([10, 255, 300, 3000]),
            ], False
        case 16:
            return [Frame("", opcode, final)], False
        case 17:
            return [Frame("x" * rng.choice([65_535, 65_536, 65_537, 3_300_000]), opcode, final)], False
        case 18:
            return [Raw("\x81")], False
        case _:
            return [frame, frame], False


def _close(rng: Random) -> Frame:
    code = rng.choice([0, 999, 1000, 1001, 1004, 1005, 1006, 1015, 1016, 2999, 3000, 4999, 5000, 65535])
    reason = rng.choice(["", "bye", "\xff", "\xc3", "r" * 123, "r" * 124])
    return Frame(rng.choice(["", "\3", struct.pack("!H", code).decode("latin-1") + reason]), opcode=8)


def head(rng: Random) -> str:
    """Return a request head that differs from a good one."""
    request, *fields = GOOD_HEAD.split("\r\n")[:-2]
    end, newline = "\r\n\r\n", "\r\n"
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        index = rng.randrange(len(fields)) if fields else 0
        match rng.randrange(12):
            case 0:
                request = rng.choice(_REQUESTS)
            case 1 if fields:
                del fields[index]
            case 2 if fields:
                fields.insert(rng.randrange(len(fields) + 1), fields[index])
            case 3 if fields:
                name = fields[index].partition(":")[0]
                fields[index] = f"{name}: {rng.choice(_VALUES)}"
            case 4 | 5 | 6:
                fields.insert(rng.randrange(len(fields) + 1), rng.choice(_FIELDS))
            case 7:
                fields += [f"X-{number}: y" for number in range(rng.choice([50, 150, 2000]))]
            case 8:
                fields.append("X: " + "y" * rng.choice([5000, 16_200, 16_400, 70_000]))
            case 9 if fields:
                fields[index] = rng.choice(
                    [f" {fields[index]}", fields[index].replace(":", " :"), fields[index].upper(), ""]
                )
            case 10:
                end = rng.choice(
                    ["\r\n", "\n\n", "\r\r", "", "\r\n\r\n\r\n\r\n", "\r\n\r\nGET / HTTP/1.1\r\n\r\n", "\0\r\n\r\n"]
                )
            case _:
                newline = rng.choice(["\n", "\r", "\r\n ", "\r\n"])
    return newline.join([request, *fields]) + end


_REQUESTS = [
    *(
        "GET / HTTP/1.0",
        "GET / HTTP/2",
        "GET / HTTP/1.1 x",
        "GET /",
        "",
        "GET  / HTTP/1.1",
        "get / HTTP/1.1",
        "\0",
        "PRI * HTTP/2.0",
    ),
    *(
        f"{method} / HTTP/1.1"
        for method in ("POST", "HEAD", "OPTIONS", "CONNECT", "TRACE", "DELETE", "x" * 5000, "G\0T", "G\xe9T")
    ),
    *(
        f"GET {target} HTTP/1.1"
        for target in ("*", "/readyz", "/healthz", "/livez", "/metrics", "/x", "//", "/?a=b", "/\xe9", "/%00")
    ),
    *(
        f"GET {target} HTTP/1.1"
        for target in ("http://127.0.0.1/", "http://evil.example/", "a:1", "/" + "x" * 16_500, "/../", "/#f")
    ),
]
_VALUES = [
    *(
        "",
        " ",
        "x",
        "\t",
        "\xe9",
        "\0",
        "a,b,,c",
        ",",
        "upgrade, keep-alive",
        "websocket\x0b",
        "13, 13",
        "8",
        "-13",
        "13" * 500,
    ),
    *(
        "AAAA",
        "A" * 22 + "==",
        "A" * 23 + "=",
        "\xe9" * 24,
        "127.0.0.1",
        "evil.example",
        "[::1]:99999",
        "localhost:0",
        "a b",
        "@",
    ),
]
_FIELDS = [
    *(
        f"Origin: {origin}"
        for origin in ("null", "", "http://127.0.0.1", "http://evil.example", "\xe9", "http://localhost")
    ),
    *(
        f"Host: {host}"
        for host in ("evil.example", "localhost", "127.0.0.1:1", "[::1]", "", "a@b", "\xe9", "127.0.0.1.evil.example")
    ),
    *(
        f"Authorization: {word}"
        for word in ("Bearer x", "Bearer", "Bearer " + "x" * 9000, "bearer a.b.c", "Basic eDp5", "", "\xe9")
    ),
    *(
        "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.",
        "Authorization: Bearer x, Bearer y",
        "Authorization:Bearer\tx",
    ),
    *(
        f"Sec-WebSocket-Protocol: {word}"
        for word in (
            "x",
            "a, b",
            "",
            ",",
            "bearer.x",
            "execsrv, execsrv.token.eA",
            "execsrv.token.",
            "execsrv.token.\xe9, execsrv.token.b",
            "a" * 5000,
            "\xe9",
        )
    ),
    *(
        f"Sec-WebSocket-Extensions: {word}"
        for word in ("permessage-deflate", "x; y=z", "", ";", "permessage-deflate; server_max_window_bits=99")
    ),
    *(
        "Content-Length: 5",
        "Content-Length: -1",
        "Content-Length: 1\r\nContent-Length: 2",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
    ),
    *(
        "Upgrade: h2c",
        "Connection: close",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: x",
        "Cookie: a=b",
        "no colon",
        ": x",
        "\xe9: x",
    ),
    *(
        "X-Forwarded-For: 10.0.0.1",
        "Forwarded: for=evil",
        "X: a\r\n b",
        "X: \x01",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Mode: navigate",
    ),
]


def to_bytes(text: str) -> str:
    """Return the bytes of a text in UTF-8, each of them as a letter. Half a surrogate pair becomes what is no UTF-8."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


__all__ = ["NO_MASK", "Script", "frames", "head", "lines", "to_bytes"]
