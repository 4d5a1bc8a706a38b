"""A directory by the API of Kubernetes: the pods with some labels that are ready.

It asks for a list of pods and nothing else, so an account that may `list` pods in the namespace is enough. In a pod it
finds the API, its certificate and its account where Kubernetes puts them; elsewhere `kubectl proxy` gives a URL.
"""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Iterator
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct

from execsrv._threads import run_with_tls
from execsrv.directories.endpoint import Endpoint
from execsrv.errors import ConnectionFailedError, InvalidConfigError

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_TIMEOUT_SECONDS = 8.0
_PODS_OF_A_PAGE = 500
_MOST_BYTES = 64 << 20


class _Condition(Struct, frozen=True):
    type: str
    status: str


class _Metadata(Struct, frozen=True, rename="camel"):
    labels: dict[str, str] = {}
    deletion_timestamp: str | None = None


class _Status(Struct, frozen=True):
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    conditions: list[_Condition] = []


class _Pod(Struct, frozen=True):
    metadata: _Metadata
    status: _Status = _Status()

    @property
    def takes_connections(self) -> bool:
        """True for one that is ready, and is not being ended."""
        ready = any(each.type == "Ready" and each.status == "True" for each in self.status.conditions)
        return ready and self.status.pod_ip is not None and self.metadata.deletion_timestamp is None


class _ListMetadata(Struct, frozen=True, rename={"next_page": "continue"}):
    next_page: str = ""


class _Pods(Struct, frozen=True):
    items: list[_Pod]
    metadata: _ListMetadata = _ListMetadata()


class KubernetesDirectory:
    """A directory for `Pool`: a server in each pod that the `selector` chooses, once the pod is ready.

    `selector` is a label selector, such as "app=execsrv". `namespace` is that of this pod unless it is given. `api` is
    the URL of the API where it is not that of this pod's cluster, such as "http://127.0.0.1:8001" behind
    `kubectl proxy`. The labels of a server are those of its pod.
    """

    def __init__(
        self,
        selector: str,
        *,
        namespace: str | None = None,
        port: int = 8765,
        scheme: str = "ws",
        api: str | None = None,
        account: str | os.PathLike[str] = _ACCOUNT,
    ) -> None:
        self._selector = selector
        self._namespace = namespace
        self._port = port
        self._scheme = scheme
        self._api = api
        self._account = os.fspath(account)

    def __repr__(self) -> str:
        return f"<KubernetesDirectory {self._namespace or ''}/{self._selector}>"

    async def __call__(self) -> list[Endpoint]:
        """Return the servers.

        Raises `ConnectionFailedError`, and `InvalidConfigError` where there is no cluster, or no namespace.
        """
        return await run_with_tls(self._servers)

    def _servers(self) -> list[Endpoint]:
        return [
            Endpoint(f"{self._scheme}://{_host(pod.status.pod_ip or '')}:{self._port}", labels=pod.metadata.labels)
            for pod in self._pods()
            if pod.takes_connections
        ]

    def _pods(self) -> Iterator[_Pod]:
        path = f"/api/v1/namespaces/{quote(self._namespace_here(), safe='')}/pods"
        asked = {"labelSelector": self._selector, "limit": str(_PODS_OF_A_PAGE)}
        connection = self._connection()
        try:
            while True:
                answer = self._ask(connection, f"{path}?{urlencode(asked)}")
                yield from answer.items
                if not answer.metadata.next_page:
                    return
                asked["continue"] = answer.metadata.next_page
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, target: str) -> _Pods:
        headers = {"Accept": "application/json"}
        is_private = isinstance(connection, http.client.HTTPSConnection)
        if is_private and (token := self._read("token")) is not None:  # read each time: it is renewed
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            content = response.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            where = f"{connection.host}:{connection.port}"
            raise ConnectionFailedError(f"cannot ask the Kubernetes API at {where}: {error}") from error
        if response.status != 200:
            said = f"{response.status} {response.reason}: {content[:300].decode(errors='replace')}"
            raise ConnectionFailedError(f"the Kubernetes API lists no pods: {said}")
        try:
            return msgspec.json.decode(content, type=_Pods)
        except msgspec.MsgspecError as error:
            raise ConnectionFailedError(f"the Kubernetes API has answered with no list of pods: {error}") from None

    def _connection(self) -> http.client.HTTPConnection:
        api = self._api
        if api is None:
            host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
            if not host:
                raise InvalidConfigError("no Kubernetes is known here: give `api`, or run in a pod")
            api = f"https://{_host(host)}:{port or 443}"
        parts = urlsplit(api)
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        if parts.scheme != "https":
            raise InvalidConfigError(f"cannot ask a Kubernetes API at `{api}`: expected `http://` or `https://`")
        authority = f"{self._account}/ca.crt"
        context = ssl.create_default_context(cafile=authority if os.path.exists(authority) else None)
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS, context=context)

    def _namespace_here(self) -> str:
        namespace = self._namespace or self._read("namespace")
        if not namespace:
            raise InvalidConfigError("no namespace is known here: give `namespace`, or run in a pod")
        return namespace

    def _read(self, name: str) -> str | None:
        try:
            with open(f"{self._account}/{name}") as file:
                return file.read().strip()
        except FileNotFoundError:
            return None


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address
