"""Large messages are written in pieces: as the encoder would write them, and with turns for others in between."""

from __future__ import annotations

import os
import socket

import msgspec
import pytest
import trio

from execsrv._wire.codecs import Codec
from execsrv._wire.lines import LineChannel
from execsrv._wire.pieces import is_large
from execsrv.limits import DEFAULTS, KIB, MIB
from execsrv.protocol import (
    Chunk,
    DirectoryEntry,
    DirectoryListing,
    ErrorObject,
    Failure,
    FileData,
    FileWrite,
    HttpField,
    HttpResponse,
    Message,
    Notification,
    ProcessOutput,
    ProcessOutputRead,
    Request,
    Response,
    Walked,
    WalkEntry,
)

PAYLOAD = os.urandom(300) * 1000
NUL = 'a "name" with \0 and \\u0000 in it'

LARGE: list[Message] = [
    Response(1, FileData(os.urandom(3 * MIB))),
    Response("id \0", FileData(os.urandom(MIB + 1))),
    Response(1, HttpResponse(200, [HttpField(NUL, NUL)], os.urandom(MIB + 2))),
    Response(1, ProcessOutputRead([Chunk(n, "stdout", PAYLOAD[:64000], n) for n in range(100)], 7, False, None, False)),
    Response(1, ProcessOutputRead([Chunk(n, "pty", b"x") for n in range(50_001)], 7, False, None, False)),
    Response(1, ProcessOutputRead([Chunk(1, "pty", b"x"), Chunk(2, "pty", PAYLOAD)], 7, False, None, False)),
    Response(1, DirectoryListing([DirectoryEntry(f"{NUL}{n}", False, n % 2 == 0, False) for n in range(50_000)])),
    Response(1, Walked([WalkEntry(f"file:///{n}", "file") for n in range(10_000)], [], True)),
    Response(1, {"\0": [PAYLOAD, {"x": PAYLOAD}], "y": NUL * 100_000, "z": {}}),
    Request(2, "fs/writeFile", FileWrite(path="/\0", data_base64=PAYLOAD)),
    Failure(None, ErrorObject(1, NUL, {"x": PAYLOAD})),
]


def decoded(json: bytes | bytearray) -> object:
    return msgspec.json.decode(json)


@pytest.mark.parametrize("mirrors", [False, True])
@pytest.mark.parametrize("number", range(len(LARGE)))
def test_the_pieces_are_the_whole(number: int, mirrors: bool) -> None:
    message = LARGE[number]
    codec = Codec()
    if mirrors:
        codec.decode(b'{"jsonrpc":"2.0","method":"m"}')
    whole, pieces = bytearray(), bytearray(b"what was here before")
    codec.encode_into(message, whole)
    assert is_large(message)
    steps = sum(1 for _ in codec.encode_large_into(message, pieces, 4))
    assert pieces[:4] == b"what"
    assert pieces[4:] == whole
    assert steps > 1


def test_a_chunk_of_output_is_written_at_once() -> None:
    assert not is_large(Notification("process/output", ProcessOutput("p", 1, "stdout", bytes(64 * KIB))))
    assert not is_large(Response(1, ProcessOutputRead([Chunk(1, "stdout", bytes(64 * KIB))], 2, False, None, False)))


async def test_others_have_turns_while_a_large_message_is_written() -> None:
    ours, theirs = map(trio.SocketStream, map(trio.socket.from_stdlib_socket, socket.socketpair()))
    channel = LineChannel(ours, ours, DEFAULTS)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(channel.send, Response(1, FileData(bytes(12 * MIB))))
        nursery.start_soon(count)
        await theirs.receive_some(1)
        nursery.cancel_scope.cancel()
    await channel.aclose()
    assert turns > 50
