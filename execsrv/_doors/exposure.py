"""Where a server may listen: elsewhere than on the loopback only behind TLS, and only for those whom it can tell apart.

Pure. Whoever wants it otherwise says so, by the name of what it costs.
"""

from __future__ import annotations

from execsrv._wire.urls import ListenAddress
from execsrv.errors import CannotListenError
from execsrv.limits import ServerConfig

_TLS = ("tls_certificate_file", "tls_key_file", "tls_client_ca_file", "tls_clients_file")
"""Settings that do nothing without TLS. Whoever sets one believes in it."""


def check_exposure(address: ListenAddress, config: ServerConfig) -> None:
    """Raises `CannotListenError` for an address without the protection that it needs, or that the settings promise."""
    if not address.is_secure:
        for name in _TLS:
            if getattr(config, name):
                raise CannotListenError(f"cannot listen on {address}: there is no TLS, yet {name} is set; use `wss://`")
    if address.is_loopback:
        return
    if not address.is_secure and not config.allow_plain_network:
        raise CannotListenError(
            f"cannot listen on {address}: it is not the loopback, and there is no TLS, so that whoever is on the way"
            " reads and changes everything; use `wss://` with a tls_certificate_file, or set allow_plain_network"
        )
    if not asks_who_is_there(config) and not config.allow_anybody:
        raise CannotListenError(
            f"cannot listen on {address}: it is not the loopback, and whoever reaches it would run commands as this"
            " user; set a token_file or a tls_client_ca_file, or allow_anybody"
        )


def check_page(listen: str, config: ServerConfig) -> None:
    """Raises `CannotListenError` for a page that no browser reaches, or that nobody could come in by."""
    if not config.web:
        return
    if listen.startswith("unix:"):
        raise CannotListenError(f"cannot serve a page on {listen}: a browser reaches only `ws://` and `wss://`")
    if not (config.token_file or config.bearer_secret_file):
        raise CannotListenError(
            f"cannot serve a page on {listen}: a page is let in by its token alone; set a token_file, which"
            " `execsrv token new` makes"
        )


def asks_who_is_there(config: ServerConfig) -> bool:
    """Return True where somebody from elsewhere has to prove who it is."""
    return bool(config.token_file or config.bearer_secret_file or config.tls_client_ca_file)
