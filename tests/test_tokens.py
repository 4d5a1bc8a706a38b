"""Tokens: opaque ones of a file, signed ones, and where our clients have theirs from."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import WebSocketConnection, open_websocket_url

from execsrv import (
    ConnectionFailedError,
    ConnectionLostError,
    ForbiddenError,
    InvalidConfigError,
    InvalidParamsError,
    UnauthorizedError,
    connect,
    connect_in_process,
)
from execsrv._doors import tokens
from execsrv._doors.credentials import Credentials
from execsrv._doors.principal import Principal
from execsrv.client import tokens as client_tokens
from execsrv.limits import ServerConfig
from execsrv.protocol.roles import Role
from tests.peers import ENV, PATIENCE
from tests.relay import open_line
from tests.test_daemon import EXECSRV
from tests.test_identity import listen, serving
from tests.test_reloading import running
from tests.test_websocket import UPGRADE

__all__ = ["listen"]

jwt = pytest.importorskip("jwt")

SECRET = "s" * 32


def token_command(*argv: str, fails: bool = False) -> str:
    done = subprocess.run([*EXECSRV, "token", *argv], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def write(path: Path, **roles: str) -> dict[str, str]:
    """Make a file of tokens with these names and roles, and return the tokens."""
    made = {name: tokens.new_token() for name in roles}
    path.write_text("".join(f"{name} {role} {tokens.sha256(made[name])} never\n" for name, role in roles.items()))
    path.chmod(0o600)
    return made


def found(config: ServerConfig, token: str) -> Principal:
    credentials = Credentials()
    credentials.load(config)
    return credentials.find(token)


def why_not(config: ServerConfig, token: str) -> str:
    with pytest.raises(UnauthorizedError) as refused:
        found(config, token)
    assert len(token) < 10 or token not in str(refused.value)
    return str(refused.value)


# -- opaque ones --


def test_a_token_is_known_by_its_hash(token_file: Path) -> None:
    made = write(token_file, ci="owner", dashboard="viewer")
    config = ServerConfig(token_file=str(token_file))
    assert str(found(config, made["ci"])) == "token ci (owner)"
    assert str(found(config, made["dashboard"])) == "token dashboard (viewer)"
    assert not set(made.values()) & set(token_file.read_text().split())
    for wrong in ("", "x", made["ci"][:-1], made["ci"] + "x", made["ci"].upper(), tokens.sha256(made["ci"]), "\ud800"):
        assert why_not(config, wrong or " ") == "invalid websocket bearer token: it is not one of this server"


def test_a_token_is_good_until_it_expires(token_file: Path) -> None:
    made = write(token_file, ci="owner")["ci"]
    config = ServerConfig(token_file=str(token_file))
    for expiry, is_good in (("2999-01-01T00:00:00+00:00", True), ("2999-01-01", True), ("2001-01-01T00:00:00", False)):
        token_file.write_text(f"ci owner {tokens.sha256(made)} {expiry}\n")
        if is_good:
            assert found(config, made).name == "token ci"
        else:
            assert why_not(config, made) == "invalid websocket bearer token: `ci` has expired"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("ci", "expected `NAME ROLE SHA256 EXPIRY`"),
        ("exs_secret", "expected `NAME ROLE SHA256 EXPIRY`"),
        (f"c/i owner {'0' * 64}", "the name"),
        (f"ci king {'0' * 64}", "the role is not one of health, viewer, writer, owner"),
        (f"ci owner {'0' * 63}", "the hash"),
        (f"ci owner {'0' * 64} tomorrow", "the expiry"),
        (f"ci owner {'0' * 64}\nci owner {'1' * 64}", "`ci` is in it twice"),
    ],
)
def test_a_line_that_is_none_is_named_and_not_quoted(token_file: Path, line: str, complaint: str) -> None:
    token_file.write_text(f"# a comment\n\n{line}\n")
    token_file.chmod(0o600)
    with pytest.raises(InvalidConfigError, match=complaint.replace("`", ".")) as error:
        Credentials().load(ServerConfig(token_file=str(token_file)))
    assert "secret" not in str(error.value)
    assert "0000" not in str(error.value)


def test_a_file_that_others_may_write_is_not_trusted(token_file: Path) -> None:
    made = write(token_file, ci="owner")["ci"]
    config = ServerConfig(token_file=str(token_file))
    for mode in (0o620, 0o602):
        token_file.chmod(mode)
        with pytest.raises(InvalidConfigError, match="others may write to it"):
            found(config, made)
    token_file.chmod(0o644)
    assert found(config, made)
    if os.geteuid() == 0:
        os.chown(token_file, 65534, -1)
        with pytest.raises(InvalidConfigError, match="it belongs to uid 65534"):
            found(config, made)
    for other in (token_file.parent, token_file.parent / "none", "/dev/null"):
        with pytest.raises(InvalidConfigError, match="cannot read the token file"):
            found(ServerConfig(token_file=str(other)), made)


def test_a_file_that_cannot_be_read_again_leaves_the_tokens_that_were(token_file: Path) -> None:
    made = write(token_file, ci="owner")["ci"]
    config = ServerConfig(token_file=str(token_file))
    credentials = Credentials()
    credentials.load(config)
    token_file.write_text("nonsense")
    with pytest.raises(InvalidConfigError):
        credentials.load(config)
    assert credentials.find(made)


# -- signed ones --


@pytest.fixture
def signer(tmp_path: Path) -> ServerConfig:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    return ServerConfig(bearer_secret_file=str(secret), bearer_issuer="us", bearer_audience="execsrv")


def signed(secret: str = SECRET, algorithm: str = "HS256", /, **claims: Any) -> str:
    facts = {"iss": "us", "aud": "execsrv", "exp": time.time() + 3600, "sub": "alice"} | claims
    return str(jwt.encode({k: v for k, v in facts.items() if v is not None}, secret, algorithm=algorithm))


def test_a_signed_token_says_who_and_what(signer: ServerConfig) -> None:
    assert found(signer, signed())[:2] == ("bearer alice", Role.OWNER)
    assert found(signer, signed(role="viewer"))[:2] == ("bearer alice", Role.VIEWER)
    assert found(signer, signed(aud=["other", "execsrv"], nbf=time.time() - 5)).name == "bearer alice"
    assert found(signer, signed(sub=None)).name == "bearer nobody"
    # Clocks may differ by 30 s, and `iat` says nothing.
    assert found(signer, signed(exp=time.time() - 20, nbf=time.time() - 3600, iat=time.time() + 9999))
    assert found(signer, signed(nbf=time.time() + 20))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": 1}, "expired websocket jwt"),
        ({"exp": None}, "invalid websocket jwt"),
        ({"exp": "soon"}, "invalid websocket jwt"),
        ({"nbf": 9e9}, "websocket jwt is not valid yet"),
        ({"iss": "them"}, "websocket jwt issuer mismatch"),
        ({"iss": None}, "websocket jwt issuer mismatch"),
        ({"aud": "other"}, "websocket jwt audience mismatch"),
        ({"aud": None}, "websocket jwt audience mismatch"),
        ({"role": "king"}, "invalid websocket jwt"),
        ({"role": ["owner"]}, "invalid websocket jwt"),
        ({"sub": "a\nb"}, "invalid websocket jwt"),
        ({"sub": "x" * 129}, "invalid websocket jwt"),
    ],
)
def test_a_signed_token_that_is_wrong(signer: ServerConfig, claims: dict[str, Any], why: str) -> None:
    assert why_not(signer, signed(**claims)) == why


@pytest.mark.filterwarnings("ignore")
def test_a_forged_token(signer: ServerConfig) -> None:
    head, body, signature = signed().split(".")
    other = signed(sub="mallory").split(".")[1]
    none = jwt.encode({"exp": 9e9, "iss": "us", "aud": "execsrv"}, None, algorithm="none")
    for forged in (
        signed("t" * 32),
        signed(SECRET, "HS512"),
        none,
        f"{none}{signature}",
        f"{head}.{other}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        "..",
        "a.b.c",
        "x",
        "\u00e9.b.c",
    ):
        assert why_not(signer, forged) == "invalid websocket jwt"


def test_an_audience_is_checked_where_none_is_set(signer: ServerConfig) -> None:
    """A token for somebody else is not for us (RFC 7519, section 4.1.3)."""
    config = ServerConfig(bearer_secret_file=signer.bearer_secret_file)
    assert found(config, signed(aud=None, iss="anybody"))
    assert why_not(config, signed()) == "websocket jwt audience mismatch"


def test_a_secret_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s" * 31 + "\n")
    with pytest.raises(InvalidConfigError, match="shorter than 32 bytes"):
        Credentials().load(ServerConfig(bearer_secret_file=f"{tmp_path}/secret"))


def test_a_secret_that_everybody_may_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    for mode, is_told in ((0o600, False), (0o644, True)):
        secret.chmod(mode)
        Credentials().load(ServerConfig(bearer_secret_file=f"{secret}"))
        assert ("every user of this machine may read the secret" in caplog.text) == is_told


def test_both_kinds_of_tokens_at_one_server(signer: ServerConfig, token_file: Path) -> None:
    made = write(token_file, ci="owner")["ci"]
    config = ServerConfig(bearer_secret_file=signer.bearer_secret_file, token_file=str(token_file))
    assert found(config, made).name == "token ci"
    assert found(config, signed(aud=None)).name == "bearer alice"
    assert "not one of this server" in why_not(config, "x")


def test_what_is_not_set_is_not_loaded() -> None:
    # What measures coverage has loaded things too, and msgspec before 0.20 reads its own version from JSON.
    script = "import msgspec, sys; before = {*sys.modules}; import execsrv._cli.serve; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    unneeded = {"jwt", "json", "execsrv._doors.tokens", "execsrv._doors.signed_tokens"}
    assert not unneeded & set(done.stdout.split())


# -- through the door --


async def test_a_token_opens_the_door_in_its_role(listen: str, token_file: Path) -> None:
    made = write(token_file, ci="owner", dashboard="viewer")
    async with serving(listen, token_file=str(token_file), allow_same_user=False) as url:
        async with connect(url, token=made["ci"]) as client:
            assert (await client.run(["true"])).exit_code == 0
        async with connect(url, token=made["dashboard"]) as client:
            with pytest.raises(ForbiddenError, match="`process/start` needs the role owner, and this is a viewer"):
                await client.run(["true"])
            with pytest.raises(ForbiddenError):
                await client.files.read("/etc/hostname")
        with pytest.raises(ConnectionFailedError, match="it is not one of this server"):
            async with connect(url, token="exs_wrong"):
                pass
        with pytest.raises(ConnectionFailedError, match="missing websocket bearer token"):
            async with connect(url):
                pass


@pytest.mark.few
async def test_a_command_of_ours_that_has_a_token_comes_in(listen: str, token_file: Path) -> None:
    made = write(token_file, ci="owner")["ci"]
    with running("--listen", listen, "--token-file", str(token_file)) as daemon:
        argv = [*EXECSRV, "run", "--url", daemon.url, "--", "echo", "hi"]
        (token_file.parent / "mine").write_text(made)
        async with connect(daemon.url) as client:
            result = await client.run([*argv[:-2], "echo", "hi"], text=True)
            assert "missing websocket bearer token: it comes from a command of this server" in result.stderr
            env = {"EXECSRV_TOKEN_FILE": f"{token_file.parent}/mine"}
            result = await client.run(argv, text=True, env_add=env)
            assert (result.stdout, result.stderr) == ("hi\n", "")


async def test_tokens_are_read_again_at_sighup(token_file: Path) -> None:
    made = write(token_file, ci="owner", old="owner")
    with running("--listen", "ws://127.0.0.1:0", "--token-file", str(token_file), "--no-allow-same-user") as daemon:
        async with connect(daemon.url, token=made["ci"]) as client, connect(daemon.url, token=made["old"]) as other:
            token_command("revoke", "old", "--file", str(token_file))
            new = token_command("new", "new", "--file", str(token_file)).strip()
            daemon.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.until, "ending a connection of token old (owner)")
            await trio.to_thread.run_sync(daemon.until, "reloaded the tokens")
            with pytest.raises(ConnectionLostError):
                await other.run(["true"])
            with pytest.raises(ConnectionFailedError, match="401"):
                async with connect(daemon.url, token=made["old"]):
                    pass
            async with connect(daemon.url, token=new):
                pass
            os.truncate(token_file, 9)
            daemon.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.until, "cannot reload the tokens")
            async with connect(daemon.url, token=new):
                pass
            assert (await client.run(["true"])).exit_code == 0


async def test_a_token_that_is_issued_anew_under_its_name_leaves_nobody_in_by_the_old_one(token_file: Path) -> None:
    made = write(token_file, ci="owner")["ci"]
    options = "--token-file", str(token_file), "--resume-grace", "600", "--no-allow-same-user"
    with running("--listen", "ws://127.0.0.1:0", *options) as daemon:
        async with opened(daemon.url, made) as kept:
            id = (await greeted(kept))["result"]["sessionId"]
        async with connect(daemon.url, token=made) as client:
            token_command("revoke", "ci", "--file", str(token_file))
            new = token_command("new", "ci", "--file", str(token_file)).strip()
            daemon.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.until, "reloaded the tokens")
            with pytest.raises(ConnectionLostError), trio.fail_after(PATIENCE):
                await client.run(["true"])
        async with opened(daemon.url, new) as renewed:
            assert "unknown session id" in (await greeted(renewed, resume=id))["error"]["message"]
        async with connect(daemon.url, token=new) as client:
            daemon.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.until, "reloaded the tokens")
            assert (await client.run(["true"])).exit_code == 0


async def test_another_secret_leaves_nobody_in_by_the_former_one(tmp_path: Path) -> None:
    def token(secret: str) -> str:
        return signed(secret, iss=None, aud=None)

    (secret := tmp_path / "secret").write_text(SECRET)
    secret.chmod(0o600)
    options = "--bearer-secret-file", str(secret), "--no-allow-same-user"
    with running("--listen", "ws://127.0.0.1:0", *options) as daemon:
        async with connect(daemon.url, token=token(SECRET)) as client:
            daemon.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.until, "reloaded the tokens")
            assert (await client.run(["true"])).exit_code == 0
            secret.write_text(other := "t" * 32)
            daemon.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.until, "ending a connection of bearer alice (owner)")
            with pytest.raises(ConnectionLostError), trio.fail_after(PATIENCE):
                await client.run(["true"])
        async with connect(daemon.url, token=token(other)) as client:
            assert (await client.run(["true"])).exit_code == 0


def test_a_peer_that_reads_nothing_loses_its_channel_with_its_token(token_file: Path, tmp_path: Path) -> None:
    made = write(token_file, ci="owner")["ci"]
    flood = {"processId": "p", "argv": ["yes"], "cwd": "/", "env": ENV, "tty": False}
    messages: list[Any] = [
        {"id": 1, "method": "initialize", "params": {"clientName": "x", "token": made}},
        {"method": "initialized"},
        {"id": 2, "method": "process/start", "params": flood},
    ]
    options = "--token-file", str(token_file), "--no-allow-same-user"
    with running("--listen", f"unix://{tmp_path}/s", *options) as daemon, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"{tmp_path}/s")
        peer.settimeout(PATIENCE)
        peer.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
        while b"process/output" not in peer.recv(65536):
            pass
        token_command("revoke", "ci", "--file", str(token_file))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until("ending a connection of token ci (owner)")
        ends = select.poll()
        ends.register(peer, 0)
        assert ends.poll(PATIENCE * 1000) == [(peer.fileno(), select.POLLHUP)]


async def test_who_was_let_in_before_its_token_was_revoked_has_no_token(token_file: Path) -> None:
    """The door was opened to it, and it said nothing so far: who it is, is asked again when it does."""
    made = write(token_file, ci="owner", old="owner")
    with running("--listen", "ws://127.0.0.1:0", "--token-file", str(token_file), "--no-allow-same-user") as daemon:
        async with opened(daemon.url, made["ci"]) as good, opened(daemon.url, made["old"]) as revoked:
            token_command("revoke", "old", "--file", str(token_file))
            daemon.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(daemon.until, "reloaded the tokens")
            assert "not one of this server" in (await greeted(revoked))["error"]["message"]
            assert "result" in await greeted(good)
        async with opened(daemon.url, made["ci"]) as good:  # a token in `initialize` still goes before that
            assert "not one of this server" in (await greeted(good, made["old"]))["error"]["message"]


def opened(url: str, token: str) -> AbstractAsyncContextManager[WebSocketConnection]:
    return open_websocket_url(url, extra_headers=[(b"Authorization", b"Bearer " + token.encode())])


async def greeted(peer: WebSocketConnection, token: str | None = None, resume: str | None = None) -> Any:
    params = {"clientName": "x", "token": token, "resumeSessionId": resume}
    await peer.send_message(json.dumps({"id": 1, "method": "initialize", "params": params}))
    with trio.fail_after(PATIENCE):
        return json.loads(await peer.get_message())


async def test_a_peer_behind_a_proxy_is_not_the_proxy(token_file: Path) -> None:
    """It has the proxy's user, and may be anybody. With a token it is who it says."""
    made = write(token_file, ci="owner")["ci"]
    async with serving("ws://127.0.0.1:0", token_file=str(token_file)) as url:
        host, _, port = url.removeprefix("ws://").rpartition(":")
        for field in ("X-Forwarded-For: x", "Forwarded: for=x", "Via: 1.1 proxy", "X-Real-IP: x"):
            for token, status in (("", 401), (f"Authorization: Bearer {made}\r\n", 101)):
                async with await trio.open_tcp_stream(host, int(port)) as stream:
                    await stream.send_all(f"GET / HTTP/1.1\r\n{UPGRADE}{token}{field}\r\n\r\n".encode())
                    answer = await stream.receive_some()
                assert answer.startswith(f"HTTP/1.1 {status}".encode())
                assert (b"it comes through a proxy" in answer) == (status == 401)


async def test_a_page_says_its_token_in_a_subprotocol(token_file: Path) -> None:
    made = write(token_file, ci="owner")["ci"]
    async with serving("ws://127.0.0.1:0", token_file=str(token_file), allow_same_user=False) as url:
        host, _, port = url.removeprefix("ws://").rpartition(":")
        for protocols, status in (
            (f"execsrv, execsrv.token.{made}", 101),
            (f"execsrv.token.{made}", 101),
            ("execsrv, execsrv.token.x", 401),
            ("execsrv", 401),
        ):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(
                    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Protocol: {protocols}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    "Sec-WebSocket-Version: 13\r\n\r\n".encode()
                )
                answer = (await stream.receive_some()).decode().lower()
            assert answer.startswith(f"http/1.1 {status}")
            assert made.lower() not in answer
            # A browser takes no answer that names none of what it has offered.
            is_named = status == 101 and protocols.startswith("execsrv,")
            assert ("sec-websocket-protocol: execsrv\r\n" in answer) == is_named


@pytest.mark.parametrize(
    ("authorization", "status", "body"),
    [
        ("Bearer x", 401, "invalid websocket bearer token: it is not one of this server"),
        ("Basic x", 401, "invalid authorization header"),
        ("Bearer", 401, "invalid authorization header"),
        ("Bearer \u00e9", 401, "invalid authorization header"),
        ("bEARER {}", 101, ""),
    ],
)
async def test_the_header(token_file: Path, authorization: str, status: int, body: str) -> None:
    made = write(token_file, ci="owner")["ci"]
    async with serving("ws://127.0.0.1:0", token_file=str(token_file)) as url:
        host, _, port = url.removeprefix("ws://").rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(
                "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Authorization: {authorization.format(made)}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            answer = bytearray()
            while status != 101 and (data := await stream.receive_some()):
                answer += data
            if status == 101:
                answer += await stream.receive_some()
        head, _, said = answer.decode().partition("\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status}")
        assert ("WWW-Authenticate: Bearer" in head) == (status == 401)
        assert said == body


# -- where a client has its token from --


@pytest.fixture
def no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXECSRV_TOKEN", raising=False)
    monkeypatch.delenv("EXECSRV_TOKEN_FILE", raising=False)
    monkeypatch.setattr(client_tokens, "_taken", None)


@pytest.mark.usefixtures("no_tokens")
async def test_a_client_has_its_token_from_a_file_or_the_environment(
    listen: str, token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write(token_file, one="owner", other="owner")
    mine = tmp_path / "mine"
    mine.write_text(f"{made['one']}\n")
    async with serving(listen, token_file=str(token_file), allow_same_user=False) as url:
        async with connect(url, token_file=mine) as client:
            # The client's own word, and that of its repr.
            assert made["one"] not in repr(client) + repr(client._connection) + repr(vars(client._connection))
        monkeypatch.setenv("EXECSRV_TOKEN_FILE", str(mine))
        async with connect(url):
            pass
        monkeypatch.setenv("EXECSRV_TOKEN", made["other"])
        mine.write_text("exs_wrong")
        for _ in range(2):
            async with connect(url):
                assert "EXECSRV_TOKEN" not in os.environ
        with pytest.raises(ConnectionFailedError, match="not one of this server"):
            async with connect(url, token_file=mine):
                pass
        with pytest.raises(ConnectionFailedError, match="cannot read the token file"):
            async with connect(url, token_file=tmp_path / "none"):
                pass
        mine.write_text("two words")
        with pytest.raises(ConnectionFailedError, match="there is no token in"):
            async with connect(url, token_file=mine):
                pass
        for wrong in ("", "two words", "x\r\ny", "\u00e9"):
            with pytest.raises(InvalidParamsError, match="printable ASCII"):
                async with connect(url, token=wrong):
                    pass
        with pytest.raises(InvalidParamsError, match="exclude each other"):
            async with connect(url, token="x", token_file=mine):
                pass


@pytest.mark.parametrize("listen", ["unix"], indirect=True)
async def test_a_token_file_that_is_away_for_a_moment_ends_no_connection(
    listen: str, token_file: Path, tmp_path: Path
) -> None:
    mine, away = tmp_path / "mine", tmp_path / "away"
    mine.write_text(write(token_file, one="owner")["one"])
    settings = {"token_file": str(token_file), "allow_same_user": False, "resume_grace": 300}
    with trio.fail_after(PATIENCE):
        async with (
            serving(listen, **settings) as url,
            open_line(url, f"{tmp_path}/line") as line,
            connect(line.url, reconnect=600, token_file=mine) as client,
            client.start(["cat"], stdin=True) as process,
        ):
            connection = client._connection
            mine.rename(away)
            line.cut()
            tried = {connection._tried_at}
            while len(tried) < 3:  # at the second try, the first has failed
                connection.calls.check()
                await trio.testing.wait_all_tasks_blocked(0.001)
                tried.add(connection._tried_at)
            away.rename(mine)
            await process.write(b"on\n")
            assert await anext(process.lines()) == "on"


@pytest.mark.usefixtures("no_tokens")
async def test_no_command_inherits_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXECSRV_TOKEN", "exs_canary")
    async with connect_in_process() as client:
        assert "exs_canary" not in (await client.run(["env"], text=True)).stdout
    env = {**os.environ, "EXECSRV_TOKEN": "exs_canary"}
    for argv in (["run", "--", "env"], ["run", "--tty", "--", "env"]):
        done = await trio.run_process([*EXECSRV, *argv], env=env, capture_stdout=True, stdin=subprocess.DEVNULL)
        assert b"PATH=" in done.stdout
        assert b"exs_canary" not in done.stdout
    with running("--listen", f"unix://{tmp_path}/socket", env=env) as daemon:
        monkeypatch.delenv("EXECSRV_TOKEN")
        async with connect(daemon.url) as client:
            script = "env; tr '\\0' '\\n' < /proc/$PPID/environ"
            assert "exs_canary" not in (await client.run(["sh", "-c", script], text=True)).stdout


# -- the command --


def test_a_token_is_made_listed_and_revoked(token_file: Path) -> None:
    path = str(token_file)
    made = token_command("new", "ci", "--file", path).strip()
    assert made.startswith("exs_")
    token_command("new", "dash", "-f", path, "--role", "viewer", "--expires", "30d", "--out", f"{path}.dash")
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert Path(f"{path}.dash").stat().st_mode & 0o777 == 0o600
    config = ServerConfig(token_file=path)
    assert str(found(config, made)) == "token ci (owner)"
    assert str(found(config, Path(f"{path}.dash").read_text().strip())) == "token dash (viewer)"
    assert made not in token_file.read_text()
    rows = json.loads(token_command("list", "-f", path, "--json"))
    assert [(row["name"], row["role"], row["expired"]) for row in rows] == [
        ("ci", "owner", False),
        ("dash", "viewer", False),
    ]
    assert rows[0]["expires"] is None
    assert 29 < (time.mktime(time.strptime(rows[1]["expires"][:19], "%Y-%m-%dT%H:%M:%S")) - time.time()) / 86400 < 31
    assert "never expires" in token_command("list", "-f", path)
    assert "is in" in token_command("new", "ci", "-f", path, fails=True)
    assert "File exists" in token_command("new", "x", "-f", path, "--out", f"{path}.dash", fails=True)
    token_command("revoke", "ci", "-f", path)
    assert why_not(config, made)
    assert "is not in" in token_command("revoke", "ci", "-f", path, fails=True)
    assert sorted(entry.name for entry in token_file.parent.iterdir()) == ["tokens", "tokens.dash"]


def test_a_token_that_cannot_be_made_is_not_in_the_file(token_file: Path) -> None:
    new = [*EXECSRV, "token", "new", "ci", "-f", str(token_file)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(new, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    said = "execsrv: cannot print the token, so it is not kept: No space left on device\n"
    assert (done.returncode, done.stderr, token_file.exists()) == (1, said, False)
    for words, complaint in [
        (["--expires", "999999w"], "the time `999999w` is too long: expected one before the year 10000"),
        (["--expires", "0d"], "the time `0d` is over already"),
        (["-f", ""], "--file is missing: the file of tokens"),
    ]:
        assert complaint in token_command("new", "ci", "-f", str(token_file), *words, fails=True)
    assert not token_file.exists()


def test_a_token_for_which_the_disk_has_no_room_is_not_printed(token_file: Path) -> None:
    token_command("new", "ci", "-f", str(token_file))
    before, out = token_file.read_text(), Path(f"{token_file}.out")
    for words, path in [([], token_file), (["--out", str(out)], token_file), (["-f", f"{out}.new"], f"{out}.new")]:
        argv = [*EXECSRV, "token", "new", "x", "-f", str(token_file), *words]
        full = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *argv]
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # of what Python keeps, it would keep a part
        done = subprocess.run(full, capture_output=True, text=True, timeout=PATIENCE, env=env)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"execsrv: cannot write `{path}`: File too large\n"
    assert token_file.read_text() == before
    assert [entry.name for entry in token_file.parent.iterdir()] == ["tokens"]


@pytest.mark.slow
def test_two_at_once_lose_nothing(token_file: Path) -> None:
    new = [*EXECSRV, "token", "new", "-f", str(token_file)]
    makers = [subprocess.Popen([*new, f"t{number}"], stdout=subprocess.PIPE, text=True) for number in range(6)]
    made = [maker.communicate(timeout=PATIENCE)[0].strip() for maker in makers]
    config = ServerConfig(token_file=str(token_file))
    assert [found(config, token).name for token in made] == [f"token t{number}" for number in range(6)]


@pytest.mark.parametrize(
    "argv",
    [
        ["new", "a b"],
        ["new", "-x"],
        ["new", "x", "--role", "king"],
        ["new", "x", "--expires", "soon"],
        ["new", "x", "--expires", "2001-01-01"],
        ["list"],
    ],
)
def test_what_is_no_token(token_file: Path, argv: list[str]) -> None:
    token_command(*argv, "-f", str(token_file), fails=True)
    assert not token_file.exists()
