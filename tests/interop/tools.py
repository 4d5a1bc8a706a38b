"""A tool server (MCP) with one tool, `add`: a program of its own, `tools.py stdio` or `tools.py http`.

Over HTTP it listens on a free loopback port and prints that; it answers with JSON and streams nothing. It needs the
standard library only, since it runs where the commands run.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOOL = {
    "name": "add",
    "description": "adds two numbers",
    "inputSchema": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
}


def answer(message: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to a message; None where it asks for none."""
    params = message.get("params") or {}
    match message.get("method"):
        case "initialize":
            info = {"name": "tools", "version": "1"}
            version = params["protocolVersion"]
            result: dict[str, Any] = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            result = {"tools": [TOOL]}
        case "tools/call":
            arguments = params["arguments"]
            result = {"content": [{"type": "text", "text": f"the sum is {arguments['a'] + arguments['b']}"}]}
        case _ if "id" in message:
            error = {"code": -32601, "message": "unknown method"}
            return {"jsonrpc": "2.0", "id": message["id"], "error": error}
        case _:
            return None
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


class Handler(BaseHTTPRequestHandler):
    """One message in each POST."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        reply = answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self._send(202 if reply is None else 200, b"" if reply is None else json.dumps(reply).encode())

    def do_GET(self) -> None:
        self._send(405, b"")

    def do_DELETE(self) -> None:
        self._send(200, b"")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if body:
            self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def main() -> None:
    if sys.argv[1] == "http":
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        print(server.server_port, flush=True)
        server.serve_forever()
    for line in sys.stdin:
        reply = answer(json.loads(line))
        if reply is not None:
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
