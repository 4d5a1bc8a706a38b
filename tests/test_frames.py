"""Frames of a websocket, read beside the library and by the library alone."""

from __future__ import annotations

import itertools
import struct

from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from execsrv._wire.bounds import MessageBound
from execsrv._wire.websocket_frames import FrameReader

MOST_BYTES = 70_000
SIZES = st.one_of(st.integers(0, 10), st.sampled_from([125, 126, 127, 300, 65535, 65536, MOST_BYTES]))


def frame(first: int, size: int, key: bytes | None, *, is_long: bool) -> bytes:
    """Return a frame of letters. `is_long`: its size is written in more bytes than it takes."""
    payload = (b"abcdefg" * (size // 7 + 1))[:size]
    mask = 0 if key is None else 0x80
    if size > 65535 or (is_long and size > 125):
        head = struct.pack("!BBQ", first, mask | 127, size)
    elif size > 125 or is_long:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = bytes([first, mask | size])
    if key is None:
        return head + payload
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


FIRSTS = st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0xC2, 0x83, 0x09])
KEYS = st.sampled_from([bytes(4), b"\1\2\3\4", b"\xff\0\x80A"])
Frames = list[tuple[int, int, bytes, bool, bool]]
FRAMES = st.lists(
    st.tuples(FIRSTS, SIZES, KEYS, st.integers(0, 19).map(lambda n: n == 0), st.integers(0, 19).map(lambda n: n == 0)),
    max_size=8,
)


def seen(protocol: FrameProtocol, data: bytes) -> list[object]:
    """Return what the library makes of more bytes: messages, control frames, and an error."""
    protocol.receive_bytes(data)
    made: list[object] = []
    try:
        for read in protocol.received_frames():
            if read.opcode.iscontrol():
                made.append((read.opcode, read.payload))
            elif read.frame_finished and read.message_finished:
                made.append("message")
    except ParseFailed as error:
        made.append("out of order" if "expected CONTINUATION" in str(error) else str(error))
    return made


def is_end(made: object) -> bool:
    """Tell whether the library reads nothing behind that: an error, or a close frame."""
    return isinstance(made, str) or (isinstance(made, tuple) and made[0] == 8)


@given(FRAMES, st.booleans(), st.lists(st.integers(0, 3 * MOST_BYTES), max_size=6), st.booleans())
@example([(0x82, 300, b"\1\2\3\4", False, False)], True, [6, 7, 8, 9, 11, 50, 51], True)
@example([(0x00, 1, bytes(4), False, False), (0x81, 0, bytes(4), False, False)], False, [], True)
@example([(0x88, 0, bytes(4), False, False), (0x81, 0, bytes(4), False, False)], False, [], True)
def test_the_library_makes_the_same_of_what_it_is_given(
    frames: Frames, is_server: bool, cuts: list[int], is_known: bool
) -> None:
    data = b"".join(
        frame(first, size, None if is_wrong == is_server else key, is_long=is_long)
        for first, size, key, is_wrong, is_long in frames
    )
    alone = FrameProtocol(client=not is_server, extensions=[])
    kinds = seen(alone, data)

    beside = FrameProtocol(client=not is_server, extensions=[])
    bound = MessageBound(20 * MOST_BYTES)
    bound.is_known = is_known
    reader = FrameReader(bound, is_server=is_server)
    made: list[object] = []
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(bounds):
        at, piece = 0, data[start:end]
        while at < len(piece) and not any(map(is_end, made)):
            library = bytearray()
            at = reader.walk(piece, at, 1, library)
            made += [bytes(reader.messages.popleft()) for _ in list(reader.messages)] + seen(beside, bytes(library))
    assert ["message" if isinstance(each, bytes) else each for each in made] == kinds
    letters = [each for each in made if isinstance(each, bytes)]
    assert b"".join(letters) == letters_of(frames, len(letters))


def letters_of(frames: Frames, count: int) -> bytes:
    """Return the letters of the first messages."""
    said, current = b"", b""
    for first, size, *_ in frames:
        if not count:
            break
        if first & 0xF > 2:
            continue
        current += (b"abcdefg" * (size // 7 + 1))[:size]
        if first & 0x80:
            said, current, count = said + current, b"", count - 1
    return said
