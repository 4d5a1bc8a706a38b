"""Servers on the nodes of a Ray cluster, found by their pool through Ray, and reached without it.

    with start_servers() as servers:
        async with execsrv.Pool(servers.directory) as pool: ...

One actor, the keeper, has a name. It keeps an actor on each node, which owns one server by its lifeline: the server
ends when that actor does, by SIGKILL too, and everything that the server has started ends with it. Ray moves URLs and
tokens alone; commands and their output go from client to server.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import ray

from execsrv.adapters.ray_actors import Keeper
from execsrv.directories import Endpoint
from execsrv.errors import ExecsrvError

NAME = "execsrv"
"""The name of the keeper, where no other is given, and the namespace of all keepers."""

_ANSWER_SECONDS = 10.0
_START_SECONDS = 60.0


class Servers:
    """The servers of a cluster, for a block or until `stop`. `directory` is for a `Pool`.

    Servers that are not detached end when nobody has this object any more.
    """

    def __init__(self, keeper: Any, name: str) -> None:
        self._keeper = keeper
        self.name = name
        self.directory = RayDirectory(name)

    def __repr__(self) -> str:
        return f"<Servers ray://{self.name}>"

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the servers, and everything that they have started."""
        ray.kill(self._keeper)


class RayDirectory:
    """The servers that a keeper keeps, by its name. It connects to the cluster at the first question.

    It can be pickled, and given to actors and tasks.
    """

    def __init__(self, name: str = NAME) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"ray://{self.name}"

    def __call__(self) -> list[Endpoint]:
        """Return the servers that answer. It blocks. Raises `ExecsrvError`."""
        keeper = _keeper(self.name)
        try:
            found = ray.get(keeper.endpoints.remote(), timeout=_ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            raise ExecsrvError(f"cannot ask for the servers `{self!r}`: {_first_line(error)}") from error
        return [Endpoint(**facts) for facts in found]


def start_servers(
    name: str = NAME,
    *,
    listen: str = "ws://{node}:0",
    options: Sequence[str] = (),
    detached: bool = False,
    timeout: float = _START_SECONDS,
) -> Servers:
    """Start a server on every node of the Ray cluster, and on those that come later. Returns when all nodes have one.

    It blocks: where an event loop runs, call it in a thread. `{node}` in `listen` is the address of the node; `options`
    are further words of `execsrv serve`. Off the loopback a server takes nobody without TLS: `listen="wss://{node}:0"`,
    with `--tls-certificate-file` and `--tls-key-file`, which each node has, or `--allow-plain-network`, where the
    network is your own, of which whoever finds the servers is told. Each server has a token of its own, which whoever
    is in the cluster may ask for.

    A server has the labels of its node, and what it has of each resource, such as `{"GPU": "8"}`. It runs commands in
    the environment of the node, as the user of the node, and takes nothing of what Ray counts.

    They live as long as the `Servers` is kept, and end with whoever has called this: driver, actor or task. If
    `detached`, they live until `stop_servers`.

    Raises `ExecsrvError`, with what a server said, and where `timeout` is over. Then there are none.
    """
    _connect()
    lifetime = "detached" if detached else None
    actor = ray.remote(Keeper).options(
        name=name, namespace=NAME, lifetime=lifetime, num_cpus=0, max_restarts=-1, max_concurrency=8
    )
    try:
        keeper = actor.remote(listen, tuple(options))
    except ValueError as error:
        raise ExecsrvError(f"cannot start servers `ray://{name}`: there are some of that name") from error
    try:
        failure = ray.get(keeper.wait_ready.remote(timeout), timeout=timeout + _ANSWER_SECONDS)
    except ray.exceptions.RayError as error:
        failure = _first_line(error)
    if failure:
        ray.kill(keeper)
        raise ExecsrvError(f"cannot start servers `ray://{name}`: {failure}")
    return Servers(keeper, name)


def stop_servers(name: str = NAME) -> None:
    """End the servers of that name, whoever has started them. Raises `ExecsrvError` where there are none."""
    ray.kill(_keeper(name))


def _keeper(name: str) -> Any:
    """Return the keeper of that name. Raises `ExecsrvError`."""
    _connect()
    try:
        return ray.get_actor(name, namespace=NAME)
    except ValueError as error:
        raise ExecsrvError(f"there are no servers `ray://{name}` in this Ray cluster") from error


def _connect() -> None:
    """Connect to the cluster that this machine is in, unless that is done."""
    if ray.is_initialized():
        return
    try:
        ray.init(address="auto", namespace=NAME, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError) as error:
        raise ExecsrvError(f"cannot reach a Ray cluster: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
