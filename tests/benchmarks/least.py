"""The least server that answers the throughput cases of bench.py: a floor for any that is written in Python.

    python tests/benchmarks/bench.py --only pipe,terminal,stdin,50-way "least=python tests/benchmarks/least.py {listen}"

One thread, one client, one loop over what can be read; a read, an encoder in C, and a write for each chunk. It has no
log, no limits, no fairness and no error: a command that does not read, or a client that does not, holds up everything.
What a server adds to it is the price of these. The client is the same for both, and so are the commands.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pty
import select
import socket
import struct
import subprocess
import sys
from typing import Any

import msgspec

CHUNK, TERMINAL_CHUNK, TERMINAL_PIECE = 64 << 10, 128 << 10, 4096
RECEIVED = 256 << 10
HEAD_END, KEY = b"\r\n\r\n", b"Sec-WebSocket-Key: "
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Params(msgspec.Struct, rename="camel"):
    """What the methods that it knows are asked with."""

    process_id: str = ""
    argv: list[str] = []
    env: dict[str, str] = {}
    tty: bool = False
    pipe_stdin: bool = False
    chunk: bytes = b""
    encoding: str = "json"


class Asked(msgspec.Struct):
    """A request, or the one notification."""

    method: str
    params: Params
    id: int = 0


FORMATS: dict[str, Any] = {"json": msgspec.json, "msgpack": msgspec.msgpack}


class Least:
    """One client, and what it has started."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._came = bytearray()
        self._turn("json")
        self._commands: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}  # by the descriptors of their output
        self._inputs: dict[str, int] = {}
        self._ready = select.epoll()
        self._ready.register(peer, select.EPOLLIN)
        while HEAD_END not in self._came:
            self._came += peer.recv(RECEIVED)
        key = self._came.partition(KEY)[2].partition(b"\r\n")[0]
        accepted = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
        peer.sendall(head + b"\r\nSec-WebSocket-Accept: " + accepted + HEAD_END)
        self._came.clear()

    def serve(self) -> None:
        """Do what it asks until it hangs up."""
        while True:
            for descriptor, _ in self._ready.poll():
                if descriptor != self._peer.fileno():
                    self._tell_output(descriptor)
                elif data := self._peer.recv(RECEIVED):
                    self._came += data
                    while (message := self._next_frame()) is not None:
                        self._answer(self._decode(message))
                else:
                    return

    def _turn(self, encoding: str) -> None:
        self._first = 0x81 if encoding == "json" else 0x82
        self._encode = FORMATS[encoding].Encoder().encode
        self._decode = FORMATS[encoding].Decoder(Asked).decode

    def _send(self, message: dict[str, Any]) -> None:
        first = self._first
        data = self._encode(message)
        size = len(data)
        if size < 126:
            head = bytes([first, size])
        elif size < 1 << 16:
            head = struct.pack("!BBH", first, 126, size)
        else:
            head = struct.pack("!BBQ", first, 127, size)
        self._peer.sendall(head + data)

    def _next_frame(self) -> bytes | None:
        """Its next message, which a mask of zeros has left as it is."""
        size, start = self._came[1] & 0x7F if len(self._came) > 10 else 0, 6
        if size > 125:
            width = 2 if size == 126 else 8
            size, start = int.from_bytes(self._came[2 : 2 + width], "big"), 6 + width
        if not size or len(self._came) < start + size:
            return None
        with memoryview(self._came) as view:
            message = bytes(view[start : start + size])
        del self._came[: start + size]
        return message

    def _answer(self, asked: Asked) -> None:
        params = asked.params
        if asked.method == "process/start":
            self._start(params)
        elif asked.method == "process/write":
            view = memoryview(params.chunk)
            while view:
                view = view[os.write(self._inputs[params.process_id], view) :]
        if asked.method != "initialized":
            self._send({"id": asked.id, "result": {"status": "accepted", "encoding": params.encoding}})
        if asked.method == "initialize":
            self._turn(params.encoding)

    def _start(self, params: Params) -> None:
        output, its = pty.openpty() if params.tty else os.pipe()
        stdin, ours = os.pipe() if params.pipe_stdin else (os.open(os.devnull, os.O_RDONLY), None)
        command = subprocess.Popen(
            params.argv, stdin=its if params.tty else stdin, stdout=its, env=params.env, start_new_session=True
        )
        os.close(its)
        os.close(stdin)
        os.set_blocking(output, False)
        self._commands[output] = params.process_id, command
        self._ready.register(output, select.EPOLLIN)
        if ours is not None:
            self._inputs[params.process_id] = ours

    def _tell_output(self, descriptor: int) -> None:
        process_id, command = self._commands[descriptor]
        about = {"processId": process_id}
        if data := read_terminal(descriptor) if os.isatty(descriptor) else os.read(descriptor, CHUNK):
            told = {**about, "seq": 1, "stream": "stdout", "chunk": data}
            self._send({"method": "process/output", "params": told})
            return
        self._ready.unregister(descriptor)
        os.close(descriptor)
        self._send({"method": "process/exited", "params": {**about, "exitCode": command.wait()}})
        self._send({"method": "process/closed", "params": about})


def read_terminal(descriptor: int) -> bytes:
    """The pieces that are there, joined; nothing at its end."""
    pieces: list[bytes] = []
    try:
        while len(pieces) < TERMINAL_CHUNK // TERMINAL_PIECE:
            pieces.append(os.read(descriptor, TERMINAL_PIECE))
    except OSError:  # no more is there now, or at all
        pass
    return b"".join(pieces)


def main() -> None:
    host, _, port = sys.argv[1].removeprefix("ws://").rpartition(":")
    with socket.create_server((host, int(port))) as listener:
        peer, _ = listener.accept()
    with peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Least(peer).serve()


if __name__ == "__main__":
    main()
