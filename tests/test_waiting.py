"""`process/waitFor`: the first of several things, beside all readers, wherever output is cut into pieces."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from execsrv._log.search import Found, Search
from execsrv._processes import proc, terminal
from execsrv.limits import ServerConfig
from execsrv.protocol import Chunk, Response
from tests import hanging
from tests.conftest import OpenServer, with_packed
from tests.peers import PATIENCE, Peer, b64, plain

transport = with_packed()

# -- searching, without a process --


@given(st.text("ab", max_size=40), st.lists(st.text("ab", min_size=1, max_size=4), max_size=4), st.data())
def test_a_search_does_not_depend_on_the_pieces(text: str, words: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    search = Search([word.encode() for word in words])
    ends = [(text.find(word) + len(word), number) for number, word in enumerate(words) if word in text]
    at = 0
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        search.look(Chunk(1, "stderr", b"ba" * 5)) if not any(word in "ba" * 5 for word in words) else None
        found = search.look(Chunk(1, "stdout", text[start:end].encode()))
        if found is not None:
            assert (at + found.end, found.number) == min(ends)
            return
        at = end
    assert not ends


def test_a_search_begins_where_it_is_told_to() -> None:
    search = Search([b"ready"])
    assert search.look(Chunk(1, "stdout", b"ready, rea"), skip=1) is None
    assert search.look(Chunk(2, "stdout", b"dy")) == Found(0, 2)
    search = Search([b"ready"])
    assert search.look(Chunk(1, "stdout", b"rea")) is None
    search.forget()
    assert search.look(Chunk(2, "stdout", b"dy")) is None


# -- on every transport --


async def happened(peer: Peer, id: str, **params: Any) -> dict[str, Any]:
    answer = await peer.call("process/waitFor", {"processId": id, **params})
    assert isinstance(answer, dict)
    return answer


async def test_output_is_found_across_pieces_and_again_behind_the_place(peer: Peer) -> None:
    script = "printf 'one rea'; read x; printf 'dy two ready'; read x"
    await peer.start("p", ["sh", "-c", script], pipeStdin=True)
    await peer.until_output("p", b"one rea")
    asked = await peer.post("process/waitFor", {"processId": "p", "output": [b64(b"nothing"), b64(b"ready")]})
    await peer.call("process/write", {"processId": "p", "chunk": b64(b"\n"), "writeId": "1"})
    answer: Any = await peer.answer(asked)
    first = answer.result
    assert (first["happened"], first["index"], first["stream"], first["gap"]) == ("output", 1, "stdout", None)
    assert (first["seq"], first["offset"], first["exitCode"]) == (2, 2, None)
    again = await happened(peer, "p", output=[b64(b"ready")])
    assert (again["seq"], again["offset"]) == (2, 2)  # what is retained counts
    place = {"afterSeq": first["seq"], "afterOffset": first["offset"]}
    second = await happened(peer, "p", output=[b64(b"ready")], **place)
    assert (second["seq"], second["offset"]) == (2, len("dy two ready"))
    place = {"afterSeq": second["seq"], "afterOffset": second["offset"]}
    third = await happened(peer, "p", output=[b64(b"ready")], timeoutMs=0, **place)
    assert (third["happened"], third["seq"]) == ("timeout", 2)
    assert peer.output("p") == b"one ready two ready"  # nobody's output was taken


async def test_what_was_printed_before_the_end_comes_before_it(peer: Peer) -> None:
    await peer.run("p", ["sh", "-c", "echo ready; exit 3"])
    everything: dict[str, Any] = {"exited": True, "treeEmpty": True, "timeoutMs": 0}
    assert (await happened(peer, "p", output=[b64(b"ready")], **everything))["happened"] == "output"
    exited = await happened(peer, "p", output=[b64(b"other")], **everything)
    assert (exited["happened"], exited["seq"], exited["exitCode"]) == ("exited", 2, 3)
    assert (await happened(peer, "p", treeEmpty=True))["happened"] == "treeEmpty"
    closed = await happened(peer, "p", output=[b64(b"other")], idleMs=1)
    assert (closed["happened"], closed["seq"], closed["exitCode"]) == ("closed", 3, 3)


async def test_an_exit_is_told_when_it_comes_and_an_empty_tree_later(peer: Peer) -> None:
    # The child has none of the streams, so the close comes before its end.
    script = "(echo up; exec sleep 1000 </dev/null >/dev/null 2>&1) & read x; exit 4"
    await peer.start("p", ["bash", "-c", script], pipeStdin=True)
    await peer.until_output("p", b"up")
    exit_asked = await peer.post("process/waitFor", {"processId": "p", "exited": True})
    empty_asked = await peer.post("process/waitFor", {"processId": "p", "treeEmpty": True})
    await peer.call("process/signal", {"processId": "p", "signal": "KILL", "target": "leader"})
    answer: Any = await peer.answer(exit_asked)
    assert (answer.result["happened"], answer.result["exitCode"]) == ("exited", 137)
    assert (await happened(peer, "p"))["happened"] == "closed"
    assert (await happened(peer, "p", treeEmpty=True, timeoutMs=50))["happened"] == "timeout"
    await peer.call("process/signal", {"processId": "p", "signal": "KILL", "target": "tree"})
    answer = await peer.answer(empty_asked)
    assert answer.result["happened"] == "treeEmpty"


async def test_silence_is_counted_from_the_last_output(peer: Peer) -> None:
    await peer.start("p", ["sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; exec sleep 1000"])
    quiet = await happened(peer, "p", idleMs=2000)
    assert (quiet["happened"], quiet["seq"]) == ("idle", 5)
    assert (await happened(peer, "p", idleMs=20))["happened"] == "idle"


async def test_who_waits_for_his_reader_is_not_silent(peer: Peer) -> None:
    await peer.start("p", ["yes"], windowBytes=65536)
    await peer.until(lambda: len(peer.output("p")) >= 65536)
    assert (await happened(peer, "p", idleMs=20, timeoutMs=500))["happened"] == "timeout"


async def test_a_port_that_accepts(peer: Peer) -> None:
    listen = (
        "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
    )
    listen += "sys.stdin.readline(); s.listen(); sys.stdin.readline()"
    await peer.start("p", [sys.executable, "-c", listen], pipeStdin=True)
    await peer.until_output("p", b"\n")
    port = int(peer.output("p"))
    assert (await happened(peer, "p", port={"port": port}, timeoutMs=200))["happened"] == "timeout"
    asked = await peer.post("process/waitFor", {"processId": "p", "port": {"port": port}})
    await peer.call("process/write", {"processId": "p", "chunk": b64(b"\n"), "writeId": "1"})
    answer: Any = await peer.answer(asked)
    assert answer.result["happened"] == "port"
    assert (await happened(peer, "p", port={"port": port, "host": "127.0.0.1"}))["happened"] == "port"
    elsewhere = {"port": port, "host": "::1"}
    assert (await happened(peer, "p", port=elsewhere, timeoutMs=200))["happened"] == "timeout"
    await peer.call("process/terminate", {"processId": "p"})
    await peer.until_told("p", "closed")
    assert (await happened(peer, "p", port={"port": port}))["happened"] == "closed"


async def test_a_port_of_the_other_loopback(peer: Peer) -> None:
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        listener.listen()
        await peer.start("p", ["sleep", "1000"])
        port = {"port": listener.getsockname()[1]}
        assert (await happened(peer, "p", port=port))["happened"] == "port"


async def test_a_terminal_that_does_not_echo(peer: Peer) -> None:
    await peer.start("p", ["sh", "-c", "read x; stty -echo; read x; stty echo; exec sleep 1000"], tty=True)
    assert (await happened(peer, "p", noEcho=True, timeoutMs=100))["happened"] == "timeout"
    asked = await peer.post("process/waitFor", {"processId": "p", "noEcho": True})
    await peer.call("process/write", {"processId": "p", "chunk": b64(b"\n"), "writeId": "1"})
    answer: Any = await peer.answer(asked)
    assert answer.result["happened"] == "noEcho"
    await peer.start("piped", ["sleep", "1000"])
    code, message, data = await peer.refused("process/waitFor", {"processId": "piped", "noEcho": True})
    assert (code, data) == (-32602, {"kind": "invalid-params", "field": "noEcho"})
    assert message == "process piped has no terminal, and so no echo"


async def test_of_many_who_look_at_terminals_few_do_at_a_time(
    open_server: OpenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pauses of one turn, which are easier to count than seconds. As many may be before a turn as behind it."""
    monkeypatch.setattr("execsrv._server.methods.waiting._ECHO_SECONDS", 0)
    turn, looks, echoes = 0, Counter[int](), terminal.echoes

    def counted(master: int) -> bool:
        looks[turn] += 1
        return echoes(master)

    async with open_server("memory", ServerConfig()).open_peer() as peer:
        await peer.handshake()
        await peer.start("p", ["sh", "-c", "read x; stty -echo; exec sleep 1000"], tty=True)
        asked = [await peer.post("process/waitFor", {"processId": "p", "noEcho": True}) for _ in range(60)]
        await peer.call("process/list")  # all of them have begun
        monkeypatch.setattr(terminal, "echoes", counted)
        while turn < 100:
            turn += 1
            await trio.lowlevel.checkpoint()
        monkeypatch.setattr(terminal, "echoes", echoes)
        await peer.call("process/write", {"processId": "p", "chunk": b64(b"\n"), "writeId": "1"})
        for id in asked:
            answer: Any = await peer.answer(id)
            assert answer.result["happened"] == "noEcho"
    assert looks.total() > 100
    assert max(looks.values()) <= 16


async def test_a_wait_of_the_same_name_ends_the_one_before(peer: Peer) -> None:
    await peer.start("p", ["sh", "-c", "echo printed; exec sleep 1000"])
    await peer.until_output("p", b"printed")
    first = await peer.post("process/waitFor", {"processId": "p", "waitId": "w"})
    assert (await happened(peer, "p", waitId="w", timeoutMs=0))["happened"] == "timeout"
    answer: Any = await peer.answer(first)
    assert (answer.result["happened"], answer.result["seq"]) == ("replaced", 1)
    assert (await happened(peer, "p", waitId="w", timeoutMs=0))["happened"] == "timeout"


async def test_what_was_not_looked_at_is_told(open_server: OpenServer, transport: str) -> None:
    peer = await open_server(transport, ServerConfig(retained_output_bytes_per_session=65536)).peer()
    await peer.run("p", ["sh", "-c", "echo begin; head -c 1000000 /dev/zero; echo end"])
    whole = await happened(peer, "p", output=[b64(b"begin")])
    assert (whole["happened"], whole["gap"]) == ("closed", None)  # of what is retained
    found = await happened(peer, "p", output=[b64(b"end")], afterSeq=0)
    assert found["happened"] == "output"
    assert found["gap"]["fromSeq"] == 1
    assert found["gap"]["seq"] < found["seq"]
    assert found["gap"]["printedBefore"]["stdout"] > 900000


async def test_many_waits_see_all_that_is_printed(peer: Peer) -> None:
    """They are woken at each piece, and slow nobody down for long. All of it is retained."""
    await peer.start("p", ["sh", "-c", "read x; head -c 900000 /dev/zero; echo end"], pipeStdin=True)
    words = {"output": [b64(bytes([65, number])) for number in range(15)] + [b64(b"end")], "afterSeq": 0}
    asked = [await peer.post("process/waitFor", {"processId": "p", **words}) for _ in range(5)]
    await peer.call("process/write", {"processId": "p", "chunk": b64(b"\n"), "writeId": "1"})
    for id in asked:
        answer: Any = await peer.answer(id)
        assert (answer.result["happened"], answer.result["index"], answer.result["gap"]) == ("output", 15, None)


async def test_many_looks_let_others_have_their_turns(open_server: OpenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With turns of one look each, which are easier to count than seconds."""
    monkeypatch.setattr("execsrv._server.looks.TURN_SECONDS", 0, raising=False)
    turn, looks, look = 0, Counter[int](), Search.look

    def counted(search: Search, chunk: Chunk, skip: int = 0) -> Found | None:
        looks[turn] += 1
        return look(search, chunk, skip)

    async def neighbour() -> None:
        nonlocal turn
        while True:
            await trio.lowlevel.checkpoint()
            turn += 1

    monkeypatch.setattr(Search, "look", counted)
    async with open_server("memory", ServerConfig()).open_peer() as peer, trio.open_nursery() as nursery:
        await peer.handshake()
        await peer.start("p", ["sh", "-c", "read x; echo end; exec sleep 1000"], pipeStdin=True)
        wait = {"processId": "p", "output": [b64(b"end")]}
        asked = [await peer.post("process/waitFor", wait) for _ in range(30)]
        nursery.start_soon(neighbour)
        await peer.call("process/write", {"processId": "p", "chunk": b64(b"\n"), "writeId": "1"})
        for id in asked:
            answer: Any = await peer.answer(id)
            assert answer.result["happened"] == "output"
        nursery.cancel_scope.cancel()
    assert looks.total() >= 30
    assert max(looks.values()) == 1


async def test_silence_is_not_looked_for_while_the_reader_is_waited_for(open_server: OpenServer) -> None:
    """A wait that comes to nothing takes no time: everybody sleeps until the reader goes on."""
    async with open_server("memory", ServerConfig()).open_peer() as peer:
        await peer.handshake()
        await peer.start("p", ["sh", "-c", "head -c 100000 /dev/zero; exec sleep 1000"], windowBytes=65536)
        await peer.until(lambda: len(peer.output("p")) >= 65536)
        asked = await peer.post("process/waitFor", {"processId": "p", "idleMs": 1})
        with trio.fail_after(PATIENCE):
            await trio.testing.wait_all_tasks_blocked(0.05)
        await peer.call("process/ack", {"processId": "p", "seq": peer.told("p")[-1][1]["seq"]})
        await peer.until(lambda: len(peer.output("p")) == 100000)
        answer: Any = await peer.answer(asked)
        assert answer.result["happened"] == "idle"


async def test_few_ports_are_tried_at_once(open_server: OpenServer) -> None:
    """One attempt has a descriptor for up to a second where nobody answers, as at a listener whose queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, socket.socket() as first, socket.socket() as more:
        address = silent.getsockname()
        for filling in (first, more):
            filling.setblocking(False)
            filling.connect_ex(address)
        wish = {"port": address[1], "host": "127.0.0.1"}

        def tried() -> int:
            sent = f" 0100007F:{address[1]:04X} 02 "  # SYN_SENT
            return sum(sent in line for line in Path("/proc/net/tcp").read_text().splitlines())

        async with open_server("memory", ServerConfig()).open_peer() as peer:
            await peer.handshake()
            await peer.start("p", ["sleep", "1000"])
            before = tried()
            for _ in range(6):
                await peer.post("process/waitFor", {"processId": "p", "port": wish})
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert 1 <= tried() - before <= 4
            with socket.create_server(("127.0.0.1", 0)) as other:
                port = {"port": other.getsockname()[1], "host": "127.0.0.1"}
                assert (await happened(peer, "p", port=port))["happened"] == "port"  # in its turn


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"output": [""]}, "length >= 1"),
        ({"output": [b64(b"x" * 4097)]}, "length <= 4096"),
        ({"output": [b64(b"x")] * 17}, "length <= 16"),
        ({"output": "text"}, "array"),
        ({"port": {"port": 0}}, ">= 1"),
        (
            {"port": {"port": 80, "host": "localhost"}},
            "port.host: `localhost` is not an IP address, and",
        ),
        ({"idleMs": 0}, ">= 1"),
        ({"afterOffset": 3}, "afterOffset is a place in the entry afterSeq, which is missing"),
    ],
)
async def test_what_cannot_be_waited_for(peer: Peer, params: dict[str, Any], complaint: str) -> None:
    await peer.start("p", ["sleep", "1000"])
    code, message, _ = await peer.refused("process/waitFor", {"processId": "p", **params})
    assert code == -32602
    assert complaint in message


async def test_waits_end_with_the_connection(open_server: OpenServer) -> None:
    server = open_server("memory", ServerConfig())
    async with server.open_peer() as peer:
        await peer.handshake()
        await peer.start("p", ["sleep", "1000"])
        for _ in range(20):
            await peer.post("process/waitFor", {"processId": "p", "port": {"port": 1}, "treeEmpty": True})
        code, _, data = await peer.refused("process/waitFor", {"processId": "other"})
        assert (code, data["kind"]) == (-32600, "unknown-process")
    await trio.testing.wait_all_tasks_blocked()


# -- input --

READERS = {
    "cat": (["cat"], "cat", "read", 0),
    "a child of a shell": (["bash", "-c", "sort | cat"], "sort", "read", 0),
    "the terminal by its name": (["bash", "-c", "exec 5</dev/tty; exec cat <&5"], "cat", "read", 0),
    "a password": ([sys.executable, "-c", "import getpass; getpass.getpass()"], None, "read", 3),
    "readline": (["bash", "--norc", "-i"], "bash", "", 0),
    "poll": ([sys.executable, "-c", "import select; p = select.poll(); p.register(0, 1); p.poll()"], None, "poll", 0),
    "epoll": (
        [sys.executable, "-c", "import select; p = select.epoll(); p.register(0, 1); p.poll()"],
        None,
        "epoll_wait",
        0,
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("tty", [True, False])
async def test_who_waits_for_input_is_told_with_the_evidence(open_server: OpenServer, reader: str, tty: bool) -> None:
    argv, name, call, descriptor = READERS[reader]
    if not tty and reader in ("the terminal by its name", "a password", "readline"):
        pytest.skip("wants a terminal")
    peer = await open_server("unix", ServerConfig()).peer()
    started = await peer.start("p", argv, tty=tty, pipeStdin=True)
    answer = await happened(peer, "p", input=True)
    assert answer["happened"] == "input"
    found = answer["input"]
    assert found["descriptor"] == descriptor
    assert call in found["call"]  # which of its kind it is differs from machine to machine
    assert found["name"] == name or name is None
    assert (found["pid"] == started["pid"]) == (reader != "a child of a shell")
    assert (await happened(peer, "p", input=True, timeoutMs=0))["input"] == found


@pytest.mark.parametrize(
    "argv",
    [
        ["sleep", "1000"],
        ["bash", "-c", "sleep 1000 & wait"],
        ["bash", "-c", "read -t 1000 line"],
        ["bash", "-c", "sleep 1000 | cat"],
        [sys.executable, "-c", "import select, os; r, w = os.pipe(); select.select([0, r], [], [])"],
        [sys.executable, "-c", "import select; select.poll().poll()"],
        ["bash", "-mc", "cat & sleep 1000"],
    ],
)
@pytest.mark.parametrize("tty", [True, False])
async def test_who_may_go_on_without_input_is_not_taken_for_it(
    open_server: OpenServer, argv: list[str], tty: bool
) -> None:
    peer = await open_server("unix", ServerConfig()).peer()
    await peer.start("p", argv, tty=tty, pipeStdin=True, env={"PATH": "/usr/bin:/bin"})
    if argv[-1].startswith("cat &") and not tty:
        return  # without a terminal a job behind may read
    answer = await happened(peer, "p", input=True, timeoutMs=700)
    assert (answer["happened"], "input" in answer) == ("timeout", False)


async def test_input_that_was_read_is_seen_by_the_sleeps(peer: Peer) -> None:
    await peer.start("p", ["cat"], tty=True)
    first = (await happened(peer, "p", input=True))["input"]
    await peer.call("process/write", {"processId": "p", "chunk": b64(b"line\n"), "writeId": "1"})
    await peer.until_output("p", b"line\r\nline\r\n")
    second = (await happened(peer, "p", input=True))["input"]
    assert second["sleeps"] > first["sleeps"]
    assert second | {"sleeps": 0} == first | {"sleeps": 0}
    await peer.start("none", ["sleep", "1000"])
    assert (await happened(peer, "none", input=True, timeoutMs=0))["happened"] == "timeout"


@pytest.mark.skipif(not hanging.available(), reason="nothing of this user can make the kernel hang")
@pytest.mark.parametrize("tty", [True, False])
async def test_whose_wait_the_kernel_does_not_tell_holds_up_nobody(open_server: OpenServer, tty: bool) -> None:
    server = open_server("unix", ServerConfig())
    peer, other = await server.peer(), await server.peer()
    pid = (await peer.start("p", hanging.argv(), tty=tty, pipeStdin=True))["pid"]
    await peer.until_output("p", b"hanging")
    asked = [await peer.post("process/waitFor", {"processId": "p", "input": True, "timeoutMs": 0}) for _ in range(3)]
    for id in asked:
        answer = await peer.answer(id)
        assert isinstance(answer, Response)
        assert plain(answer.result)["happened"] == "timeout"
    assert (await other.run("q", ["echo", "here"]))[1] == b"here\n"
    own = os.getpid()
    assert [proc.state(own, thread) for thread in proc.threads(own)].count("D") == 1
    assert proc.living(pid)  # nothing was answered because it had ended
