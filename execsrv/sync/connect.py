# Written by tests/facades.py from execsrv.client.connect: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client in plain code. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from execsrv._portal.blocking import Facade, entered
from execsrv.client.connect import connect as trio_connect
from execsrv.client.connect import connect_unix as trio_connect_unix
from execsrv.client.connect import connect_websocket as trio_connect_websocket
from execsrv.client.connect import launch as trio_launch
from execsrv.client.greeting_wishes import Kept
from execsrv.client.keywords import RunKeywords, StartKeywords
from execsrv.client.parameters import Data, Path
from execsrv.client.result import Result
from execsrv.limits import CLIENT_DEFAULTS, ClientConfig
from execsrv.protocol import SizePolicy

if TYPE_CHECKING:
    from execsrv.sync.client import Client


def connect(
    url: str,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    reconnect: float = 0,
    name: str | None = None,
    keep: Kept = None,
    resume: str | None = None,
    size_policy: SizePolicy = "owner",
    bring: bool = True,
    config: ClientConfig = CLIENT_DEFAULTS,
) -> Client:
    """Connect to a server by its URL.

    `ws://HOST:PORT`, `wss://HOST:PORT` and `unix://PATH` are those of `connect_websocket` and `connect_unix`.
    `exec:COMMAND` is a command that speaks the protocol on its stdin and stdout, as for `launch`.

    `ssh://[USER@]HOST[:PORT][/DIRECTORY]`, `docker://CONTAINER`, `podman://CONTAINER` and
    `kubectl://[NAMESPACE/]POD[/CONTAINER]` start a server there, by the program of that name, and end it with the
    block. If there is no execsrv there, it is brought along for that time, provided that there is a Python of the same
    version and kind as ours; `bring=False` prevents that.

    With `reconnect` a lost connection is taken up again within that many seconds, and nothing is lost. A server that is
    started for the connection waits that long for it, and still ends with the block. Without `reconnect`, that server
    ends with the program. The command of `exec:` is run again, and has to lead to the same server, as `execsrv bridge`
    does.

    `Client.connections` lists the `name`, and `Client.join` takes it. With `keep` the connection and its commands go on
    when this block is left, or the network fails: for that many seconds, or with "untilIdle" as long as anything runs
    or can still be read. `resume` takes up such a connection, by its name, as its owner. `size_policy` says whose size
    a terminal has if several look at it: that of the "owner", the "smallest", or the "latest" that was set.

    Raises `ConnectionFailedError`, and `InvalidListenURLError` for any other kind of URL.
    """
    return entered(
        Facade._kinds,
        partial(
            trio_connect,
            url,
            token=token,
            token_file=token_file,
            reconnect=reconnect,
            name=name,
            keep=keep,
            resume=resume,
            size_policy=size_policy,
            bring=bring,
            config=config,
        ),
    )


def connect_unix(
    path: str | os.PathLike[str],
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    reconnect: float = 0,
    name: str | None = None,
    keep: Kept = None,
    resume: str | None = None,
    size_policy: SizePolicy = "owner",
    config: ClientConfig = CLIENT_DEFAULTS,
) -> Client:
    """Connect to a server's unix socket. A lost connection is taken up again within `reconnect` seconds.

    Users other than the server's own need a token; it is found as by `connect_websocket`.

    The server has to be this user's, root's or one of `config.server_uids`, and so has the directory of the socket.

    Raises `ConnectionFailedError`.
    """
    return entered(
        Facade._kinds,
        partial(
            trio_connect_unix,
            path,
            token=token,
            token_file=token_file,
            reconnect=reconnect,
            name=name,
            keep=keep,
            resume=resume,
            size_policy=size_policy,
            config=config,
        ),
    )


def connect_websocket(
    url: str,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    reconnect: float = 0,
    name: str | None = None,
    keep: Kept = None,
    resume: str | None = None,
    size_policy: SizePolicy = "owner",
    config: ClientConfig = CLIENT_DEFAULTS,
) -> Client:
    """Connect to a server's websocket. `token`, or that in `token_file`, goes into the `Authorization` header.

    If neither is given, the token comes from `EXECSRV_TOKEN`, or from the file that `EXECSRV_TOKEN_FILE` names.
    `EXECSRV_TOKEN` is taken out of the environment. A file is read again whenever the connection is taken up again.

    When the connection is lost, try for `reconnect` seconds to take it up again. The server must keep it for that long
    (`--resume-grace`); then nothing is lost, and calls and readers do not notice.

    A server on this machine, without TLS, has to be this user's, root's or one of `config.server_uids`, as far as that
    can be known. With TLS, `config` has the authorities that are trusted. Without TLS, a token goes to another machine
    only with `config.allow_plain_network`.

    Raises `ConnectionFailedError`, also if connecting takes longer than `config.handshake_timeout`.
    """
    return entered(
        Facade._kinds,
        partial(
            trio_connect_websocket,
            url,
            token=token,
            token_file=token_file,
            reconnect=reconnect,
            name=name,
            keep=keep,
            resume=resume,
            size_policy=size_policy,
            config=config,
        ),
    )


def launch(
    command: Sequence[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    config: ClientConfig = CLIENT_DEFAULTS,
) -> Client:
    """Start a server and speak with it: any command that speaks the protocol on its stdin and stdout.

    Without a command it is `execsrv serve`, of this Python and on this machine. An example for another one is `["ssh",
    "host", "execsrv", "serve"]`. The server's stderr is this program's. It runs in a session of its own, so that a
    Ctrl-C in this program's terminal does not reach it. Lines that it prints before it speaks, such as a greeting, are
    skipped.

    Leaving the block closes the server's stdin, which ends it; if it has not ended within 5 s, it is killed. Raises
    `ConnectionFailedError`, which says what the server printed or how it ended.
    """
    return entered(Facade._kinds, partial(trio_launch, command, env=env, config=config))


@overload
def run(
    argv: Sequence[Path],
    *,
    input: Data | str | None = None,
    text: Literal[True],
    encoding: str | None = None,
    errors: str | None = None,
    **options: Unpack[RunKeywords],
) -> Result[str]: ...
@overload
def run(
    argv: Sequence[Path],
    *,
    input: Data | None = None,
    text: Literal[False] | None = None,
    **options: Unpack[RunKeywords],
) -> Result[bytes]: ...
@overload
def run(
    argv: Sequence[Path],
    *,
    input: Data | str | None = None,
    text: Literal[True] | None = None,
    encoding: str,
    errors: str | None = None,
    **options: Unpack[RunKeywords],
) -> Result[str]: ...
@overload
def run(
    argv: Sequence[Path],
    *,
    input: Data | str | None = None,
    text: Literal[True] | None = None,
    encoding: None = None,
    errors: str,
    **options: Unpack[RunKeywords],
) -> Result[str]: ...
@overload
def run(
    argv: Sequence[Path], *, input: Data | str | None = None, text: bool, **options: Unpack[RunKeywords]
) -> Result[Any]: ...
def run(
    argv: Sequence[Path],
    *,
    input: Data | str | None = None,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    timeout: float | None = None,
    check: bool = False,
    max_bytes: int | None = None,
    truncate: bool = False,
    **options: Unpack[StartKeywords],
) -> Result[Any]:
    """Run a command on a server that is started for it, and return its result, as `Client.run` does.

    To start the server takes longer than a short command does: for more than one, open a client.
    """
    with launch() as client:
        return client._wait(
            "run",
            argv,
            input=input,
            text=text,
            encoding=encoding,
            errors=errors,
            timeout=timeout,
            check=check,
            max_bytes=max_bytes,
            truncate=truncate,
            **options,
        )
