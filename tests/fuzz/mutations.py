"""Mutations of messages: the structure of the JSON, and its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from execsrv.protocol import METHODS
from tests.fuzz import values
from tests.fuzz.scripts import PLACEHOLDERS, Again, Hear, Say
from tests.fuzz.values import Members, Written

Place = tuple[Members | list[Any], int]
Steps = list[Say | Hear | Again]


def places(value: Any) -> Iterator[Place]:
    """Yield every place in a message that holds a value: the collection, and the index in it."""
    if isinstance(value, list):
        for index, member in enumerate(value):
            yield value, index
            yield from places(member[1] if isinstance(value, Members) else member)


def get(place: Place) -> Any:
    """Return the value in a place."""
    collection, index = place
    return collection[index][1] if isinstance(collection, Members) else collection[index]


def put(place: Place, value: Any) -> None:
    """Put a value into a place."""
    collection, index = place
    collection[index] = (collection[index][0], value) if isinstance(collection, Members) else value


def member(message: Any, name: str) -> Any:
    """Return a member of an object, None where it has none."""
    return next((value for key, value in message if key == name), None) if isinstance(message, Members) else None


def set_member(message: Members, name: str, value: Any) -> None:
    """Set a member of an object, or add it."""
    for index, (key, _) in enumerate(message):
        if key == name:
            message[index] = (name, value)
            return
    message.append((name, value))


# -- one message --


def _somewhere(message: Any, rng: Random) -> Place | None:
    found = list(places(message))
    return rng.choice(found) if found else None


def drop(message: Any, rng: Random) -> None:
    if place := _somewhere(message, rng):
        del place[0][place[1]]


def double(message: Any, rng: Random) -> None:
    if place := _somewhere(message, rng):
        collection, index = place
        again = collection[index]
        if isinstance(collection, Members) and rng.random() < 0.6:
            again = (again[0], values.odd(rng))
        for _ in range(rng.choice([1, 1, 1, 2, 300])):
            collection.insert(rng.randrange(len(collection) + 1), again)


def rename(message: Any, rng: Random) -> None:
    objects = [place for place in places(message) if isinstance(place[0], Members)]
    if objects:
        collection, index = rng.choice(objects)
        name, value = collection[index]
        other = rng.choice(
            [name.upper(), f"{name} ", f"{name}\0", "", "__class__", name[:-1], rng.choice(objects)[0][0][0]]
        )
        collection[index] = (other, value)


def replace(message: Any, rng: Random) -> None:
    if place := _somewhere(message, rng):
        put(place, values.odd(rng))


def at_edge(message: Any, rng: Random) -> None:
    """Set a parameter to a value at a bound of its type."""
    types = values.types_of(str(member(message, "method")))
    objects = [place for place in places(message) if isinstance(place[0], Members)]
    found = [(place, types[place[0][place[1]][0]]) for place in objects if place[0][place[1]][0] in types]
    with_edges = [(place, values.edges(type)) for place, type in found]
    if with_edges := [(place, at) for place, at in with_edges if at]:
        place, at = rng.choice(with_edges)
        put(place, rng.choice(at))


def likely(message: Any, rng: Random) -> None:
    """Set a parameter to another value of its type."""
    types = values.types_of(str(member(message, "method")))
    objects = [place for place in places(message) if isinstance(place[0], Members)]
    if found := [place for place in objects if place[0][place[1]][0] in types]:
        collection, index = rng.choice(found)
        name = collection[index][0]
        put((collection, index), values.of_type(types[name], rng, name))


def exchange(message: Any, rng: Random) -> None:
    if (one := _somewhere(message, rng)) and (other := _somewhere(message, rng)):
        first, second = get(one), get(other)
        if not isinstance(first, list) and not isinstance(second, list):  # no value may come to be in itself
            put(one, second)
            put(other, first)


def wrap(message: Any, rng: Random) -> None:
    if place := _somewhere(message, rng):
        put(place, rng.choice([[get(place)], Members([("a", get(place))]), write_as_text(get(place))]))


def write_as_text(value: Any) -> str:
    return values.write(value)


def other_id(message: Any, rng: Random) -> None:
    if isinstance(message, Members):
        ids = [1, 2, 0, -1, "1", "", None, True, 1.5, 2**63 - 1, 2**63, "x" * 256, "x" * 257, [], Written("1.0"), "\0"]
        set_member(message, "id", rng.choice([*ids, values.odd(rng)]))


def other_method(message: Any, rng: Random) -> None:
    if isinstance(message, Members):
        set_member(message, "method", rng.choice(values.METHOD_NAMES))


def other_call(message: Any, rng: Random) -> None:
    """Make it a call of another method, with parameters out of its struct."""
    if isinstance(message, Members):
        method = rng.choice([name for name in METHODS if name != "initialize"])
        set_member(message, "method", method)
        set_member(message, "params", values.invent(method, rng))


def more(message: Any, rng: Random) -> None:
    """Add a member that another kind of message has."""
    if isinstance(message, Members):
        error = Members([("code", 1), ("message", "m"), ("data", values.odd(rng))])
        found = [
            ("result", values.odd(rng)),
            ("error", error),
            ("jsonrpc", "2.0"),
            ("jsonrpc", values.odd(rng)),
            ("x", values.deep(rng)),
        ]
        message.insert(rng.randrange(len(message) + 1), rng.choice(found))


OF_ONE: list[Callable[[Any, Random], None]] = [
    *(drop, double, rename, replace, replace, at_edge, at_edge, likely, likely, likely, exchange, wrap),
    *(other_id, other_method, other_call, other_call, other_call, more),
]


def mutated(text: str, rng: Random) -> str:
    """Return a message that was changed in its structure, now and then more than once.

    One that is too deep already is returned as it is.
    """
    try:
        holder: list[Any] = [values.parse(text)]
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            rng.choice(OF_ONE)(holder[0], rng)
        if rng.random() < 0.01:
            replace(holder, rng)
        return values.write(holder[0])
    except (ValueError, RecursionError):
        return text


# -- its text --


def _letter(text: str, rng: Random) -> str:
    at = _outside(text, rng)
    return (
        text[:at]
        + rng.choice(['"', "\\", "{", "}", "[", "]", ",", ":", "0", "\0", "\x1f", "\u00e9", "\n", " "])
        + text[at + 1 :]
    )


def _outside(text: str, rng: Random) -> int:
    """Return a place in a text that is in no placeholder: what stands for the folder must go on doing so."""
    for _ in range(20):
        at = rng.randrange(len(text) + 1)
        if not any(
            start < at + 1 and at < start + len(word) for word in PLACEHOLDERS if (start := text.find(word)) >= 0
        ):
            return at
    return 0


def _cut(text: str, rng: Random) -> str:
    return text[: rng.randrange(len(text) + 1)]


def _spaced(text: str, rng: Random) -> str:
    space = rng.choice([" ", "\t", "\r", "\n", " " * 70_000, "\x0b", "\u00a0", "\ufeff", "\u2028"])
    return rng.choice(
        [space + text, text + space, text.replace(":", f":{space[:9]}"), text.replace(",", f"{space[:9]},")]
    )


def _escaped(text: str, rng: Random) -> str:
    at = _outside(text, rng)
    return text[:at] + "".join(f"\\u{ord(letter):04x}" for letter in text[at : at + 1]) + text[at + 1 :]


def _with_points(text: str, rng: Random) -> str:
    ends = [at for at in range(1, len(text)) if text[at - 1].isdigit() and text[at] in ",}]"]
    if not ends:
        return text
    at = rng.choice(ends)
    return text[:at] + rng.choice([".0", ".000", "e0", ".5", "E1", "." + "0" * 5000]) + text[at:]


def _joined(text: str, rng: Random) -> str:
    return text + rng.choice(["", " ", ","]) + text


OF_TEXT = [_letter, _letter, _cut, _spaced, _escaped, _escaped, _with_points, _with_points, _joined]


# -- all that a peer says --


def conversation(steps: Steps, corpus: list[Steps], rng: Random) -> Steps:
    """Return a recorded conversation with some of it changed."""
    steps = list(steps)
    greeting = [index for index, step in enumerate(steps) if isinstance(step, Say)][:2]
    for _ in range(rng.choice([1, 1, 2, 3, 5])):
        said = [index for index, step in enumerate(steps) if isinstance(step, Say)]
        if said[2:] and rng.random() < 0.9:
            said = [index for index in said if index not in greeting]  # or most would be refused all the same
        if not said:
            break
        index = rng.choice(said)
        step = steps[index]
        assert isinstance(step, Say)
        kind = rng.randrange(20)
        if kind < 13:
            steps[index] = Say(mutated(step.text, rng))
        elif kind < 15:
            steps[index] = Say(rng.choice(OF_TEXT)(step.text, rng))
        elif kind == 15:
            steps[index:index] = [step] * rng.choice([1, 1, 2, 40])
        elif kind == 16:
            del steps[index]
        elif kind == 17:
            steps.insert(rng.randrange(index, len(steps) + 1), steps.pop(index))
        elif kind == 18:
            other = rng.choice(corpus)
            start = rng.randrange(len(other))
            steps[index + 1 : index + 1] = other[start : start + rng.randrange(1, 8)]
        else:
            invented = [name for name in METHODS if name != "initialize"]
            for number in range(rng.randrange(1, 10)):
                method = rng.choice(invented)
                call = [("id", 100 + number), ("method", method), ("params", values.invent(method, rng))]
                steps.insert(index + 1, Say(values.write(Members(call))))
    if rng.random() < 0.3:
        steps = [step for step in steps if not isinstance(step, Hear)]  # all at once
    if rng.random() < 0.05:
        steps.insert(rng.randrange(len(steps) + 1), Again(reset=rng.random() < 0.5))
    return steps[:200]
