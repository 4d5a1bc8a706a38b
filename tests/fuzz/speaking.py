"""A peer that says a script, and judges all that it hears.

Wrong is: a frame or a line that is none of the protocol's, an answer to what was not asked, a result that its method
does not have, an error of the server's own making, an HTTP status of 500. Hanging is: no answer to a question at the
end, where one can be asked, or a channel that the server keeps when its peer has hung up.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from execsrv.protocol import METHODS, NOTIFICATIONS
from execsrv.protocol.methods import struct_named
from tests.fuzz import packing
from tests.fuzz.scripts import SESSION, Again, Frame, Hear, Raw, Say, Script
from tests.peers import PATIENCE

HEAR_SECONDS = 0.4
PROBE = "asked at the end"
_PROBE_TEXT = '{"id":"asked at the end","method":"environment/status"}'
_STATUSES = {101, 200, 400, 401, 403, 404, 405, 408, 413, 414, 421, 426, 429, 431, 501, 503, 505}


class WrongError(AssertionError):
    """The server has said something, or nothing, that it should not."""


class Mouth:
    """One channel: says steps, and keeps what is heard. `names` are what the placeholders stand for."""

    def __init__(self, stream: trio.abc.Stream, script: Script, names: Mapping[str, str], *, framed: bool) -> None:
        self._stream = stream
        self._script = script
        self._names = names
        self._framed = framed
        self._buffer = bytearray()
        self._upgraded = not framed
        self._text = bytearray()
        self._answered = False  # what was asked at the end
        self._closed = False  # the server has said goodbye
        self._packed = False  # both sides speak msgpack
        self.heard: list[Any] = []
        self.ended = trio.Event()
        self.session: str | None = None
        self._news = trio.lowlevel.ParkingLot()

    # -- out --

    def _bytes(self, text: str, encoding: str = "latin-1") -> bytes:
        data = text.encode(encoding, "surrogatepass") if encoding != "latin-1" else text.encode(encoding)
        for name, value in self._names.items():
            data = data.replace(name.encode(), value.encode())
        return data.replace(SESSION.encode(), (self.session or "unknown").encode())

    async def say(self, step: Say | Raw | Frame) -> None:
        """Say a step. That nobody listens any more is no fault."""
        match step:
            case Raw(data):
                said = self._bytes(data)
            case Frame():
                said = _framed(step, self._bytes(step.payload))
            case Say(text) if self._packed:
                packed = packing.packed(self._bytes(text, "utf-8").decode("utf-8", "surrogatepass"))
                said = _framed(Frame("", opcode=2), packed) if self._framed else packing.length_of(packed) + packed
            case Say(text) if self._framed:
                said = _framed(Frame(""), self._bytes(text, "utf-8"))
            case Say(text):
                said = self._bytes(text, "utf-8") + b"\n"
        try:
            await self._stream.send_all(said)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if isinstance(step, Say) and packing.ASKED in step.text and not self._packed:
            await self.until_heard(len(self.heard) + 1)  # before it, nothing may be said

    # -- in --

    async def listen(self) -> None:
        """Hear the server to its end. Raises `WrongError`."""
        try:
            while data := await self._stream.receive_some(256 * 1024):
                self._buffer += data
                self._take()
                self._news.unpark_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.ended.set()
            self._news.unpark_all()

    def _take(self) -> None:
        if not self._upgraded:
            self._take_head()
        if self._upgraded and self._framed:
            while self._take_frame():
                pass
        elif self._packed:
            self._take_packed()
        elif self._upgraded:
            *lines, rest = bytes(self._buffer).split(b"\n")
            self._buffer[:] = rest
            for number, line in enumerate(lines):
                self._take_message(line)
                if self._packed:
                    self._buffer[:] = b"\n".join([*lines[number + 1 :], rest])
                    self._take_packed()
                    break

    def _take_packed(self) -> None:
        """Take every whole message of msgpack."""
        while len(self._buffer) >= 4 + (size := int.from_bytes(self._buffer[:4], "little")) and len(self._buffer) >= 4:
            message = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            self._take_message(message)

    def _take_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        found = re.match(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]*\r\n", head + b"\r\n")
        if found is None or int(found[1]) not in _STATUSES:
            raise WrongError(f"no such answer: {head[:300]!r}")
        if found[1] == b"101":
            del self._buffer[: end + 4]
            self._upgraded = True

    def _take_frame(self) -> bool:
        """Take one whole frame, if there is one."""
        data = self._buffer
        if len(data) < 2:
            return False
        first, second = data[0], data[1]
        size, start = second & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4]), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10]), 10
        if len(data) < start or len(data) < start + size:
            return False
        payload = bytes(data[start : start + size])
        del data[: start + size]
        opcode = first & 0x0F
        if second & 0x80 or first & 0x70 or opcode not in (0, 1, 2, 8, 9, 10) or (opcode > 7 and size > 125):
            raise WrongError(f"no such frame: {first:#x} {second:#x} {payload[:200]!r}")
        if self._closed:
            raise WrongError(f"a frame behind the close frame: {first:#x} {payload[:200]!r}")
        if opcode == 8:
            self._closed = True
            if size == 1 or (size > 1 and not 1000 <= int.from_bytes(payload[:2]) < 5000):
                raise WrongError(f"no such close frame: {payload!r}")
            payload[2:].decode()
        elif opcode < 8:
            if opcode and (opcode == 2) is not self._packed:
                raise WrongError(f"a frame of the wrong kind: {first:#x} {payload[:200]!r}")
            self._text += payload
            if first & 0x80:
                text = bytes(self._text)
                self._text.clear()
                self._take_message(text)
        return True

    def _take_message(self, text: bytes) -> None:
        try:
            message = packing.plain(text) if self._packed else json.loads(text)
        except (ValueError, UnicodeDecodeError):
            raise WrongError(f"no {'msgpack' if self._packed else 'JSON'}: {text[:500]!r}") from None
        self.heard.append(message)
        self._answered = self._answered or (isinstance(message, dict) and message.get("id") == PROBE)
        if isinstance(message, dict) and isinstance(result := message.get("result"), dict) and "sessionId" in result:
            self.session = result["sessionId"] if "environmentInfo" in result else self.session
            self._packed = self._packed or result.get("encoding") == "msgpack"

    async def until_heard(self, count: int) -> None:
        """Wait until so many messages have come, or the end, or for `HEAR_SECONDS`."""
        with trio.move_on_after(HEAR_SECONDS):
            while len(self.heard) < count and not self.ended.is_set():
                await self._news.park()

    async def end(self) -> None:
        """Hang up as the script says, and see that the server does the same. Raises `WrongError`."""
        if self._script.last == "reset":
            _reset(self._stream)
            return
        if self._script.is_whole:
            await self.say(Say(_PROBE_TEXT))
            with trio.move_on_after(PATIENCE) as waiting:
                while not self.ended.is_set() and not self._answered:
                    await self._news.park()
            if waiting.cancelled_caught:
                raise WrongError(f"no answer at the end; heard {_shown(self.heard[-1:])}")
        try:
            if isinstance(self._stream, trio.StapledStream):
                await self._stream.send_stream.aclose()
            else:
                assert isinstance(self._stream, trio.SocketStream)
                await self._stream.send_eof()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # it has hung up already
        with trio.move_on_after(PATIENCE):
            await self.ended.wait()
            return
        raise WrongError(f"it does not hang up; heard {_shown(self.heard[-5:])}")


def _framed(frame: Frame, payload: bytes) -> bytes:
    """Return the bytes of a frame."""
    length = len(payload) if frame.length is None else frame.length
    wide = frame.wide or (0 if length < 126 else 2 if length < 65536 else 8)
    length %= 1 << (8 * wide or 7)
    masked = 0x80 if frame.mask is not None else 0
    head = bytes([frame.final << 7 | frame.reserved << 4 | frame.opcode, masked | {0: length, 2: 126, 8: 127}[wide]])
    head += length.to_bytes(wide) if wide else b""
    if frame.mask is None:
        return head + payload
    mask = frame.mask.encode("latin-1")
    if any(mask):
        whole = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)])
        payload = (int.from_bytes(payload) ^ whole).to_bytes(len(payload))
    return head + mask + payload


def _reset(stream: trio.abc.Stream) -> None:
    if isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _shown(value: object) -> str:
    return str(value)[:2000]


# -- judging --


class Judge:
    """Knows what a script asks for, as far as that can be told, and looks at what came."""

    def __init__(self, script: Script, names: Mapping[str, str]) -> None:
        self._names = names
        self._asked: dict[Any, set[str]] = {}
        self._ids: set[Any] = {PROBE, None}
        self._knows_all = True
        texts = [step.text for step in script.steps if isinstance(step, Say)]
        if any(isinstance(step, Raw | Frame) for step in script.steps):
            self._knows_all = False
        for text in [*texts, _PROBE_TEXT]:
            self._note(text)

    def _note(self, text: str) -> None:
        for name, value in self._names.items():
            text = text.replace(name, value)
        try:
            said = json.loads(text.replace("\ufeff", ""), object_pairs_hook=self._members)
        except (ValueError, RecursionError):
            self._knows_all = False
            return
        if isinstance(said, dict) and isinstance(method := said.get("method"), str):
            for id in said.get("", []):
                self._asked.setdefault(id, set()).add(method)

    def _members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return an object, with all of its ids under the empty name: of two, it is not ours to say which counts."""
        ids = [value for name, value in pairs if name == "id" and isinstance(value, str | int | float)]
        self._knows_all = self._knows_all and SESSION not in ids
        self._ids.update(ids)
        methods = {name: value for name, value in pairs if name == "method"}
        if len([name for name, _ in pairs if name in ("id", "method")]) > 2:
            self._knows_all = False
        return {"": ids, **methods}

    def judge(self, heard: list[Any]) -> None:
        """Raises `WrongError` for a message that a server may not send."""
        for message in heard:
            try:
                self._judge(message)
            except (msgspec.ValidationError, AssertionError, KeyError, TypeError) as error:
                raise WrongError(f"{type(error).__name__}: {error}: {_shown(message)}") from None

    def _judge(self, message: Any) -> None:
        assert isinstance(message, dict)
        message.pop("jsonrpc", None)
        if "method" in message:
            assert message.keys() == {"method", "params"}
            msgspec.convert(message["params"], struct_named(NOTIFICATIONS[message["method"]]))
            return
        id = message["id"]
        assert message.keys() in ({"id", "result"}, {"id", "error"})
        assert not self._knows_all or id in self._ids, "an answer to what was not asked"
        if "error" in message:
            error = message["error"]
            assert error["code"] < 0
            assert isinstance(error["message"], str)
            assert error["data"]["kind"] != "internal-error"
        elif self._knows_all and (methods := [name for name in self._asked.get(id, ()) if name in METHODS]):
            kinds = [METHODS[name].result for name in methods]
            if len(kinds) == 1:
                msgspec.convert(message["result"], kinds[0])


async def speak(script: Script, open_stream: Any, names: Mapping[str, str], *, framed: bool) -> None:
    """Say a script over channels that are opened so, and judge what is heard. Raises `WrongError`."""
    session: str | None = None
    judge = Judge(script, names)
    parts: list[list[Say | Raw | Frame | Hear]] = [[]]
    resets = []
    for step in script.steps:
        if isinstance(step, Again):
            resets.append(step.reset)
            parts.append([])
        else:
            parts[-1].append(step)
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        stream = await open_stream()
        mouth = Mouth(stream, script, names, framed=framed)
        mouth.session = session
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mouth.listen)
                if framed:
                    await mouth.say(Raw(script.head))
                for step in part:
                    if isinstance(step, Hear):
                        await mouth.until_heard(len(mouth.heard) + step.count)
                    else:
                        await mouth.say(step)
                if is_last:
                    await mouth.end()
                elif resets[number]:
                    _reset(stream)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
        session = mouth.session
        judge.judge(mouth.heard)
