"""Those who watch over a server: is it alive, is it ready, and what has it done."""

from __future__ import annotations

import os
import re
import resource
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import execsrv
from execsrv import InvalidListenURLError
from execsrv._budget.allowance import CONNECTION_BYTES, KINDS, SESSION_BYTES
from execsrv._doors.metrics import Metric, exposition
from execsrv._server.failures import refused
from execsrv.limits import ServerConfig
from tests.conftest import OpenServer
from tests.peers import PATIENCE
from tests.test_reloading import running

SAMPLE = re.compile(r'execsrv_(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)')


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def ask(port: int, request: str) -> tuple[int, str, str]:
    """Status, headers and body of the answer."""
    with trio.fail_after(PATIENCE):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = b""
            while piece := await stream.receive_some():
                answer += piece
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), head, body


async def numbers(port: int) -> dict[str, float]:
    """Every sample, by name and labels, after a look at the form of it all."""
    status, head, body = await ask(port, "GET /metrics")
    assert status == 200
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    assert f"Content-Length: {len(body.encode())}\r\n" in head
    found, described = dict[str, float](), Counter[str]()
    assert body.endswith("\n")
    for line in body.splitlines():
        if line.startswith("# "):
            described[line.split()[2]] += 1
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert described[f"execsrv_{sample[1]}"] == 2, "help and type come first"
        key = sample[1] + (f"{{{sample[2]}}}" if sample[2] else "")
        assert key not in found
        found[key] = float(sample[3])
    return found


async def test_the_last_descriptor_is_enough_for_who_comes_alone() -> None:
    options = "--listen", "ws://127.0.0.1:0", "--metrics-listen", "http://127.0.0.1:0"
    with running(*options) as daemon:
        told = daemon.until("metrics on http://127.0.0.1:")
        daemon.until("listening on")
        pid, unlimited = daemon.process.pid, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        async with execsrv.connect(daemon.url) as client:
            await client.run(["true"])  # so that the server has opened all that it keeps open
            used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
            free = min(number for number in range(len(used) + 1) if number not in used)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (free + 1, unlimited))
            for url in (daemon.url, told.partition("/metrics")[0]):
                assert (await ask(int(url.rpartition(":")[2]), "GET /livez"))[0] == 200
                while os.path.lexists(f"/proc/{pid}/fd/{free}"):  # noqa: ASYNC110, ASYNC240
                    await trio.sleep(0.01)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (unlimited, unlimited))
        daemon.process.terminate()
        line = ""
        while "ending on SIGTERM" not in line:
            line = await trio.to_thread.run_sync(daemon.until, "")
            assert "ERROR" not in line
            assert "cannot accept a peer yet" not in line  # at which somebody at the door would be hung up on


async def test_metrics_tell_what_was_done(open_server: OpenServer, transport: str) -> None:
    port = free_port()
    server = open_server(transport, ServerConfig(metrics_listen=f"http://127.0.0.1:{port}"))
    refused.clear()
    peer = await server.peer()
    await peer.start("a", ["sh", "-c", "echo out; echo err >&2; exit 3"])
    await peer.until_told("a", "closed")
    await peer.refused("process/start", peer.start_params("b", ["no-such-program"]))
    await peer.start("c", ["sh", "-c", "echo more; sleep 1000"])
    await peer.until_output("c", b"more\n")
    before = await numbers(port)
    assert before[f'info{{version="{execsrv.__version__}"}}'] == before["ready"] == before["connections"] == 1
    assert (before["starts_total"], before["sessions"], before['ends_total{reason="exited"}']) == (2, 1, 1)
    assert before['start_failures_total{kind="spawnNotFound"}'] == 1
    assert before['refusals_total{kind="spawnNotFound",limit=""}'] == 1
    assert (before['output_bytes_total{stream="stdout"}'], before['output_bytes_total{stream="stderr"}']) == (9, 4)
    assert 0 < before['budget_used{limit="held_bytes"}'] < before['budget_limit{limit="held_bytes"}']
    assert before['budget_used{limit="max_sessions"}'] == 1
    held = {kind: before[f'held_bytes{{kind="{kind}"}}'] for kind in KINDS}
    assert sum(held.values()) == before['budget_used{limit="held_bytes"}']
    assert held["connections"] >= CONNECTION_BYTES
    assert held["sessions"] >= SESSION_BYTES
    assert held["files"] == 0
    assert before["resident_memory_bytes"] > 1_000_000
    assert before["retained_output_bytes"] > 0
    await peer.call("process/terminate", {"processId": "c"})
    await peer.until_told("c", "closed")
    after = await numbers(port)
    assert (after["sessions"], after['ends_total{reason="terminated"}']) == (0, 1)
    assert after['output_bytes_total{stream="stdout"}'] == 9
    assert after["processor_seconds_total"] >= before["processor_seconds_total"]


async def test_output_that_was_left_out_and_limits_are_counted(open_server: OpenServer) -> None:
    port = free_port()
    server = open_server(
        "memory", ServerConfig(metrics_listen=f"http://127.0.0.1:{port}", max_sessions_per_connection=1)
    )
    refused.clear()
    peer = await server.peer()
    await peer.start("a", ["sh", "-c", "seq 1000000; sleep 1000"], overflow="drop", windowBytes=1000)
    with trio.fail_after(PATIENCE):
        while (told := await numbers(port))["omitted_bytes_total"] < 1_000_000:
            pass
    assert told['output_bytes_total{stream="stdout"}'] >= told["omitted_bytes_total"]
    await peer.refused("process/start", peer.start_params("b", ["true"]))
    told = await numbers(port)
    assert told['refusals_total{kind="limit-exceeded",limit="max_sessions_per_connection"}'] == 1


async def test_the_lag_of_the_loop_is_measured(open_server: OpenServer) -> None:
    port = free_port()
    server = open_server("memory", ServerConfig(metrics_listen=f"http://127.0.0.1:{port}"))
    await server.peer()
    with trio.fail_after(PATIENCE):
        while (await numbers(port))["loop_beats_total"] < 2:
            pass
        import time

        time.sleep(1)  # noqa: ASYNC251  # that is the fault
        while (told := await numbers(port))["loop_lag_seconds_total"] < 0.5:
            pass
    assert told["loop_lag_seconds_total"] > 0.5


async def test_alive_and_ready_until_it_drains(open_server: OpenServer, transport: str) -> None:
    port = free_port()
    config = ServerConfig(metrics_listen=f"http://127.0.0.1:{port}", drain_period=600)
    server = open_server(transport, config)
    peer = await server.peer()
    await peer.start("a", ["cat"], pipeStdin=True)
    assert (await ask(port, "GET /livez"))[0] == (await ask(port, "GET /readyz?x=1"))[0] == 200
    server.shutdown.set()
    await peer.until(lambda: [message for message in peer.heard if "server/shutdown" in repr(message)])
    assert (await ask(port, "GET /readyz"))[::2] == (503, "not accepting\n")
    assert (await ask(port, "GET /livez"))[0] == 200
    assert (await numbers(port))["ready"] == 0
    if transport == "websocket":
        own = int((await server.url()).rpartition(":")[2])
        assert (await ask(own, "GET /readyz"))[::2] == (503, "the server is shutting down")
        assert (await ask(own, "GET /livez"))[0] == 200
    await peer.call("process/closeStdin", {"processId": "a"})
    await peer.until_ended()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("HEAD /metrics", 200), ("POST /metrics", 405), ("GET /", 404), ("GET /metrics/x", 404), ("\0 nonsense", 405)],
)
async def test_what_else_is_asked(open_server: OpenServer, request_line: str, status: int) -> None:
    port = free_port()
    server = open_server("memory", ServerConfig(metrics_listen=f"http://127.0.0.1:{port}"))
    await server.peer()
    told, _, body = await ask(port, request_line)
    assert told == status
    assert bool(body) == (not request_line.startswith("HEAD"))


async def test_who_holds_all_places_is_let_go(open_server: OpenServer, autojump_clock: object) -> None:
    port = free_port()
    server = open_server("memory", ServerConfig(metrics_listen=f"http://127.0.0.1:{port}"))
    await server.peer()
    silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(16)]
    for stream in silent:
        assert await stream.receive_some() == b""
        await stream.aclose()
    assert (await ask(port, "GET /livez"))[0] == 200


async def test_who_keeps_all_places_is_in_nobodys_way(open_server: OpenServer) -> None:
    """Somebody elsewhere, silent, who comes again as soon as it is let go: a probe is answered all the same."""
    port = free_port()
    server = open_server("memory", ServerConfig(metrics_listen=f"http://127.0.0.1:{port}"))
    await server.peer()
    taken = 0

    async def keep_taking() -> None:
        nonlocal taken
        while True:
            async with await trio.open_tcp_stream("127.0.0.1", port, local_address="127.0.0.2") as stream:
                taken += 1
                with suppress(trio.BrokenResourceError):
                    await stream.receive_some()

    async with trio.open_nursery() as crowd:
        for _ in range(16):
            crowd.start_soon(keep_taking)
        for probes in range(40):
            with trio.fail_after(PATIENCE):
                while taken < 16 + probes:
                    await trio.lowlevel.checkpoint()
            assert (await ask(port, "GET /livez"))[0] == 200
        crowd.cancel_scope.cancel()


async def test_a_place_that_is_taken_and_one_that_is_none(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(execsrv.CannotListenError, match=f"cannot listen on {url}: "):
            await execsrv.serve(f"unix://{tmp_path}/s", ServerConfig(metrics_listen=url))
    for url in ("127.0.0.1:9", "https://127.0.0.1:9", "http://localhost:9", "http://127.0.0.1", "http://127.0.0.1:9/x"):
        with pytest.raises(InvalidListenURLError, match="expected `http://IP:PORT`"):
            await execsrv.serve(f"unix://{tmp_path}/s", ServerConfig(metrics_listen=url))


def test_labels_are_escaped() -> None:
    metric = Metric("a", "gauge", "A.", {('\\"\n',): 1.5, ("b",): 2}, ("x",))
    assert exposition([metric]) == (
        b'# HELP execsrv_a A.\n# TYPE execsrv_a gauge\nexecsrv_a{x="\\\\\\"\\n"} 1.5\nexecsrv_a{x="b"} 2\n'
    )


async def test_nothing_of_it_is_loaded_unless_it_is_set() -> None:
    code = (
        "import sys, trio, execsrv\n"
        "async def main():\n"
        "    async with execsrv.connect_in_process() as client: await client.run(['true'])\n"
        "trio.run(main)\n"
        "assert not {'execsrv._doors.health', 'execsrv._doors.metrics', 'execsrv._doors.audit'} & sys.modules.keys()\n"
    )
    import sys

    await trio.run_process([sys.executable, "-c", code])
