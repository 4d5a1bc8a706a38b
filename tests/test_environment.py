"""`environment/*`, `environmentConfig/read`, capability discovery, and the handshake in front of each family."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv.limits import ServerConfig
from tests.conftest import OpenServer, Server
from tests.peers import Peer


@pytest.mark.parametrize("params", [None, {}])
async def test_info_and_status(server: Server, params: Any) -> None:
    peer = await server.peer(ready=False)
    greeting = await peer.handshake()
    assert await peer.call("environment/info", params) == greeting["environmentInfo"]
    assert await peer.call("environment/status", params) == {"status": "ready"}
    capabilities = {"environmentConfigRead", "httpHeaderEnvVars", "fileWriteStreaming", "fsWatchMissing"}
    capabilities |= {"shellSnapshotV2", "passStreams"} if server.transport == "unix" else {"shellSnapshotV2"}
    told = greeting["environmentInfo"]["capabilities"]
    assert told == dict.fromkeys(capabilities, True) | {"httpHeaderEnvVars": False}


@pytest.mark.parametrize("method", ["environment/info", "environment/status"])
async def test_no_parameters_wanted(peer: Peer, method: str) -> None:
    for params in ({"x": 1}, [1], "a", 5):
        assert (await peer.refused(method, params))[0] == -32602


async def test_null_is_no_parameters(open_server: OpenServer) -> None:
    """What the stock client sends."""
    out, into = await open_server("stdio", ServerConfig()).streams()
    lines = b'{"id":1,"method":"initialize","params":{"clientName":"t"}}\n{"method":"initialized"}\n'
    await out.send_all(lines + b'{"id":2,"method":"environment/status","params":null}\n')
    heard = b""
    while heard.count(b"\n") < 2:
        heard += await into.receive_some()
    assert heard.splitlines()[1] == b'{"id":2,"result":{"status":"ready"}}'
    await out.aclose()
    await into.aclose()


async def test_config(peer: Peer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CODEX_HOME", raising=False)
    asked = {"cwd": "file:///", "configPaths": [["mcp_servers"]], "requirementsPaths": [["mcp_servers"]]}
    nothing: dict[str, Any] = {"layers": [], "cloudInsertionIndex": 0}
    assert await peer.call("environmentConfig/read", asked) == {
        "userHomeDir": tmp_path.as_uri(),
        "codexHomeDir": (tmp_path / ".codex").as_uri(),
        "hostname": socket.gethostname(),
        "config": nothing,
        "requirements": nothing,
    }
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "other"))
    assert (await peer.call("environmentConfig/read", asked))["codexHomeDir"] == (tmp_path / "other").as_uri()


async def test_config_refusals(peer: Peer) -> None:
    none = "at least one config or requirements path is required"
    empty = "TOML paths must contain at least one key segment"
    selections: list[tuple[Any, Any, str]] = [([], [], none), ([[]], [], empty), ([["a"]], [[]], empty)]
    for config, requirements, text in selections:
        params = {"cwd": "file:///", "configPaths": config, "requirementsPaths": requirements}
        assert (await peer.refused("environmentConfig/read", params))[:2] == (-32602, text)
    lists = {"configPaths": [["a"]], "requirementsPaths": []}
    for params in ({}, {"cwd": "file:///"}, {"cwd": "http://h/", **lists}):
        assert (await peer.refused("environmentConfig/read", params))[0] == -32602


async def test_capability_roots(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    uris = [tmp_path.as_uri(), (tmp_path / "file").as_uri(), (tmp_path / "none").as_uri()]
    roots = [{"id": "same", "path": uri, "sandbox": None} for uri in uris]
    found = (await peer.call("capabilityRoots/discoverV1", {"roots": roots}))["roots"]
    assert [(root["id"], root["path"]) for root in found] == [("same", uri) for uri in uris]
    assert [root["error"] for root in found] == [
        None,
        f"capability root {uris[1]} is not a directory",
        f"failed to inspect capability root {uris[2]}: No such file or directory (os error 2)",
    ]
    for root in found:
        assert (root["plugin"], root["skills"], root["namespaceManifests"]) == (None, [], [])
    assert found[0]["warnings"] == ["this server does not look for plugins and skills"]
    assert await peer.call("capabilityRoots/discoverV1", {"roots": []}) == {"roots": []}
    assert (await peer.refused("capabilityRoots/discoverV1", {"roots": [{"id": "a", "path": "a"}]}))[0] == -32602


async def test_discovery_tells_nothing_of_what_files_may_not_reach(open_server: OpenServer, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "dangling").symlink_to(tmp_path / "none")
    paths = [inside, outside, tmp_path / "none", inside / "link", inside / "dangling"]
    roots = [{"id": str(number), "path": path.as_uri()} for number, path in enumerate(paths)]

    async def errors(config: ServerConfig) -> list[str | None]:
        peer = await open_server("memory", config).peer()
        found = (await peer.call("capabilityRoots/discoverV1", {"roots": roots}))["roots"]
        assert [(root["id"], root["path"]) for root in found] == [(root["id"], root["path"]) for root in roots]
        return [root["error"] and root["error"].replace(root["path"], "PATH") for root in found]

    refused = "failed to inspect capability root PATH: the path leads out of the directories that may be reached"
    assert await errors(ServerConfig(file_roots=(str(inside),))) == [None, *[refused] * 4]
    switched_off = "failed to inspect capability root PATH: the file methods are switched off on this server"
    assert await errors(ServerConfig(allow_files=False)) == [switched_off] * 5


async def test_discovery_needs_none_of_the_threads_that_all_share(open_server: OpenServer, tmp_path: Path) -> None:
    peer = await open_server("memory", ServerConfig()).peer()
    shared = trio.to_thread.current_default_thread_limiter()
    with ExitStack() as taken:
        for holder in range(int(shared.total_tokens)):
            await shared.acquire_on_behalf_of(holder)
            taken.callback(shared.release_on_behalf_of, holder)
        roots = [{"id": "a", "path": tmp_path.as_uri()}]
        found = await peer.call("capabilityRoots/discoverV1", {"roots": roots})
    assert found["roots"][0]["error"] is None


async def test_capabilities(peer: Peer) -> None:
    nothing: dict[str, Any] = {"plugins": [], "skills": [], "warnings": []}
    assert await peer.call("capabilities/discoverV2", {"cwd": "file:///", "sandbox": None}) == nothing
    assert (await peer.refused("capabilities/discoverV2", {}))[0] == -32602


@pytest.mark.parametrize(
    ("method", "params", "family"),
    [
        ("http/request", {"method": "GET", "url": "http://h/", "requestId": "r"}, "http"),
        ("environment/info", None, "environment info"),
        ("environment/status", None, "environment status"),
        ("environmentConfig/read", {"cwd": "/", "configPaths": [], "requirementsPaths": []}, "environment config"),
        ("capabilityRoots/discoverV1", {"roots": []}, "capability discovery"),
        ("capabilities/discoverV2", {"cwd": "/"}, "capability discovery"),
    ],
)
async def test_families(open_server: OpenServer, method: str, params: Any, family: str) -> None:
    peer = await open_server("memory", ServerConfig()).peer(ready=False)
    text = f"client must call initialize before using {family} methods"
    assert (await peer.refused(method, params))[:2] == (-32600, text)
    await peer.call("initialize", {"clientName": "t"})
    text = f"client must send initialized before using {family} methods"
    assert (await peer.refused(method, params))[:2] == (-32600, text)
