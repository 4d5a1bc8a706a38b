"""Every bound and every setting of the server and the client, with its unit, its default and the reason for it.

A bound that nobody has a reason to change is no setting: it is a constant, beside the code that keeps to it. A size
has `bytes` in its name; every time is in seconds. The meaning of a field and the values that it takes stand in its
type, and nowhere else: validation, the options of `execsrv serve`, the tables of the documentation and a JSON schema
are made from it. Nothing is validated here: `execsrv serve` does that with its options, and a program that makes its
own `ServerConfig` has its type checker.
"""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated, Literal

from msgspec import Meta

from execsrv._setting_units import CONNECTIONS, DOORS, ENDINGS, FILES, MESSAGES, STREAMS, Bytes, FilePath, Seconds, Uid
from execsrv._setting_units import GIB as GIB
from execsrv._setting_units import KIB as KIB
from execsrv._setting_units import MIB as MIB
from execsrv.limits.budgets import BudgetSettings
from execsrv.limits.commands import CommandSettings
from execsrv.limits.connections import ConnectionSettings
from execsrv.limits.doors import DoorSettings
from execsrv.limits.endings import EndingSettings
from execsrv.limits.files import FileSettings
from execsrv.limits.group import Settings, group
from execsrv.limits.http import HttpSettings
from execsrv.limits.identity import IdentitySettings
from execsrv.limits.operations import OperationSettings
from execsrv.limits.streams import StreamSettings


@group(frozen=True, kw_only=True)
class Limits(Settings):
    """The bounds that either side of a channel has. Use `ClientConfig` or `ServerConfig`."""

    handshake_timeout: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(gt=0, description="How long connecting, a websocket's handshake, and `initialize` may take, each."),
    ] = 10.0

    max_message_bytes: Annotated[
        Bytes,
        MESSAGES,
        Meta(ge=KIB, description="The largest message taken in. A larger one closes the channel: its id is not known."),
    ] = 64 * MIB

    flush_timeout: Annotated[
        Seconds,
        ENDINGS,
        Meta(ge=0, description="At a channel's end: how long the last messages may take to leave."),
    ] = 0.5


@group(frozen=True, kw_only=True)
class ClientConfig(Limits):
    """All that can be set of a client. Frozen: make another one with `dataclasses.replace`."""

    window_bytes: Annotated[
        Bytes,
        STREAMS,
        Meta(
            ge=1,
            description="Output of one session that waits for its reader in the client. Beyond it that session blocks,"
            " and no other.",
        ),
    ] = 1 * MIB

    max_read_bytes: Annotated[
        Bytes,
        FILES,
        Meta(
            ge=1,
            description="The most that one `read` of a file of the server returns; a larger file is read in pieces."
            " And the most by which a file may grow while `get` or `put` reads it.",
        ),
    ] = 512 * MIB

    max_tree_entries: Annotated[
        int,
        FILES,
        Meta(ge=1, le=2**53, description="Files, links and directories of one `get`. A larger tree is refused."),
    ] = 10_000_000

    encoding: Annotated[
        Literal["msgpack", "json"],
        MESSAGES,
        Meta(
            description="How messages are written, if the server has that too: msgpack needs less of both processors;"
            " JSON can be read on its way."
        ),
    ] = "msgpack"

    ping_interval: Annotated[
        Seconds, CONNECTIONS, Meta(gt=0, description="How often a websocket's server is asked for a sign of life.")
    ] = 10.0

    ping_timeout: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(gt=0, description="How long the server may leave that unanswered. Then the connection is lost."),
    ] = 10.0

    server_uids: Annotated[
        tuple[Uid, ...],
        DOORS,
        Meta(
            description="The users whose servers are trusted on a unix socket, and on the loopback without TLS,"
            " beside this one and root."
        ),
    ] = ()

    allow_plain_network: Annotated[
        bool,
        DOORS,
        Meta(
            description="Whether a token goes to another machine by `ws://` too. There is no TLS: whoever is on the way"
            " reads it, and reads and changes commands and output. For a network that is one's own."
        ),
    ] = False

    tls_ca_file: Annotated[
        FilePath,
        DOORS,
        Meta(description="The authorities whose servers are trusted by `wss://`, in PEM. Default: the machine's."),
    ] = ""

    tls_certificate_file: Annotated[
        FilePath,
        DOORS,
        Meta(description="The certificate that is shown to a server of `wss://` that asks for one, in PEM."),
    ] = ""

    tls_key_file: Annotated[
        FilePath,
        DOORS,
        Meta(description="Its private key, in PEM, without a passphrase. Default: it is in the certificate's file."),
    ] = ""

    leave_timeout: Annotated[
        Seconds,
        ENDINGS,
        Meta(ge=0, description="On leaving the block of a session: how long its end is waited for."),
    ] = 2.0


@group(frozen=True, kw_only=True)
class ServerConfig(
    OperationSettings,
    BudgetSettings,
    EndingSettings,
    HttpSettings,
    FileSettings,
    CommandSettings,
    StreamSettings,
    DoorSettings,
    IdentitySettings,
    ConnectionSettings,
    Limits,
):
    """All that can be set of a server, beside `Limits`. Frozen: make another one with `dataclasses.replace`.

    The fields are in the modules beside this one, by group. The last base has the first ones.
    """


DEFAULTS = ServerConfig()
"""The settings of a server that is given none."""

CLIENT_DEFAULTS = ClientConfig()
"""The settings of a client that is given none."""
