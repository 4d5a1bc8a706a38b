"""Spans: one for each session, below the client's, with what the command needs to go on with it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv.limits import ServerConfig
from tests.conftest import OpenServer
from tests.peers import ENV, PATIENCE
from tests.test_daemon import EXECSRV
from tests.test_daemon import execsrv as run_execsrv

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

_exporter: Any = None


@pytest.fixture
def spans() -> Iterator[Any]:
    """Gives the spans that have ended. A process has one provider, once and for all."""
    global _exporter
    pytest.importorskip("opentelemetry.sdk", reason="needs execsrv[otel]")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    if _exporter is None:
        _exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
        trace.set_tracer_provider(provider)
    _exporter.clear()
    yield _exporter
    _exporter.clear()


async def ended(spans: Any, count: int) -> list[Any]:
    with trio.fail_after(PATIENCE):
        while len(spans.get_finished_spans()) < count:  # noqa: ASYNC110  # it ends behind the last message
            await trio.sleep(0.01)
    return list(spans.get_finished_spans())


async def test_a_session_is_a_span_below_its_clients(spans: Any, open_server: OpenServer, transport: str) -> None:
    peer = await open_server(transport, ServerConfig(traces=True)).peer()
    argv = ["sh", "-c", "echo $TRACEPARENT; exit 3"]
    await peer.start("a", argv, env={**ENV, "TRACEPARENT": PARENT, "SECRET": "canary"})
    await peer.until_told("a", "closed")
    (span,) = await ended(spans, 1)
    own = peer.output("a", "stdout").decode().strip()
    assert own == f"00-{PARENT[3:35]}-{span.context.span_id:016x}-01"
    assert f"{span.parent.span_id:016x}" == PARENT[36:52]
    assert span.name == "execsrv.session sh"
    facts = dict(span.attributes)
    assert (facts["process.exit.code"], facts["execsrv.reason"], facts["execsrv.stdout.bytes"]) == (3, "exited", 56)
    assert facts["process.pid"] > 0
    assert "canary" not in repr(facts)
    assert "echo" not in repr(facts)


async def test_without_a_parent_it_is_a_trace_of_its_own(spans: Any, open_server: OpenServer) -> None:
    peer = await open_server("memory", ServerConfig(traces=True)).peer()
    for id, sent in (("a", {}), ("b", {"TRACEPARENT": "nonsense"})):
        await peer.start(id, ["sh", "-c", "echo $TRACEPARENT"], env={**ENV, **sent})
        await peer.until_told(id, "closed")
    first, second = await ended(spans, 2)
    assert first.parent is second.parent is None
    for id, span in (("a", first), ("b", second)):
        said = peer.output(id, "stdout").decode().strip()
        assert said.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-0")


async def test_an_exact_environment_is_left_alone(spans: Any, open_server: OpenServer) -> None:
    peer = await open_server("memory", ServerConfig(traces=True)).peer()
    await peer.start("a", ["/usr/bin/env"], kind="prepared", env={"A": "1"})
    await peer.until_told("a", "closed")
    assert peer.output("a", "stdout") == b"A=1\n"
    id = await peer.call("command/exec", {"argv": ["/usr/bin/env"], "cwd": "/", "env": {"A": "1"}, "tty": False})
    await peer.until_told(id["sessionId"], "exited")
    assert peer.output(id["sessionId"], "stdout") == b"A=1\n"
    assert len(await ended(spans, 2)) == 2


async def test_what_went_wrong_is_in_the_span(spans: Any, open_server: OpenServer) -> None:
    peer = await open_server("memory", ServerConfig(traces=True)).peer()
    await peer.refused("process/start", peer.start_params("a", ["no-such-program"]))
    await peer.start("b", ["sleep", "1000"], idleTimeoutMs=50)  # a `timeoutMs` may be over before it is started
    await peer.until_told("b", "closed")
    failed, late = await ended(spans, 2)
    assert (failed.status.status_code.name, failed.status.description) == ("ERROR", "spawnNotFound")
    assert (late.status.status_code.name, late.status.description) == ("ERROR", "idle")
    assert late.attributes["execsrv.reason"] == "idle"


async def test_a_resumed_connection_links_to_what_was_waiting(spans: Any, open_server: OpenServer) -> None:
    server = open_server("unix", ServerConfig(traces=True, resume_grace=600))
    async with server.open_peer() as peer:
        greeting = await peer.handshake()
        await peer.start("a", ["cat"], pipeStdin=True)
        await peer.start("b", ["true"])
        await peer.until_told("b", "closed")
    await ended(spans, 1)
    with trio.fail_after(PATIENCE):
        while True:
            peer = await server.peer(ready=False)
            params = {"clientName": "x", "resumeSessionId": greeting["sessionId"]}
            answer = await peer.answer(await peer.post("initialize", params))
            if "error" not in repr(answer):
                break
    *_, resumed = await ended(spans, 2)
    assert resumed.name == "execsrv.resume"
    (link,) = resumed.links
    await peer.channel.aclose()
    server.shutdown.set()
    last = (await ended(spans, 3))[-1]
    assert last.context.span_id == link.context.span_id


def test_nothing_is_loaded_and_nothing_set_unless_it_is_asked_for() -> None:
    code = (
        "import sys, trio, execsrv\n"
        "async def main():\n"
        "    async with execsrv.connect_in_process() as client:\n"
        "        assert b'TRACEPARENT' not in (await client.run(['env'])).stdout\n"
        "trio.run(main)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "TRACEPARENT"}
    subprocess.run([sys.executable, "-c", code], check=True, env=clean)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run_execsrv("serve", "--listen", f"unix://{tmp_path}/s", "--traces", env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    assert done.stderr.endswith("execsrv: cannot set traces: install execsrv[otel] first (not here)\n")


def test_spans_leave_a_daemon(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs execsrv[otel]")
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        env = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_SERVICE_NAME": "builds",
        }
        argv = [*EXECSRV, "serve", "--listen", f"unix://{tmp_path}/s", "--traces"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env=env, text=True) as server:
            try:
                assert server.stdout is not None
                url = server.stdout.readline().strip()
                said = run_execsrv("run", "--url", url, "sh", "-c", "echo $TRACEPARENT").stdout
                assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]\n", said)
                server.terminate()
                assert server.wait(PATIENCE) == 0
            finally:
                server.kill()
        collector.shutdown()
    sent = b"".join(bodies)
    assert b"execsrv.session sh" in sent
    assert b"builds" in sent


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs execsrv[otel]")
    with socket.create_server(("127.0.0.1", 0)) as collector:
        collector.settimeout(PATIENCE)
        env = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
            "OTEL_BSP_SCHEDULE_DELAY": "3600000",  # nothing leaves before the end
        }
        argv = [*EXECSRV, "serve", "--listen", f"unix://{tmp_path}/s", "--traces"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env=env, text=True) as server:
            try:
                assert server.stdout is not None
                run_execsrv("run", "--url", server.stdout.readline().strip(), "true")
                server.terminate()
                with collector.accept()[0] as sending:
                    sending.settimeout(PATIENCE)
                    assert sending.recv(4) == b"POST"
                    server.terminate()
                    assert server.wait(PATIENCE) == 0
            finally:
                server.kill()
