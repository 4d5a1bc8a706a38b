"""The TLS of a server while it serves: its certificate, its clients, and both read again without losing anybody."""

from __future__ import annotations

import logging
import os
import ssl
import stat
from contextlib import suppress

import trio

from execsrv._doors.principal import Principal
from execsrv._wire.tls import SecureStream, name_of_peer, server_context
from execsrv.errors import InvalidConfigError, UnauthorizedError
from execsrv.limits import ServerConfig
from execsrv.protocol.roles import Role

logger = logging.getLogger(__name__)

_NO_TLS = (
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2\r\nConnection: upgrade, close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 38\r\n\r\nthis server speaks TLS: use `wss://`\r\n"
)
"""The answer to whoever speaks HTTP without TLS."""

_MAX_FILE_BYTES = 1024 * 1024

_PAUSE_SECONDS = 0.001
"""At least so long nobody shakes hands after somebody else has."""


class Certificates:
    """Makes secure streams of plain ones, and knows who is at the other end of them by a certificate.

    They are to be read first. Reading them again concerns those who come from then on: whoever is in stays in.
    """

    _context: ssl.SSLContext
    _roles: dict[str, Role] | None
    _asks: bool

    def __init__(self) -> None:
        self._handshakes = trio.Lock()

    def read(self, config: ServerConfig) -> None:
        """Read all files. Raises `InvalidConfigError`; then everything is as before."""
        context, roles = server_context(config), None
        if config.tls_clients_file:
            roles = _read_roles(config.tls_clients_file)
            if not config.tls_client_ca_file:
                raise InvalidConfigError("a tls_clients_file needs a tls_client_ca_file")
        key = config.tls_key_file or config.tls_certificate_file
        if os.stat(key).st_mode & stat.S_IROTH:
            logger.warning("every user of this machine may read the key in `%s`", key)
        self._context, self._roles, self._asks = context, roles, bool(config.tls_client_ca_file)

    def take(self, other: Certificates) -> None:
        """Use what another one has read."""
        self._context, self._roles, self._asks = other._context, other._roles, other._asks

    async def receive(self, plain: trio.SocketStream, patience: float) -> SecureStream | None:
        """Return the stream that is secret on its way. None if that failed, or took longer than it may."""
        secure = trio.SSLStream(plain, self._context, server_side=True)
        secure.transport_stream = _Paced(plain, self._handshakes)  # type: ignore[assignment]
        with trio.move_on_after(patience):
            try:
                await secure.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:  # the second: its place was taken
                reason = getattr(error.__cause__, "reason", None)
                # trio leaves it unsent, and the peer would not know why it was refused.
                alert = secure._outgoing.read()  # noqa: SLF001  # which nothing else of trio gives
                await _say_last(plain, _NO_TLS if reason == "HTTP_REQUEST" else alert)
                logger.info("refused a peer in the TLS handshake: %s", (reason or "cut").lower().replace("_", " "))
                return None
            secure.transport_stream = plain
            return secure
        return None

    def shown(self, stream: SecureStream) -> Principal | None:
        """Return who is at the other end by its certificate, None if it has none and needs none.

        Raises `UnauthorizedError`. Without a `tls_clients_file`, all whom the authorities name are owners.
        """
        name = name_of_peer(stream)
        if name is None:
            if self._asks:
                raise UnauthorizedError("this server asks for the certificate of a client, and none was shown")
            return None
        role = Role.OWNER if self._roles is None else self._roles.get(name)
        if role is None or not name:
            raise UnauthorizedError("the name in this certificate is none of those that may come in")
        return Principal(f"certificate {name}", role)


class _Paced(trio.abc.Stream):
    """A stream in a handshake. With all other such streams it takes turns, and everybody else is served in between.

    What is received may have OpenSSL sign with a large key, which takes milliseconds of the loop.
    """

    def __init__(self, plain: trio.SocketStream, turn: trio.Lock) -> None:
        self._plain = plain
        self._turn = turn

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._plain.receive_some(max_bytes)
        async with self._turn:
            await trio.sleep(_PAUSE_SECONDS)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._plain.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._plain.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._plain.aclose()


async def _say_last(stream: trio.SocketStream, data: bytes) -> None:
    """Send something and wait for the peer's end: to close with its words unread would take ours back."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(data)
        await stream.send_eof()
        while await stream.receive_some():
            pass


def _read_roles(path: str) -> dict[str, Role]:
    """Read lines of a role, a space and the name in a certificate. Raises `InvalidConfigError`."""
    from execsrv._doors.tokens import read_own

    text = read_own(path, "file of clients", _MAX_FILE_BYTES)
    roles: dict[str, Role] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word, _, name = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        if word.upper() not in Role.__members__ or not name.strip():
            words = ", ".join(role.word for role in Role)
            complaint = f"cannot read the clients in `{path}`: line {number} is not a role ({words}) and a name"
            raise InvalidConfigError(complaint)
        if name.strip() in roles:
            raise InvalidConfigError(
                f"cannot read the clients in `{path}`: line {number} has a name for the second time"
            )
        roles[name.strip()] = Role[word.upper()]
    return roles
