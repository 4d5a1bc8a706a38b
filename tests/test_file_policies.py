"""File methods under a policy: each call does what a command with that policy could do, and nothing else."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import execsrv
from execsrv import FileRefusedError, Policy
from execsrv._files.roots import Roots
from execsrv._files.rules import Rules
from execsrv.limits import ServerConfig
from execsrv.protocol import Failure
from tests.conftest import OpenServer
from tests.peers import Peer, b64
from tests.test_confine_policy import ROOT, entry, files, special
from tests.test_file_roots import swap
from tests.test_files import WALK, uri

DENIED = -32600, "file-refused", 13


@pytest.fixture
async def peer(open_server: OpenServer) -> Peer:
    return await open_server("memory", ServerConfig()).peer()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A workspace with parts that are protected, hidden and denied by a pattern, and a folder beside it."""
    folder = Path(os.path.realpath(tmp_path)) / "all"
    for name in ("work/.git", "work/a/part", "work/a/free", "work/hidden", "out"):
        (folder / name).mkdir(parents=True)
    for name in ("work/f", "work/.git/config", "work/a/part/f", "work/hidden/key", "work/a/free/.env", "out/f"):
        (folder / name).write_text("content")
    (folder / "work/to-out").symlink_to(folder / "out")
    (folder / "work/to-hidden").symlink_to("hidden/key")
    return folder


def policy(here: Path, **more: Any) -> dict[str, Any]:
    work = here / "work"
    return files(
        ROOT,
        entry(special("project_roots"), "write"),
        entry(special("project_roots", subpath=".git"), "read", missing_path_behavior="skip"),
        entry(work / "a/part", "read"),
        entry(work / "hidden", "none"),
        entry({"type": "glob_pattern", "pattern": "**/.env"}, "deny"),
        cwd=uri(work),
        workspaceRoots=[uri(work)],
        windowsSandboxLevel="disabled",
        **more,
    )


def writes(path: Path, source: Path) -> dict[str, dict[str, Any]]:
    """Return every call that changes what is at a path, of a file."""
    at = {"path": uri(path)}
    from_there = {"sourcePath": uri(path), "destinationPath": uri(source.with_name("taken"))}
    to_there = {"sourcePath": uri(source), "destinationPath": uri(path)}
    return {
        "fs/writeFile": {**at, "dataBase64": b64(b"changed")},
        "fs/writeFile atomic": {**at, "dataBase64": b64(b"changed"), "atomic": True},
        "fs/append": {**at, "dataBase64": b64(b"changed")},
        "fs/open replace": {**at, "handleId": "h", "mode": "replace"},
        "fs/open update": {**at, "handleId": "h", "mode": "update"},
        "fs/open append": {**at, "handleId": "h", "mode": "append"},
        "fs/change permissions": {**at, "permissions": 0o600},
        "fs/change size": {**at, "size": 1},
        "fs/change modified": {**at, "modifiedAtNs": 1},
        "fs/copy": {**to_there, "recursive": True},
        "fs/rename": to_there,
        "fs/rename away": from_there,
        "fs/remove": {**at, "force": False},
    }


def reads(path: Path, to: Path) -> dict[str, dict[str, Any]]:
    """Return every call that tells of a file."""
    at = {"path": uri(path)}
    return {
        "fs/readFile": at,
        "fs/open": {**at, "handleId": "h"},
        "fs/getMetadata": at,
        "fs/canonicalize": at,
        "fs/stat": at,
        "fs/copy": {"sourcePath": uri(path), "destinationPath": uri(to), "recursive": True},
    }


async def refused(peer: Peer, call: str, params: dict[str, Any], here: Path) -> bool:
    """Make a call under the policy, and return whether it was refused for want of a right."""
    answer = await peer.answer(await peer.post(call.split()[0], {**params, "sandbox": policy(here)}))
    await peer.call("fs/close", {"handleId": "h"})
    if not isinstance(answer, Failure):
        return False
    assert isinstance(answer.error.data, dict)
    assert (answer.error.code, answer.error.data["kind"], answer.error.data["errno"]) == DENIED, (call, answer)
    assert answer.error.message.startswith("Permission denied: the policy of this call does not let it be")
    return True


def state(folder: Path) -> dict[str, Any]:
    """Return all that is in a folder, with what a write would change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = content, status.st_mode, status.st_mtime_ns, status.st_ino
    return found


@pytest.mark.parametrize(
    "place", ["out/f", "work/to-out/f", "work/.git/config", "work/a/part/f", "work/hidden/key", "work/a/free/.env"]
)
async def test_nothing_is_written_but_where_the_policy_says_so(peer: Peer, here: Path, place: str) -> None:
    before = state(here)
    for call, params in writes(here / place, here / "work/f").items():
        assert await refused(peer, call, params, here), call
    new = {"path": uri((here / place).with_name("new"))}
    if "free" not in place:
        for call, params in {
            "fs/writeFile": {**new, "dataBase64": ""},
            "fs/createDirectory": new,
            "fs/createDirectory deep": {"path": f"{new['path']}/and/deeper"},
            "fs/symlink": {**new, "target": "f"},
            "fs/open create": {**new, "handleId": "h", "mode": "create"},
        }.items():
            assert await refused(peer, call, params, here), call
    assert state(here) == before


async def test_all_is_written_within_the_workspace(peer: Peer, here: Path) -> None:
    for call, params in writes(here / "work/a/free/f", here / "work/source").items():
        (here / "work/a/free/f").write_text("content")
        (here / "work/source").write_text("source")
        assert not await refused(peer, call, params, here), call
    made = {"path": uri(here / "work/new/folder")}
    assert await peer.call("fs/createDirectory", {**made, "sandbox": policy(here)}) == {}
    for folder in ("", "work", "out"):  # which are there
        assert await peer.call("fs/createDirectory", {"path": uri(here / folder), "sandbox": policy(here)}) == {}
    assert await peer.call("fs/symlink", {"path": uri(here / "work/l"), "target": "/", "sandbox": policy(here)}) == {}
    handle = {"path": uri(here / "work/f"), "handleId": "w", "mode": "replace", "sandbox": policy(here)}
    await peer.call("fs/open", handle)
    await peer.call("fs/writeBlock", {"handleId": "w", "offset": 0, "chunk": b64(b"block")})
    await peer.call("fs/close", {"handleId": "w"})
    assert (here / "work/f").read_text() == "block"


async def test_what_is_hidden_or_not_named_is_not_told(peer: Peer, here: Path) -> None:
    (here / "work/hidden/out").symlink_to(here / "out")
    inside = [f"work/hidden/{name}" for name in ("key", "missing", "missing/f", "key/f", "out/f")]
    for place in (*inside, "work/hidden", "work/to-hidden", "work/a/free/.env"):
        for call, params in reads(here / place, here / "work/copy").items():
            of_link = (call, place) == ("fs/copy", "work/to-hidden")
            assert await refused(peer, call, params, here) is not of_link, (call, place)
    (here / "work/copy").unlink()
    for place in ("work/f", "work/.git/config", "out/f", "work/to-out/f"):
        for call, params in reads(here / place, here / "work/copy").items():
            assert not await refused(peer, call, params, here), (call, place)
    it = policy(here)
    listed = await peer.call("fs/readDirectory", {"path": uri(here / "work"), "sandbox": it})
    assert "hidden" not in {found["fileName"] for found in listed["entries"]}
    listed = await peer.call("fs/list", {"path": uri(here / "work"), "sandbox": it})
    assert "hidden" not in {found["fileName"] for found in listed["entries"]}
    options = {**WALK, "followDirectorySymlinks": True}
    walked = await peer.call("fs/walk", {"path": uri(here), "options": options, "sandbox": it})
    found = {entry["path"].removeprefix(uri(here)) for entry in walked["entries"]}
    assert {"/work/f", "/out/f", "/work/a/part/f"} <= found
    assert not {path for path in found if "hidden" in path or ".env" in path}
    assert walked["errors"] == []


async def test_a_tree_with_a_part_of_its_own_is_neither_moved_nor_removed(peer: Peer, here: Path) -> None:
    before = state(here)
    for folder in ("work", "work/a", "work/a/part", "work/.git", "work/a/free"):
        away = {"sourcePath": uri(here / folder), "destinationPath": uri(here / "work/moved")}
        for call, params in {"fs/remove": {"path": uri(here / folder)}, "fs/rename": away}.items():
            assert await refused(peer, call, params, here), (call, folder)
    assert state(here) == before
    (here / "work/a/plain/in").mkdir(parents=True)
    moved = {"sourcePath": uri(here / "work/a/plain"), "destinationPath": uri(here / "work/moved")}
    assert not await refused(peer, "fs/rename", moved, here)
    assert not await refused(peer, "fs/remove", {"path": uri(here / "work/moved")}, here)


async def test_a_copy_of_a_tree_stops_at_what_it_may_not_touch(peer: Peer, here: Path) -> None:
    over = {"sourcePath": uri(here / "out"), "recursive": True}
    (here / "out/sub").mkdir()
    (here / "out/sub/config").write_text("other")
    (here / "out/sub").rename(here / "out/.git")
    assert await refused(peer, "fs/copy", {**over, "destinationPath": uri(here / "work")}, here)
    assert (here / "work/.git/config").read_text() == "content"
    out_of = {"sourcePath": uri(here / "work/hidden"), "destinationPath": uri(here / "work/seen"), "recursive": True}
    assert await refused(peer, "fs/copy", out_of, here)
    above = {"sourcePath": uri(here / "work/a"), "destinationPath": uri(here / "work/seen"), "recursive": True}
    assert await refused(peer, "fs/copy", above, here)
    assert not (here / "work/seen/free/.env").exists()


async def test_a_watch_tells_only_of_what_may_be_read(peer: Peer, here: Path) -> None:
    it = policy(here)
    missing = {"missing": [uri(here / "work/hidden/new")], "sandbox": it}
    assert await peer.call("fs/watchMissing", {"watchId": 1, **missing}) == {"watching": False}
    (here / "to-work").symlink_to("work")
    watched = {"watchId": "w", "path": uri(here / "to-work"), "recursive": True, "sandbox": it}
    assert await peer.call("fs/watch", watched) == {}
    (here / "work/hidden/key").write_text("changed")
    (here / "work/hidden").chmod(0o700)
    (here / "work/a/free/.env").write_text("changed")
    (here / "work/f").write_text("changed")
    told = await peer.call("fs/readChanges", {"watchId": "w"})
    assert {change["path"] for change in told["changes"]} == {uri(here / "to-work/f")}


async def test_the_processes_and_devices_of_the_machine_are_closed(peer: Peer, here: Path) -> None:
    everything = {"permissions": {"type": "managed", "file_system": {"type": "unrestricted"}, "network": "restricted"}}
    for sandbox in (policy(here), everything):
        for path in ("/dev/null", "/proc/sys/kernel/core_pattern", "/proc/meminfo"):
            code, _, data = await peer.refused("fs/getMetadata", {"path": path, "sandbox": sandbox})
            assert (code, data["kind"], data["errno"]) == DENIED
    assert await peer.call("fs/writeFile", {"path": uri(here / "out/f"), "dataBase64": "", "sandbox": everything}) == {}


async def test_a_policy_without_the_root_leads_to_its_places_and_tells_of_no_other(peer: Peer, here: Path) -> None:
    it = files(entry(here / "work", "write"))
    written = {"path": uri(here / "work/new"), "dataBase64": "", "sandbox": it}
    assert await peer.call("fs/writeFile", written) == {}
    for path in ("/", here, here / "out", here / "out/f", here / "missing", "/missing"):
        code, _, data = await peer.refused("fs/getMetadata", {"path": str(path), "sandbox": it})
        assert (code, data["kind"], data["errno"]) == DENIED, path


async def test_a_root_that_is_a_link_is_under_the_policy_of_what_it_leads_to(
    open_server: OpenServer, here: Path
) -> None:
    (here / "root").symlink_to("work")
    peer = await open_server("memory", ServerConfig(file_roots=(str(here / "root"),))).peer()
    assert await refused(peer, "fs/readFile", {"path": uri(here / "root/hidden/key")}, here)
    assert await refused(peer, "fs/writeFile", {"path": uri(here / "root/.git/config"), "dataBase64": ""}, here)
    assert not await refused(peer, "fs/writeFile", {"path": uri(here / "root/f"), "dataBase64": ""}, here)


async def test_a_policy_that_cannot_be_kept_is_refused_and_nothing_is_done(peer: Peer, here: Path) -> None:
    it = files(ROOT, entry(here / "work", "write"), entry(here / "work/none", "read"))
    path = uri(here / "work/f")
    for method, params in {
        "fs/writeFile": {"path": path, "dataBase64": ""},
        "fs/readFile": {"path": path},
        "fs/open": {"path": path, "handleId": "h"},
        "fs/watch": {"path": path, "watchId": "w"},
    }.items():
        for sandbox in (it, {"permissions": {"type": "managed"}}, {"permissions": {"type": "new"}}):
            code, _, data = await peer.refused(method, {**params, "sandbox": sandbox})
            assert (code, data["kind"]) == (-32602, "sandboxUnavailable"), method
    assert (here / "work/f").read_text() == "content"
    await peer.call("fs/open", {"path": path, "handleId": "h"})  # the id is free


def test_no_link_that_comes_and_goes_leads_past_the_rules(here: Path) -> None:
    """The kernel is asked where a file really is that was found while the folder above it was being replaced."""
    (here / "work/swapped").mkdir()
    (here / "work/link").symlink_to(here / "out")
    (here / "work/swapped/f").write_text("content")
    roots = Roots(["/"]).under(lambda: Rules({"/": "read", str(here / "work"): "write"}))
    stop = threading.Event()
    thread = threading.Thread(target=swap, args=(here / "work/swapped", here / "work/link", stop))
    thread.start()
    found = 0
    try:
        for _ in range(3000):
            with suppress(OSError), roots.at(str(here / "work/swapped/f"), use="write") as place:
                opened = place.open(os.O_WRONLY)
                where = os.readlink(f"/proc/self/fd/{opened}")
                os.close(opened)
                assert not where.startswith(str(here / "out")), where
                found += 1
    finally:
        stop.set()
        thread.join()
    assert found


async def test_a_client_has_files_under_a_policy(here: Path, tmp_path: Path) -> None:
    work = here / "work"
    policy = Policy.read_only(network=False).write(work).protect(work / ".git").hide(work / "hidden")
    async with execsrv.connect_in_process() as client:
        files = client.files.under(policy)
        await files.write(work / "new", b"x" * 9_000_000)
        assert len(await files.read(work / "new")) == 9_000_000
        assert sorted(found.name for found in await files.list(work)) == [
            ".git",
            "a",
            "f",
            "new",
            "to-hidden",
            "to-out",
        ]
        async with files.open(work / "new", "r+b") as file:
            await file.write(b"y")
        await (files.path(work) / "new").unlink()
        (tmp_path / "local").write_text("put")
        await files.put(tmp_path / "local", work / "put")
        for refused in (
            files.write(work / ".git/config", b""),
            files.write(here / "out/f", b""),
            files.read(work / "hidden/key"),
            files.put(tmp_path / "local", here / "out/put"),
            files.get(work / "hidden", tmp_path / "got"),
            files.remove(work, recursive=True),
        ):
            with pytest.raises(FileRefusedError, match="the policy of this call"):
                await refused
        async with files.watch(work) as changes:
            await client.files.write(work / "hidden/key", b"changed", atomic=False)
            await files.write(work / "seen", b"", atomic=False)
            assert (await anext(changes)).path == str(work / "seen")
        assert await client.files.under(Policy.everything(network=True)).read(work / "hidden/key") == b"changed"
        with pytest.raises(TypeError, match="sandbox must be a Policy"):
            client.files.under("strict")  # type: ignore[arg-type]
    assert (work / ".git/config").read_text() == "content"


def test_plain_code_has_files_under_a_policy(here: Path) -> None:
    policy = Policy.read_only(network=False).write(here / "work")
    with execsrv.sync.launch([sys.executable, "-m", "execsrv", "serve", "--listen", "stdio://"]) as client:
        files = client.files.under(policy)
        files.write(here / "work/new", b"")
        with pytest.raises(FileRefusedError, match="the policy of this call"):
            files.write(here / "out/f", b"")
