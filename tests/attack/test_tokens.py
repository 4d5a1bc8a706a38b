"""Tokens at the door of a real daemon: wrong, expired, forged, replayed, in the wrong place and in two places."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from execsrv._doors.tokens import new_token, sha256
from tests.attack.neighbour import open_neighbour
from tests.faults.daemon import Daemon, running_daemon, until
from tests.peers import PATIENCE
from tests.test_admission import frame
from tests.test_websocket import UPGRADE

pytest.importorskip("jwt")

SECRET = b"a secret of more than 32 bytes, of a test"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: dict[str, Any], secret: bytes = SECRET, head: dict[str, Any] | None = None) -> str:
    """Return a signed token, by hand: a library would not make most of these."""
    parts = [b64(json.dumps(part).encode()) for part in (head or {"alg": "HS256", "typ": "JWT"}, claims)]
    return ".".join([*parts, b64(hmac.new(secret, ".".join(parts).encode(), hashlib.sha256).digest())])


class Door(NamedTuple):
    """A daemon that asks everybody for a token, and what it takes."""

    daemon: Daemon
    folder: Path
    good: str
    revoked: str
    expired: str

    def asked(self, *fields: str, target: str = "/", first: dict[str, Any] | None = None) -> str:
        """Ask for an upgrade with these fields, and say `initialize` in it if that is given; the answer."""
        host, _, port = self.daemon.url.removeprefix("ws://").rpartition(":")
        lines = "".join(f"{field}\r\n" for field in fields)
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as peer:
            peer.sendall(f"GET {target} HTTP/1.1\r\n{UPGRADE}{lines}\r\n".encode())
            answer = peer.recv(65536)
            if first is not None and answer.startswith(b"HTTP/1.1 101"):
                text = json.dumps({"id": 1, "method": "initialize", "params": {"clientName": "x", **first}}).encode()
                peer.sendall(frame(text))
                answer = peer.recv(65536)
        return answer.decode(errors="replace")

    def bears(self, token: str) -> str:
        return self.asked(f"Authorization: Bearer {token}")


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    good, revoked, expired = new_token(), new_token(), new_token()
    tokens = tmp_path / "tokens"
    tokens.write_text(
        f"good owner {sha256(good)} never\nrevoked owner {sha256(revoked)} never\n"
        f"expired owner {sha256(expired)} 2020-01-01T00:00:00+00:00\n"
    )
    (tmp_path / "secret").write_bytes(SECRET)
    for name in ("tokens", "secret"):
        (tmp_path / name).chmod(0o600)
    options = ["--token-file", str(tokens), "--bearer-secret-file", f"{tmp_path}/secret", "--bearer-issuer", "us"]
    with running_daemon(tmp_path, "websocket", *options, "--no-allow-same-user") as daemon:
        yield Door(daemon, tmp_path, good, revoked, expired)


def claims(**others: Any) -> dict[str, Any]:
    return {"exp": time.time() + 3600, "iss": "us", "sub": "alice", **others}


def forged() -> dict[str, str]:
    """Return tokens that a server must not take, by what is wrong with them."""
    right = signed(claims())
    head, body, signature = right.split(".")
    none = b64(b'{"alg":"none"}')
    embedded = {"alg": "HS256", "jwk": {"kty": "oct", "k": b64(b"mine" * 9)}}
    return {
        "another key": signed(claims(), b"another secret of more than 32 bytes"),
        "an empty key": signed(claims(), b""),
        "a key of its own": signed(claims(), b"mine" * 9, embedded),
        "a key in a file": signed(claims(), b"", {"alg": "HS256", "kid": "/dev/null"}),
        "none": f"{none}.{body}.",
        "none, with a signature": f"{none}.{body}.{signature}",
        "none, in other letters": f"{b64(json.dumps({'alg': 'nOnE'}).encode())}.{body}.",
        "another algorithm": signed(claims(), head={"alg": "HS512", "typ": "JWT"}),
        "a critical extension": signed(claims(), head={"alg": "HS256", "crit": ["b64"], "b64": False}),
        "other claims": f"{head}.{b64(json.dumps(claims(sub='root')).encode())}.{signature}",
        "no signature": f"{head}.{body}.",
        "half of the signature": right[:-20],
        "another letter": right[:-10] + ("A" if right[-10] != "A" else "B") + right[-9:],
        "a letter more": f"{right}x",
        "expired": signed(claims(exp=time.time() - 60)),
        "for ever": signed({"iss": "us", "sub": "alice"}),
        "not a time": signed(claims(exp="2999-01-01")),
        "endless": signed(claims(exp=float("inf"))),
        "not yet": signed(claims(nbf=time.time() + 60)),
        "another issuer": signed(claims(iss="them")),
        "several issuers": signed(claims(iss=["us"])),
        "no issuer": signed({"exp": time.time() + 3600}),
        "another audience": signed(claims(aud="them")),
        "no such role": signed(claims(role="root")),
        "a line in its name": signed(claims(sub="a\n2026-01-01 INFO forged")),
    }


def test_whatever_is_wrong_with_a_token(door: Door) -> None:
    """It is refused at the door, whoever has it; and no part of it is in the answer or in the log."""
    assert door.bears(door.good).startswith("HTTP/1.1 101")
    assert door.bears(signed(claims())).startswith("HTTP/1.1 101")
    wrong = forged() | {
        "expired in the file": door.expired,
        "its hash": sha256(door.good),
        "truncated": door.good[:-1],
        "a space more": f"{door.good} {door.good}",
        "another case": door.good.swapcase(),
        "not one": new_token(),
        "long": "x" * 4000,
    }
    for what, token in wrong.items():
        answer = door.bears(token)
        assert answer.startswith("HTTP/1.1 401"), (what, answer)
        assert not [part for part in token.split(".") if len(part) > 20 and part in answer], (what, answer)
    door.daemon.check()
    log = door.daemon.log
    assert not [what for what, token in wrong.items() for part in token.split(".") if len(part) > 20 and part in log]
    assert "forged" not in log


def test_a_token_in_the_wrong_place_is_none(door: Door) -> None:
    """Such as in a URL, which is in the history and in the logs of others, or in a cookie."""
    good = door.good
    for fields, target in (
        ([], f"/?token={good}"),
        ([], f"/?access_token={good}"),
        ([f"Cookie: token={good}"], "/"),
        ([f"X-Token: {good}"], "/"),
        ([f"Proxy-Authorization: Bearer {good}"], "/"),
        ([f"Authorization: Basic {base64.b64encode(f'x:{good}'.encode()).decode()}"], "/"),
        ([f"Authorization: Token {good}"], "/"),
        ([f"Sec-WebSocket-Protocol: {good}"], "/"),
        ([f"Sec-WebSocket-Protocol: execsrv, token.{good}"], "/"),
    ):
        answer = door.asked(*fields, target=target)
        assert answer.startswith("HTTP/1.1 401"), (fields, target, answer)
        assert good not in answer


def test_who_presents_two_tokens_needs_two_that_are_right(door: Door) -> None:
    """One that is wrong is refused, whatever stands beside it: else it depends on the reader which one counts."""
    good, wrong = door.good, new_token()
    header, page = "Authorization: Bearer {}", "Sec-WebSocket-Protocol: execsrv, execsrv.token.{}"
    for fields in (
        [header.format(good), page.format(wrong)],
        [header.format(wrong), page.format(good)],
        [header.format(good), header.format(wrong)],
        [header.format(wrong), header.format(good)],
        [header.format(f"{good}, Bearer {wrong}")],
        [page.format(good), page.format(wrong)],
        [page.format(wrong), page.format(good)],
    ):
        answer = door.asked(*fields)
        assert answer.startswith("HTTP/1.1 401"), (fields, answer)
    bearer = header.format(good)
    assert "environmentInfo" in door.asked(bearer, first={})
    assert "environmentInfo" in door.asked(bearer, first={"token": good})
    assert "environmentInfo" in door.asked(bearer, page.format(good), first={})
    for token in (wrong, "", door.revoked[:-1]):
        answer = door.asked(bearer, first={"token": token})
        assert "environmentInfo" not in answer
        assert "invalid websocket bearer token" in answer


async def test_a_token_that_was_good_is_replayed(door: Door) -> None:
    """After it was revoked and the file read again; and a signed one after the secret was changed."""
    old = signed(claims())
    for token in (door.revoked, old):
        assert door.bears(token).startswith("HTTP/1.1 101")
    tokens = door.folder / "tokens"
    lines = [line for line in tokens.read_text().splitlines(keepends=True) if not line.startswith("revoked ")]
    tokens.write_text("".join(lines))
    (door.folder / "secret").write_bytes(SECRET[::-1])
    door.daemon.process.send_signal(signal.SIGHUP)
    await until(lambda: "reloaded the tokens" in door.daemon.log, lambda: door.daemon.log)
    for token in (door.revoked, old):
        assert door.bears(token).startswith("HTTP/1.1 401")
    for token in (door.good, signed(claims(), SECRET[::-1])):
        assert door.bears(token).startswith("HTTP/1.1 101")


@pytest.mark.slow
async def test_a_thousand_guesses(door: Door, tmp_path: Path) -> None:
    """They are refused one by one, in few lines of the log, and somebody else has his answers."""
    with running_daemon(tmp_path, "websocket", "--token-file", f"{door.folder}/tokens") as daemon:
        async with open_neighbour(daemon.url) as neighbour:
            for number in range(1000):
                assert door._replace(daemon=daemon).bears(f"x{number}").startswith("HTTP/1.1 401")
                if number % 100 == 0:
                    await neighbour.answered()
        daemon.check()
        assert len(daemon.log) < 100_000
