"""A directory by the API of Kubernetes: the pods with some labels that are ready.

It asks for a list of pods and nothing else, so an account that may `list` pods in the namespace is enough. In a pod it
finds the API, its certificate and its account where Kubernetes puts them; elsewhere `kubectl proxy` gives a URL.
"""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import h11
import msgspec
import trio
from msgspec import Struct

from execsrv._threads import run_with_tls
from execsrv._wire.unreachable import why_unreachable
from execsrv.directories.endpoint import Endpoint
from execsrv.errors import ConnectionFailedError, InvalidConfigError

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_TIMEOUT_SECONDS = 8.0
"""Time for all that is asked and answered for one list."""

_PODS_OF_A_PAGE = 500
_MOST_BYTES = 64 << 20
_READ_BYTES = 1 << 16


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
        """Return the servers. Cancelling hangs up.

        Raises `ConnectionFailedError`, and `InvalidConfigError` where there is no cluster, or no namespace.
        """
        with trio.move_on_after(_TIMEOUT_SECONDS):
            return await self._servers(await run_with_tls(self._find_api))
        raise ConnectionFailedError(f"the Kubernetes API has not answered within {_TIMEOUT_SECONDS:g} s")

    async def _servers(self, api: _Api) -> list[Endpoint]:
        target = f"{api.url.path.rstrip('/')}/api/v1/namespaces/{quote(api.namespace, safe='')}/pods"
        asked = {"labelSelector": self._selector, "limit": str(_PODS_OF_A_PAGE)}
        servers: list[Endpoint] = []
        while True:
            answer = _pods(*await _ask(api, f"{target}?{urlencode(asked)}"))
            servers += [self._endpoint(pod) for pod in answer.items if pod.takes_connections]
            if not answer.metadata.next_page:
                return servers
            asked["continue"] = answer.metadata.next_page

    def _endpoint(self, pod: _Pod) -> Endpoint:
        return Endpoint(f"{self._scheme}://{_host(pod.status.pod_ip or '')}:{self._port}", labels=pod.metadata.labels)

    def _find_api(self) -> _Api:
        """Read what there is to know of the API: each time, since a token is renewed."""
        namespace = self._namespace or self._read("namespace")
        if not namespace:
            raise InvalidConfigError("no namespace is known here: give `namespace`, or run in a pod")
        url = self._api
        if url is None:
            host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
            if not host:
                raise InvalidConfigError("no Kubernetes is known here: give `api`, or run in a pod")
            url = f"https://{_host(host)}:{port or 443}"
        try:
            parts = urlsplit(url)
            is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of a port or an address
            is_one = False
        if not is_one:
            raise InvalidConfigError(f"cannot ask a Kubernetes API at `{url}`: expected `http[s]://HOST[:PORT][/PATH]`")
        if parts.scheme == "http":
            return _Api(parts, namespace)
        authority = f"{self._account}/ca.crt"
        context = ssl.create_default_context(cafile=authority if os.path.exists(authority) else None)
        return _Api(parts, namespace, context, self._read("token"))

    def _read(self, name: str) -> str | None:
        try:
            with open(f"{self._account}/{name}") as file:
                return file.read().strip()
        except FileNotFoundError:
            return None


class _Api(NamedTuple):
    """Where the API is, and how to come in. The token goes nowhere without TLS."""

    url: SplitResult
    namespace: str
    context: ssl.SSLContext | None = None
    token: str | None = None

    @property
    def host(self) -> str:
        return self.url.hostname or ""

    @property
    def port(self) -> int:
        return self.url.port or (80 if self.context is None else 443)


async def _ask(api: _Api, target: str) -> tuple[h11.Response, bytes]:
    """Ask the API for something, and return the answer. Raises `ConnectionFailedError`."""
    stream: trio.abc.Stream | None = None
    try:
        stream = plain = await trio.open_tcp_stream(api.host, api.port)
        if api.context is not None:
            stream = trio.SSLStream(plain, api.context, server_hostname=api.host, https_compatible=True)
        return await _exchange(stream, api, target)
    except (OSError, trio.BrokenResourceError, h11.ProtocolError) as error:
        why = "it does not speak HTTP" if isinstance(error, h11.ProtocolError) else why_unreachable(error)
        raise ConnectionFailedError(f"cannot ask the Kubernetes API at {api.host}:{api.port}: {why}") from error
    finally:
        if stream is not None:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)


async def _exchange(stream: trio.abc.Stream, api: _Api, target: str) -> tuple[h11.Response, bytes]:
    """Raises `h11.ProtocolError`, and what the stream raises."""
    headers = [("Host", api.url.netloc.rpartition("@")[2]), ("Accept", "application/json"), ("Connection", "close")]
    if api.token is not None:
        headers.append(("Authorization", f"Bearer {api.token}"))
    talk = h11.Connection(h11.CLIENT)
    question = h11.Request(method="GET", target=target, headers=headers)
    await stream.send_all((talk.send(question) or b"") + (talk.send(h11.EndOfMessage()) or b""))
    response: h11.Response | None = None
    content = bytearray()
    while len(content) <= _MOST_BYTES:
        match talk.next_event():
            case h11.NEED_DATA:
                talk.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
            case h11.Response() as response:
                pass
            case h11.Data() as data:
                content += data.data
            case h11.EndOfMessage():
                break
    assert response is not None
    return response, bytes(content)


def _pods(response: h11.Response, content: bytes) -> _Pods:
    """Return the list of an answer. Raises `ConnectionFailedError` for one that is none."""
    if response.status_code != 200:
        reason = response.reason.decode(errors="replace")
        said = f"{response.status_code} {reason}: {content[:300].decode(errors='replace')}"
        raise ConnectionFailedError(f"the Kubernetes API lists no pods: {said}")
    try:
        return msgspec.json.decode(content, type=_Pods)
    except msgspec.MsgspecError as error:
        raise ConnectionFailedError(f"the Kubernetes API has answered with no list of pods: {error}") from None


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address
