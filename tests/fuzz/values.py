"""Values that a server may not expect: odd ones of every type, and those at the edges of what a struct allows.

Nothing here does harm when a server takes it at its word: every program is in the list below, and every path is in the
folder of the run, or of a file that an ordinary user may not write.
"""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any, NamedTuple

from msgspec import inspect

from execsrv.protocol import METHODS
from tests.fuzz.scripts import FOLDER, SESSION, WEB


class Written(NamedTuple):
    """A value as it is to stand in the JSON, whatever that is."""

    text: str


class Members(list[tuple[str, Any]]):
    """The members of an object, in their order, of which two may have one name."""


def parse(text: str) -> Any:
    """Return the values of JSON. Raises `ValueError`."""
    return json.loads(text, object_pairs_hook=Members)


def write(value: Any) -> str:
    """Return the JSON of a value."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, Members):
        return "{" + ",".join(f"{json.dumps(name)}:{write(member)}" for name, member in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return json.dumps(value)


COMMANDS: list[list[str]] = [
    ["true"],
    ["cat"],
    ["sleep", "3"],
    ["sh", "-c", "echo one; sleep 0.1; echo two >&2; exit 3"],
    ["sh", "-c", "trap '' TERM HUP INT; echo ready; sleep 3"],
    ["sh", "-c", "setsid sleep 3 >/dev/null 2>&1 & echo left"],
    ["sh", "-c", "exec >&- 2>&- <&-; sleep 1"],
    ["sh", "-c", "kill -9 $$"],
    ["sh", "-c", "cat; stty size; stty -echo; cat"],
    ["head", "-c", "300000", "/dev/zero"],
    ["head", "-c", "70000", "/dev/urandom"],
    ["/no/such/program"],
    [FOLDER],
    ["", ""],
    [],
]
IDS = ["a", "p1", "c", "d", "w", "r", "session-1", "session-2", "1", "", "é\u2028", "x" * 256, "x" * 257, "\0"]
PATHS = [
    FOLDER,
    *(
        f"{FOLDER}/{name}"
        for name in ("f", "d", "d/g", "link", "loop", "dangling", "fifo", "new", "t/a.txt", "é\u2028 %41")
    ),
    *(f"file://{FOLDER}/{name}" for name in ("f", "d", "new%20name", "%00", "%ff", "%zz", "a%2Fb", "?q#f", "")),
    *(f"{FOLDER}/{name}" for name in ("", "..", "../..", "./d/../f", "f/", "f/x", "//", "n" * 255, "n" * 256)),
    *(f"{FOLDER}/" + "d/" * 2100, f"{FOLDER}/\0", f"{FOLDER}/\ud800", "/" + "x" * 5000),
    *(
        "/",
        "/proc/self/mem",
        "/proc/self/fd/0",
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/proc/1/environ",
        "/etc/passwd",
    ),
    *("", ".", "d", "~", "file://", "file:///", "file:d", "file://host/x", "http://h/x", "FILE:///x", "\\\\h\\x"),
]
STRINGS = [
    *("", " ", "\0", "a\0b", "\n", "\r\n", "\x1b[31m", "\x7f", "\ufeff", "\u2028", "\ufffd", "\uffff"),
    *("é" * 300, "\U0001f600" * 100, "e" + "\u0301" * 500, "\u202eabc", "\ud800", "\udc00\ud800", "\ud83d\ude00"),
    *("null", "true", "-1", "NaN", "%s%n{}{0}", "${PATH}", "../..", "*" * 200, "[" * 50, "a" * 70_000, "x" * 4097),
    *("force", "leader", "all", "pipe", "null", "direct", "drop", "read", "owner", "TERM", "SIGKILL", "interrupt"),
]
NUMBERS = [
    *(0, -1, 1, 2, 7, 80, 255, 256, 257, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**53 + 1),
    *(2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**30, 0.5, -0.5, 1e300),
]
WRITTEN = [
    *(
        "-0",
        "-0.0",
        "1.0",
        "3.00",
        "1e2",
        "1E+2",
        "1e-2",
        "1e400",
        "-1e400",
        "9" * 400,
        "0." + "9" * 400,
        "1" + "0" * 5000,
    ),
    *(
        '"\\u0000"',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\/"',
        '"\\u00e9"',
        '"a\\',
        "NaN",
        "Infinity",
    ),
    *(
        "01",
        "+1",
        "1.",
        ".5",
        "0x10",
        "'a'",
        "tru",
        "True",
        "nul",
        "",
        " ",
        "{}}",
        "[]]",
        "{,}",
        '{"a"}',
        '{"a":}',
        "[1,]",
    ),
]
DEPTHS = [2, 30, 250, 990, 1100, 20_000, 200_000]
HUGE = [65_000, 66_000, 65_000, 66_000, 300_000, 1_100_000, 2_200_000, 3_300_000]
METHOD_NAMES = [
    *METHODS,
    "initialized",
    "$/cancelRequest",
    "exit",
    "process/output",
    "nope",
    "",
    "fs/",
    "é\0",
    "x" * 9000,
]
HTTP_METHODS = ["GET", "POST", "HEAD", "PUT", "get", "CONNECT", "TRACE", "", "G T", "G\r\nX: y", "é", "x" * 5000]
HTTP_URLS = [
    *(
        f"{WEB}/{name}"
        for name in ("page", "moved", "large", "never", "half", "é", "a b", "?q=1#f", "", "%zz", "\r\nX: y")
    ),
    *(WEB, "http://", "http:///x", "http://127.0.0.1:1/", "http://127.0.0.1:99999/", "http://[::1]:1/", "http://[::1/"),
    *(
        "https://127.0.0.1:1/",
        "ftp://127.0.0.1/",
        "http://u:p@127.0.0.1:1/",
        "/page",
        "",
        "HTTP://127.0.0.1:1",
        "file:///x",
    ),
]


def odd(rng: Random) -> Any:
    """Return a value of any type, most of them small."""
    kind = rng.randrange(20)
    if kind < 6:
        return rng.choice(STRINGS)
    if kind < 11:
        return rng.choice(NUMBERS)
    if kind < 13:
        return rng.choice([None, True, False])
    if kind < 15:
        return Written(rng.choice(WRITTEN))
    if kind == 15:
        return rng.choice([[], [[]], [None], ["a", 1], [Members()], ["x"] * 1000])
    if kind == 16:
        return rng.choice(
            [Members(), Members({"a": 1}.items()), Members({"": None}.items()), Members({"type": "managed"}.items())]
        )
    if kind == 17:
        return deep(rng)
    if kind == 18:
        return huge(rng)
    return rng.choice(PATHS)


def deep(rng: Random) -> Written:
    """Return arrays or objects in each other."""
    depth = rng.choice(DEPTHS)
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}"), ('[{"":', "}]"), ('{"params":', "}")])
    return Written(opening * depth + "0" + closing * depth)


def huge(rng: Random) -> Any:
    """Return a string, a number, an array or an object of many bytes: less and more than a message may have."""
    size = rng.choice(HUGE)
    kind = rng.randrange(6)
    if kind == 0:
        return "x" * size
    if kind == 1:
        return "\u00e9" * (size // 6)
    if kind == 2:
        return Written("[" + "1," * (size // 2) + "1]")
    if kind == 3:
        return Written("{" + ",".join(f'"{number}":[]' for number in range(size // 12)) + "}")
    if kind == 4:
        return base64.b64encode(bytes(size * 3 // 4)).decode()
    return Written("[" + ",".join(['"a"'] * (size // 4)) + "]")


_METHOD_PARAMS = {name: inspect.type_info(method.params) for name, method in METHODS.items()}


def invent(method: str, rng: Random) -> Any:
    """Return parameters for a method out of the types of its struct, most of them such that it takes them."""
    return of_type(_METHOD_PARAMS[method], rng)


def of_type(type: inspect.Type, rng: Random, name: str = "") -> Any:
    """Return a value of a type: in the middle, at an edge, and now and then just beyond."""
    match type:
        case inspect.StructType():
            members = Members()
            for field in type.fields:
                if field.required or rng.random() < 0.3:
                    members.append((field.encode_name, of_type(field.type, rng, field.encode_name)))
            return members
        case inspect.UnionType():
            chosen = [each for each in type.types if not isinstance(each, inspect.NoneType)]
            return None if rng.random() < 0.15 else of_type(rng.choice(chosen), rng, name)
        case inspect.LiteralType():
            return rng.choice(type.values)
        case inspect.BoolType():
            return rng.random() < 0.5
        case inspect.IntType():
            return _integer(type, rng)
        case inspect.FloatType():
            return rng.choice(NUMBERS)
        case inspect.StrType():
            return _string(type, rng, name)
        case inspect.BytesType():
            return _base64(type, rng)
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
            if name == "argv":
                return list(rng.choice(COMMANDS))
            count = rng.choice([0, 1, 1, 2, 3, 16, 17, type.max_length or 5, (type.max_length or 20) + 1])
            return [of_type(type.item_type, rng, name) for _ in range(min(count, 300))]
        case inspect.DictType():
            return Members(
                (_string(inspect.StrType(), rng, name), of_type(type.value_type, rng)) for _ in range(rng.randrange(3))
            )
        case _:
            return odd(rng)


def edges(type: inspect.Type) -> list[Any]:
    """Return the values at the bounds of a type, and those just beyond."""
    match type:
        case inspect.UnionType():
            return [None, *(value for each in type.types for value in edges(each))]
        case inspect.IntType():
            bounds = [bound for bound in (type.ge, type.le, type.gt, type.lt) if bound is not None]
            return [value for bound in bounds for value in (bound - 1, bound, bound + 1)]
        case inspect.StrType() if type.max_length is not None:
            return [letter * length for letter in "xé" for length in range(type.max_length - 1, type.max_length + 2)]
        case inspect.BytesType() if type.max_length is not None:
            return [
                base64.b64encode(bytes(length)).decode() for length in range(type.max_length - 1, type.max_length + 2)
            ]
        case inspect.ListType() if type.max_length is not None:
            return [["eA=="] * length for length in range(type.max_length - 1, type.max_length + 2)]
        case inspect.LiteralType():
            return [*type.values, f"{type.values[0]}x"]
        case _:
            return []


def types_of(method: str) -> dict[str, inspect.Type]:
    """Return the types of a method's parameters by the names of their members, inner ones among them."""
    found: dict[str, inspect.Type] = {}

    def look(type: inspect.Type) -> None:
        match type:
            case inspect.StructType():
                for field in type.fields:
                    found.setdefault(field.encode_name, field.type)
                    look(field.type)
            case inspect.UnionType():
                for each in type.types:
                    look(each)
            case inspect.ListType():
                look(type.item_type)

    if method in _METHOD_PARAMS:
        look(_METHOD_PARAMS[method])
    return found


def _integer(type: inspect.IntType, rng: Random) -> int:
    if rng.random() < 0.3 and (at_edges := edges(type)):
        return int(rng.choice(at_edges))
    return rng.choice([0, 1, 2, 3, 10, 50, 100, 1000, 4096, 65536])


def _string(type: inspect.StrType, rng: Random, name: str) -> str:
    if rng.random() < 0.05:
        return str(rng.choice(edges(type) or STRINGS))
    lowered = name.lower()
    if lowered.endswith("id"):
        return SESSION if "session" in lowered and rng.random() < 0.5 else rng.choice(IDS)
    if any(word in lowered for word in ("path", "cwd", "missing", "present", "source", "destination", "root")):
        return FOLDER if lowered == "cwd" and rng.random() < 0.6 else rng.choice(PATHS)
    if lowered == "url":
        return rng.choice(HTTP_URLS)
    if lowered == "method":
        return rng.choice(HTTP_METHODS)
    if lowered == "signal":
        return rng.choice(["TERM", "SIGINT", "interrupt", "KILL", "WINCH", "STOP", "CONT", "0", "RTMIN", "nope"])
    if lowered in ("env", "set"):
        return rng.choice(["PATH", "A", "", "A=B", "LD_PRELOAD", "é"])
    return rng.choice(STRINGS[:20])


def _base64(type: inspect.BytesType, rng: Random) -> str:
    if rng.random() < 0.1:
        return rng.choice(["!", "eA", "eA=", "e A==", "====", "é", "eA==\n", "_-_-"])
    size = rng.choice([0, 1, 2, 3, 10, 4096, 4097, 65536])
    return base64.b64encode(rng.randbytes(min(size, 100)) + bytes(max(0, size - 100))).decode()
