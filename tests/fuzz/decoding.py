"""What comes off a wire, decoded in this process: `python -m tests.fuzz.decoding --minutes 1`.

No server runs, so there are thousands of examples in a second. With atheris they are led by the branches that they
reach; without it they are the mutations of a seed. Only the errors that a peer is told may be raised.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
from math import inf
from pathlib import Path
from random import Random

if __name__ == "__main__" and importlib.util.find_spec("atheris"):
    import atheris

    with atheris.instrument_imports(include=["execsrv", "h11"]):
        for module in ("_wire.codecs", "_wire.packed", "_wire.websocket_frames", "_wire.http_head", "protocol"):
            importlib.import_module(f"execsrv.{module}")

from execsrv._wire.bounds import MessageBound
from execsrv._wire.codecs import Codec, decode_params
from execsrv._wire.framing import FrameBuffer, LineBuffer
from execsrv._wire.http_head import Names, PageRequest, Upgrade, answer_to
from execsrv._wire.packed import PackedCodec
from execsrv._wire.websocket_frames import FrameReader
from execsrv.errors import ProtocolError, RequestError
from execsrv.protocol import METHODS, Notification, Request
from tests.fuzz import framing, mutations, packing
from tests.fuzz.scripts import CORPUS, Raw, Say, load

MAX_BYTES = 1_000_000
MAX_HEAD_BYTES = 16 * 1024
_FRAMES_A_TURN = 64


def decode(data: bytes) -> None:
    """Decode bytes as a peer's. The first of them says as what."""
    kind, rest = data[:1], data[1:]
    match kind:
        case b"l":
            _pieces(rest, LineBuffer(MessageBound(MAX_BYTES)), Codec())
        case b"h":
            answer = answer_to(rest, MAX_HEAD_BYTES, Names(["name"], ["http://origin"], pages=[b"/"]))
            assert isinstance(answer, Upgrade | PageRequest) or answer.startswith(b"HTTP/1.1 ")
        case b"f":
            _frames(rest)
        case b"m":
            _message(rest, PackedCodec())
        case b"p":
            _pieces(rest, FrameBuffer(MessageBound(MAX_BYTES)), PackedCodec())
        case _:
            _message(data, Codec())


def _message(data: bytes, codec: Codec | PackedCodec) -> None:
    try:
        message = codec.decode(data)
        if isinstance(message, Request | Notification) and message.method in METHODS:
            decode_params(message.params, METHODS[message.method].params)
    except (ProtocolError, RequestError):
        pass


def _pieces(data: bytes, buffer: LineBuffer | FrameBuffer, codec: Codec | PackedCodec) -> None:
    """Feed the bytes in pieces of a size that the first one says."""
    size = max(data[0] + 1 if data else 1, len(data) // 1000)
    try:
        for at in range(0, len(data), size):
            buffer.feed(data[at : at + size])
            while (piece := buffer.next_message()) is not None:
                _message(bytes(piece), codec)
        while (piece := buffer.next_message(at_end=True)) is not None:
            _message(bytes(piece), codec)
    except ProtocolError:
        pass


def _frames(data: bytes) -> None:
    for known in (True, False):
        for is_server in (True, False):
            reader, at = FrameReader(MessageBound(MAX_BYTES, is_known=known), is_server=is_server), 0
            while at < len(data) and not reader.excess:
                after = reader.walk(data, at, _FRAMES_A_TURN, bytearray())
                assert after > at
                at = after


def example(texts: list[str], seed: int, number: int) -> bytes:
    """Return an example of a seed, made of recorded messages."""
    rng = Random(f"{seed}:{number}")
    text = rng.choice(texts)
    match rng.randrange(11):
        case 0:
            return b"h" + framing.head(rng).encode("latin-1")
        case 1:
            return b"f" + rng.randbytes(rng.randrange(200))
        case 2:
            carried, _ = framing.lines([Say(text), Say(rng.choice(texts))], rng)
            said = [step.data for step in carried if isinstance(step, Raw)]
            return b"l" + "".join(said).encode("latin-1")
        case 3 | 4:
            return b"m" + packing.spoilt(packing.packed(text), rng)
        case 5:
            data = packing.packed(mutations.mutated(text, rng))
            return b"p" + rng.randbytes(1) + packing.spoilt(packing.length_of(data) + data + b"\0\0\0\0", rng)
        case 6:
            return rng.choice(mutations.OF_TEXT)(text, rng).encode("utf-8", "surrogatepass")
        case _:
            return mutations.mutated(text, rng).encode("utf-8", "surrogatepass")


def recorded() -> list[str]:
    """Return every message of the corpus."""
    return [step.text for script in load(CORPUS).values() for step in script.steps if isinstance(step, Say)]


def by_seed(seed: int, count: float, seconds: float) -> int:
    """Decode examples of a seed, and return how many. Raises whatever a peer is not told."""
    texts, number, end = recorded(), 0, time.monotonic() + seconds
    while number < count and time.monotonic() < end:
        decode(example(texts, seed, number))
        number += 1
    return number


def by_branches(seconds: float) -> None:
    """Have atheris decode, from the examples of a seed on. It ends the process: with a fault, by a file of it."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        texts = recorded()
        for number in range(300):
            if len(data := example(texts, 0, number)) < 5000:
                Path(folder, f"{number}").write_bytes(data)
        atheris.Setup(
            [sys.argv[0], f"-max_total_time={seconds:.0f}", "-max_len=5000", "-rss_limit_mb=4096", folder], decode
        )
        atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    if importlib.util.find_spec("atheris"):
        by_branches(60 * options.minutes)
    else:
        print(f"{by_seed(options.seed, inf, 60 * options.minutes)} examples of seed {options.seed}, without atheris")
