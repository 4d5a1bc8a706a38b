"""Who a peer is: by a token that it presents, a certificate that it shows, or the user that the machine says it is.

A token goes before everything else, and one that is wrong is refused whoever the peer is: it believes in it. What the
peer may do is the role of its principal; how many there may be is not asked here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial

import trio

from execsrv._doors import peers
from execsrv._doors.peers import Commands, Peer
from execsrv._doors.principal import Identify, Principal, Shown, nothing_shown
from execsrv._threads import run_in_thread
from execsrv.errors import BusyError, UnauthorizedError
from execsrv.limits import ServerConfig
from execsrv.protocol.roles import Role

_MOST_LOOKS = 4
"""Peers that are looked up at once. They come from this machine, and each is looked at for less than a millisecond."""

FindToken = Callable[[str], Principal]
"""Returns whose token it is. Raises `UnauthorizedError` for one that is wrong, or not any more right."""

ANYBODY = Principal("anybody", Role.OWNER)
"""Whoever reaches a server that asks nobody."""


class Doorkeeper:
    """Says of every channel of one server who opened it."""

    def __init__(self, commands: Commands, find_token: FindToken, config: Callable[[], ServerConfig]) -> None:
        """`config` gives the settings of the moment."""
        self._commands = commands
        self._find_token = find_token
        self._config = config
        self._threads = trio.CapacityLimiter(_MOST_LOOKS)
        self._turns = trio.Semaphore(_MOST_LOOKS)
        self._has_looked = False  # the first time, the kernel may have to load a module

    def __repr__(self) -> str:
        return f"<Doorkeeper looking at {self._threads.borrowed_tokens}>"

    async def look(self, stream: trio.SocketStream) -> Peer:
        """Return who is at the other end of a stream, as the machine knows it. Cancelling stops waiting for it."""
        if self._has_looked or stream.socket.family == socket.AF_UNIX:
            peer = peers.look_now(stream.socket, self._commands, partial(_is_let_in, config=self._config()))
            if peer is not None:
                return peer
        async with self._turns:  # before it takes a descriptor: there may be few of them, and many who wait
            self._has_looked = True
            return await self._look(stream)

    async def _look(self, stream: trio.SocketStream) -> Peer:
        try:
            # A descriptor of its own: this one may be closed, and its number another's, while the thread still asks.
            taken = [socket.socket(fileno=os.dup(stream.socket.fileno()))]
        except OSError as error:
            return Peer(None, f"it cannot be looked up: {error.strerror}")

        config = self._config()

        def look() -> Peer:
            with taken.pop() as other:
                return peers.look(other, self._commands, partial(_is_let_in, config=config))

        try:
            return await run_in_thread(look, self._threads)
        except BusyError as error:
            return Peer(None, f"it cannot be looked up: {error}")
        except OSError as error:  # the machine is out of something
            return Peer(None, f"it cannot be looked up: {error.strerror}")
        finally:
            for left in taken:  # no thread has taken it
                left.close()

    def identify(self, peer: Peer, token: str | None, shown: Shown = nothing_shown) -> Principal:
        """Return who a peer is that presents a token, or none, and may have shown a certificate.

        Raises `UnauthorizedError`, which says why a peer without a token needs one.
        """
        if token is not None:
            return self._find_token(token)
        if (principal := shown()) is not None:
            return principal
        config = self._config()
        if peer.uid is not None and not peer.is_ours and _is_let_in(peer.uid, config):
            return Principal(f"uid {peer.uid}", Role.OWNER)
        if config.allow_anybody:
            return ANYBODY
        raise UnauthorizedError(f"missing websocket bearer token: {_why_refused(peer, config)}")

    def identify_first(self, peer: Peer, token: str | None, shown: Shown = nothing_shown) -> Identify:
        """Return what tells who a peer is that has said it already: another token may still say that it is another one.

        It is asked again, since what let it in may be revoked before it says `initialize`. Raises `UnauthorizedError`.
        """
        self.identify(peer, token, shown)
        return lambda later: self.identify(peer, token if later is None else later, shown)

    def identify_later(self, peer: Peer, shown: Shown = nothing_shown) -> Identify:
        """Return what tells who a peer is as soon as it says `initialize`, perhaps with a token."""
        return partial(self.identify, peer, shown=shown)

    def identify_page(self, token: str | None) -> Principal:
        """Return who has opened a page of ours, by the token in `initialize` alone. Raises `UnauthorizedError`.

        A page that is told there why it is refused can tell a wrong token from a server that is out of reach: of the
        answer to an upgrade, a browser says nothing.
        """
        if token is None:
            raise UnauthorizedError("missing websocket bearer token: a page needs one, whoever has the browser")
        return self._find_token(token)


def _is_let_in(uid: int, config: ServerConfig) -> bool:
    return uid in config.allow_uids or (config.allow_same_user and uid in (os.geteuid(), 0))


def _why_refused(peer: Peer, config: ServerConfig) -> str:
    if peer.uid is None:
        return f"nobody knows whose this connection is, since {peer.why}"
    if peer.is_ours:
        return "it comes from a command of this server, or from a process that is gone"
    if not config.allow_same_user:
        return f"uid {peer.uid} is not in allow_uids, and allow_same_user is off"
    return f"uid {peer.uid} is neither the server's user nor in allow_uids"
