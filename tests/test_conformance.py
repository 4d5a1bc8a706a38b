"""The conformance kit: that execsrv passes it in every way to reach it, and that it finds what is wrong with others."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv._cli.register.checking import SUITES
from execsrv._doors import tokens
from execsrv.conformance import Verdict, cases, check
from execsrv.conformance.checking import suites
from execsrv.conformance.reaching import open_texts
from execsrv.conformance.report import line, summary
from execsrv.errors import ConnectionFailedError
from execsrv.testing import assert_no_strays, conversations, serving
from tests.peers import PATIENCE
from tests.test_daemon import execsrv


def verdicts(url: str, *suites: str, patience: float = PATIENCE) -> list[Verdict]:
    async def main() -> list[Verdict]:
        return await check(url, patience=patience, wanted=cases(*suites))

    return trio.run(main)


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("listen", "suite"),
    [
        *(("ws://127.0.0.1:0", suite) for suite in SUITES),
        *(pytest.param("unix://", suite, marks=pytest.mark.slow) for suite in SUITES),
        *(("stdio://", suite) for suite in ("handshake", "commands", "resuming")),  # each case starts a server there
    ],
)
def test_execsrv_does_as_it_is_described(listen: str, suite: str) -> None:
    grace = () if listen == "stdio://" else ("--resume-grace", "60")
    with assert_no_strays(), serving(listen, *grace) as server:
        found = verdicts(server.url, suite)
    others = [line(verdict) for verdict in found if verdict.kind != "ok"]
    if (listen, suite) == ("stdio://", "resuming"):
        assert [verdict.kind for verdict in found] == ["ok", "absent", "absent", "absent"], others
    else:
        assert others == []


def test_the_command_line_knows_every_suite() -> None:
    assert list(SUITES) == suites()
    names = Counter((case.suite, case.name) for case in cases())
    assert max(names.values()) == 1
    assert all(case.title for case in cases())


def test_a_server_that_keeps_no_connection_lacks_that() -> None:
    with serving() as server:
        found = verdicts(server.url, "resuming")
    assert [verdict.kind for verdict in found] == ["ok", "ok", "absent", "absent"]
    assert "a lost connection is not kept" in found[-1].why


# -- wrong servers --


@contextmanager
def wrong(answer: Callable[[dict[str, Any]], Iterable[dict[str, Any]]]) -> Iterator[str]:
    """A server that does what a test says."""

    def serve(client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            for text in lines:
                for message in answer(json.loads(text)):
                    client.sendall(json.dumps(message).encode() + b"\n")

    with conversations._listening(serve) as url:
        yield url


def kinds(found: list[Verdict]) -> dict[str, str]:
    return {verdict.case.name: verdict.kind for verdict in found}


def test_a_server_without_methods_has_none_of_it() -> None:
    def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
        if "id" not in request:
            return []
        if request["method"] == "initialize":
            return [
                {"id": request["id"], "result": {"sessionId": "1", "environmentInfo": {"shell": {"path": "/bin/sh"}}}}
            ]
        return [{"id": request["id"], "error": {"code": -32601, "message": f"no {request['method']}"}}]

    with wrong(answer) as url:
        assert set(kinds(verdicts(url, "commands", "additions")).values()) == {"absent"}
        found = kinds(verdicts(url, "handshake"))
    assert (found["greeting"], found["unknown_method"], found["twice"]) == ("ok", "ok", "differs")


def test_a_server_that_says_nothing_gives_no_answer() -> None:
    with wrong(lambda request: []) as url:
        found = verdicts(url, "commands", patience=0.1)
    assert {verdict.kind for verdict in found} == {"no answer"}
    assert "within 0.1 s" in found[0].why


def test_a_server_that_hangs_up_differs() -> None:
    def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
        raise OSError

    with wrong(answer) as url:
        found = verdicts(url, "commands")
    assert {(verdict.kind, verdict.why) for verdict in found} == {
        ("differs", "the connection ended before there was an answer to request 1")
    }


def test_a_server_that_talks_nonsense_differs() -> None:
    with wrong(lambda request: [{"id": request.get("id"), "result": [1]}]) as url:
        found = verdicts(url, "commands", patience=1)
    assert {verdict.kind for verdict in found} <= {"differs", "no answer"}
    assert any("said what nobody can follow" in verdict.why for verdict in found)


def test_a_server_that_never_stops_talking_differs() -> None:
    message = {"method": "x", "params": {"x": "x" * 8_000_000}}

    def answer(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        while True:
            yield message

    with wrong(answer) as url:
        [verdict] = trio.run(partial(check, url, patience=PATIENCE, wanted=cases("handshake")[:1]))
    assert (verdict.kind, verdict.why) == (
        "differs", "said more than 67108864 characters, which nobody has asked for"
    )  # fmt: skip


def test_what_a_server_that_does_not_end_has_started_ends_with_it() -> None:
    async def main() -> None:
        async with open_texts("exec:sh -c 'sleep 1000 & echo ready; sleep 1000'") as texts:
            assert await texts.receive() == "ready"

    with assert_no_strays():
        trio.run(main)


def test_what_a_server_that_ends_has_started_ends_with_it() -> None:
    async def main() -> None:
        async with open_texts("exec:sh -c 'sleep 1000 >/dev/null & echo ready; exec cat'") as texts:
            assert await texts.receive() == "ready"

    with assert_no_strays():
        trio.run(main)


def test_a_number_that_is_left_out_is_found() -> None:
    """Between the kit and a good server the second notification of each process is lost."""
    with serving() as server:
        lost: list[str] = []

        def carry(client: socket.socket) -> None:
            with socket.socket(socket.AF_UNIX) as there:
                there.connect(server.url.removeprefix("unix://"))
                there.settimeout(PATIENCE)
                ours, theirs = client.makefile("rb"), there.makefile("rb")
                with ours, theirs:
                    for text in ours:
                        there.sendall(text)
                        while "id" in json.loads(text):
                            said = json.loads(said_text := theirs.readline())
                            if said.get("params", {}).get("seq") == 2:
                                lost.append(said["method"])
                                continue
                            client.sendall(said_text)
                            if said.get("method") == "process/closed" or (
                                "id" in said and json.loads(text)["method"] != "process/start"
                            ):
                                break

        with conversations._listening(carry) as url:
            [order] = [case for case in cases("processes") if case.name == "order"]
            [verdict] = trio.run(partial(check, url, patience=PATIENCE, wanted=[order]))
    assert lost
    assert verdict.kind == "differs"
    assert verdict.why.startswith("numbers: [1, 3")


@pytest.mark.few
@pytest.mark.parametrize("url", ["unix://execsrv/socket", "unix://"])
def test_a_unix_socket_by_a_relative_path_and_the_default_one(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "execsrv").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with serving(f"unix://{tmp_path}/execsrv/socket"):
        [verdict] = trio.run(partial(check, url, wanted=cases("commands")[:1]))
    assert verdict.kind == "ok", line(verdict)


def test_nobody_there() -> None:
    for url, why in (
        ("unix:///does/not/exist", "cannot connect to `unix:///does/not/exist`: .*No such file"),
        ("http://a", "cannot check `http://a`: expected `ws://HOST:PORT`"),
        ("exec:/does/not/exist", "cannot connect to `exec:/does/not/exist`: .*No such file"),
        ("exec:", "invalid exec --url `exec:`; expected `exec:COMMAND`: there is no command"),
        ("exec:'a", "invalid exec --url `exec:'a`; expected `exec:COMMAND`: no closing quotation"),
        ("ws://", "cannot connect to `ws://`: expected `ws://HOST:PORT`"),
        ("ws://127.0.0.1:99999", "cannot connect to `ws://127.0.0.1:99999`: Port out of range"),
        ("ws://127.0.0.1:1", "cannot connect to `ws://127.0.0.1:1`: Connection refused"),
    ):
        with pytest.raises(ConnectionFailedError, match=why):
            verdicts(url)


@pytest.mark.parametrize("host", ["203.0.113.1", "[2001:db8::1]", "build.example", "", "[::1"])
def test_a_token_goes_to_no_other_machine_in_the_open(host: str) -> None:
    with pytest.raises(ConnectionFailedError, match="a token is not sent to another machine without TLS"):
        trio.run(partial(check, f"ws://{host}:1", token="secret"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_token_goes_to_this_machine(tmp_path: Path, host: str) -> None:
    token = tokens.new_token()
    (tmp_path / "tokens").write_text(f"ci owner {tokens.sha256(token)} never\n")
    with serving("ws://127.0.0.1:0", "--token-file", str(tmp_path / "tokens")) as server:
        url = f"ws://{host}:{server.url.rpartition(':')[2]}"
        [verdict] = trio.run(partial(check, url, token=token, wanted=cases("commands")[:1]))
    assert verdict.kind == "ok", line(verdict)


# -- the command --


@pytest.mark.slow
def test_the_command_reports() -> None:
    with serving() as server:
        done = execsrv("conformance", "-s", "commands", server.url)
        assert (done.returncode, done.stderr) == (0, "")
        titles = [case.title for case in cases("commands")]
        said = ["commands", *(f"  as described  {title}" for title in titles), "", "commands    6 of 6 as described"]
        assert done.stdout.splitlines() == said
        done = execsrv("conformance", "--json", "-s", "commands", "-s", "resuming", server.url)
        found = json.loads(done.stdout)
        assert [each["verdict"] for each in found] == [*(["ok"] * 8), "absent", "absent"]
        assert done.returncode == 0
        done = execsrv("conformance", "-q", "-s", "handshake", server.url)
        assert done.stdout == "handshake   9 of 9 as described\n"


def test_the_command_fails_where_anything_differs() -> None:
    with wrong(lambda request: []) as url:
        done = execsrv("conformance", "--patience", "50ms", "-q", "-s", "commands", url)
    assert (done.returncode, done.stdout) == (1, "commands    0 of 6 as described; 6 no answer\n")
    done = execsrv("conformance", "unix:///does/not/exist")
    assert done.returncode == 2
    assert done.stderr.startswith("execsrv: cannot connect to `unix:///does/not/exist`")


def test_the_page_counts_right() -> None:
    page = (Path(__file__).parent.parent / "docs" / "conformance.md").read_text()
    assert "\n".join(summary([Verdict(case, "ok") for case in cases()])) in page


def test_a_summary_counts_each_kind() -> None:
    [first, second, third, *_] = cases("files")
    found = [Verdict(first, "ok"), Verdict(second, "differs", "so"), Verdict(third, "no answer")]
    assert summary(found) == ["files       1 of 3 as described; 1 differs, 1 no answer"]
