"""The settings of a server for who may come in, and by which protection on the way."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import DOORS, NEEDS_RESTART, FilePath
from execsrv.limits.group import Settings, group


@group(frozen=True, kw_only=True)
class DoorSettings(Settings):
    """A part of `ServerConfig`."""

    tls_certificate_file: Annotated[
        FilePath,
        DOORS,
        Meta(
            description="The certificate for `wss://`, in PEM, with those between it and its authority. Read again at"
            " SIGHUP."
        ),
    ] = ""

    tls_key_file: Annotated[
        FilePath,
        DOORS,
        Meta(description="Its private key, in PEM, without a passphrase. Default: it is in the certificate's file."),
    ] = ""

    tls_client_ca_file: Annotated[
        FilePath,
        DOORS,
        Meta(
            description="The authorities of clients, in PEM. A client that shows a certificate of theirs is who it"
            " says, and needs no token."
        ),
    ] = ""

    tls_clients_file: Annotated[
        FilePath,
        DOORS,
        Meta(
            description="Who of those may come in, and in which role: in each line a role (`owner`, `writer`, `viewer`,"
            " `health`), a space, and the name in the certificate. Default: all, as owners."
        ),
    ] = ""

    allow_plain_network: Annotated[
        bool,
        DOORS,
        NEEDS_RESTART,
        Meta(
            description="Whether `ws://` may listen elsewhere than on the loopback. There is no TLS: whoever is on the"
            " way reads and changes commands, output and tokens. For a proxy in front, or a network that is one's own."
        ),
    ] = False

    allow_anybody: Annotated[
        bool,
        DOORS,
        Meta(
            description="Whether a server may listen elsewhere than on the loopback with no token and no certificate of"
            " a client asked for: whoever reaches the port runs commands as the server's user."
        ),
    ] = False

    web: Annotated[
        bool,
        DOORS,
        NEEDS_RESTART,
        Meta(
            description="Whether browsers that ask `ws://` or `wss://` for a page get one: the connections and sessions"
            " that a token may see, live, and a terminal. It needs a `token_file` or a `bearer_secret_file`, since a"
            " page is let in by its token alone."
        ),
    ] = False
