"""A stand-in for the API of Kubernetes, as far as it lists pods: a real HTTP server, and no cluster.

It checks the token of the account, knows selectors of the form `a=b,c=d`, and gives lists in pages of two.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PAGE = 2


def pod(address: str | None, *, ready: bool = True, ending: bool = False, **labels: str) -> dict[str, Any]:
    """A pod as the API describes it, with some of the much that nobody here asks for."""
    metadata: dict[str, Any] = {"name": f"pod-{address}", "uid": "1", "labels": labels}
    if ending:
        metadata["deletionTimestamp"] = "2026-11-29T12:00:00Z"
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]
    status = {"phase": "Running", "conditions": conditions} | ({} if address is None else {"podIP": address})
    return {"metadata": metadata, "spec": {"containers": []}, "status": status}


class StandIn(ThreadingHTTPServer):
    """The API. `pods` are those of the namespace "jobs", `token` is that of the one account, None for any."""

    daemon_threads = True

    def __init__(self, certificate: str | None, token: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pods: list[dict[str, Any]] = []
        self.token = token
        self.asked: list[str] = []
        self.prefix = ""
        """The path that it is behind."""
        self.drips = False
        """True to answer a byte at a time, for ever."""
        self.hung_up = threading.Event()
        """Set when one to whom it drips has hung up."""
        scheme = "http"
        if certificate is not None:
            scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{scheme}://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        api = self.server
        api.asked.append(self.path)
        if api.drips:
            self._drip()
            return
        asked = parse_qs(urlsplit(self.path).query)
        if api.token is not None and self.headers["Authorization"] != f"Bearer {api.token}":
            self._answer(401, {"kind": "Status", "message": "Unauthorized"})
        elif urlsplit(self.path).path.removeprefix(api.prefix) != "/api/v1/namespaces/jobs/pods":
            self._answer(403, {"kind": "Status", "message": "pods is forbidden in this namespace"})
        else:
            wanted = dict(each.split("=") for each in asked["labelSelector"][0].split(","))
            pods = [pod for pod in api.pods if wanted.items() <= pod["metadata"]["labels"].items()]
            begin = int(asked.get("continue", ["0"])[0])
            metadata = {"resourceVersion": "7"}
            if begin + PAGE < len(pods):
                metadata["continue"] = str(begin + PAGE)
            self._answer(200, {"kind": "PodList", "metadata": metadata, "items": pods[begin : begin + PAGE]})

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b" ")
                time.sleep(0.01)
        except OSError:
            self.server.hung_up.set()

    def _answer(self, status: int, said: dict[str, Any]) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def kubernetes_api(certificate: str | None = None, token: str | None = None) -> Iterator[StandIn]:
    """Serve the stand-in in a block."""
    with StandIn(certificate, token) as api:
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield api
        finally:
            api.shutdown()
            thread.join()
