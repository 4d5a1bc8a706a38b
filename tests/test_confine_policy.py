"""Policies: how they are read, resolved, kept or refused, and told; on the wire and by the client."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import execsrv
from execsrv import Policy
from execsrv._files.rules import Rules, Use
from execsrv._processes.confine import policy, start
from execsrv._processes.confine.layers import Means
from execsrv._processes.confine.places import Access, Confinement
from execsrv._processes.confine.policy import Wish, resolve
from execsrv._processes.confine.syscalls import NUMBERS
from execsrv.errors import InvalidParamsError, SandboxUnavailableError, SpawnError
from execsrv.protocol import OutputFile
from tests import deny
from tests.confined import needs_confinement
from tests.peers import Peer
from tests.test_survivors import _connected, open_daemon


def files(*entries: dict[str, Any], network: str = "restricted", **more: Any) -> dict[str, Any]:
    """Return a policy on the wire."""
    system = {"type": "restricted", "entries": list(entries)}
    return {"permissions": {"type": "managed", "file_system": system, "network": network}, **more}


def entry(path: str | Path | dict[str, Any], access: str, **more: Any) -> dict[str, Any]:
    place = path if isinstance(path, dict) else {"type": "path", "path": f"file://{path}"}
    return {"path": place, "access": access, **more}


def special(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "special", "value": {"kind": kind, **more}}


ROOT = entry(special("root"), "read")


# -- resolving --


def shown(confinement: Confinement) -> dict[str, Access]:
    return {os.fsdecode(place.path): place.access for place in confinement.places}


def test_the_longest_path_decides_and_denying_before_writing_before_reading(tmp_path: Path) -> None:
    for name in ("a/b/c", "d"):
        (tmp_path / name).mkdir(parents=True)
    a, b, c, d = (str(tmp_path / name) for name in ("a", "a/b", "a/b/c", "d"))
    wishes = [Wish(c, "write"), Wish(a, "write"), Wish(b, "read"), Wish("/", "read"), Wish(d, "write"), Wish(d, "none")]
    found = resolve(wishes, network=False)
    assert shown(found) == {"/": "read", a: "write", d: "none", b: "read", c: "write"}
    assert [place.depth for place in found.places] == sorted(place.depth for place in found.places)
    assert shown(resolve([Wish(a, "write"), Wish(a, "read"), Wish(b, "write")], network=False)) == {a: "write"}


def test_links_are_followed_once_and_a_part_behind_one_cannot_be_protected(tmp_path: Path) -> None:
    (tmp_path / "real/part").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/also").symlink_to("part")
    real = str(tmp_path / "real")
    assert shown(resolve([Wish(f"{tmp_path}/link", "write")], network=False)) == {real: "write"}
    with pytest.raises(SandboxUnavailableError, match="real/also is a link that a command could replace"):
        resolve([Wish(real, "write"), Wish(f"{real}/also", "read")], network=False)
    resolve([Wish(real, "write"), Wish(f"{tmp_path}/link/part", "read")], network=False)  # which is outside of it


def test_a_link_that_a_command_may_have_made_leads_no_further(tmp_path: Path) -> None:
    for name in ("work/in", "out"):
        (tmp_path / name).mkdir(parents=True)
    work, out = str(tmp_path / "work"), str(tmp_path / "out")
    (tmp_path / "work/to-out").symlink_to(out)
    (tmp_path / "work/to-root").symlink_to("/")
    (tmp_path / "work/to-in").symlink_to("in")
    root = Wish("/", "read")
    for link in ("to-out", "to-root"):
        with pytest.raises(SandboxUnavailableError, match="is a link that a command could have put there"):
            resolve([root, Wish(work, "write"), Wish(f"{work}/{link}", "write")], network=False)
    assert shown(resolve([root, Wish(work, "write"), Wish(f"{work}/to-in", "write")], network=False))[work] == "write"
    found = resolve([Wish("/", "write"), Wish(f"{work}/to-out", "write")], network=False)
    assert shown(found) == {"/": "write"}


def test_a_link_to_nothing_cannot_be_protected_where_a_command_could_replace_it(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/.git").symlink_to(tmp_path / "gone")
    wishes = [Wish("/", "read"), Wish(str(tmp_path / "work"), "write")]
    with pytest.raises(SandboxUnavailableError, match="git is a link that a command could replace"):
        resolve([*wishes, Wish(str(tmp_path / "work/.git"), "read")], network=False)
    resolve([*wishes, Wish(str(tmp_path / "work/.git"), "read", may_be_missing=True)], network=False)


def test_a_path_that_begins_with_two_slashes_is_a_path(tmp_path: Path) -> None:
    assert shown(resolve([Wish("//", "read"), Wish(f"/{tmp_path}", "none")], network=False)) == {
        "/": "read",
        str(tmp_path): "none",
    }


def test_what_is_missing_is_told_or_refused_where_it_could_be_made(tmp_path: Path) -> None:
    root, gone = Wish("/", "read"), str(tmp_path / "gone")
    found = resolve([root, Wish(gone, "write")], network=False)
    assert found.notes == (f"{gone}: it is missing, so nothing can be written there",)
    assert resolve([root, Wish(gone, "none")], network=False).notes == ()
    writes = [root, Wish(str(tmp_path), "write")]
    assert shown(resolve([*writes, Wish(gone, "read", may_be_missing=True)], network=False))[str(tmp_path)] == "write"
    kept: list[tuple[Access, str]] = [("read", "protected"), ("none", "hidden")]
    for access, word in kept:
        with pytest.raises(SandboxUnavailableError, match=f"is to be {word} and is missing"):
            resolve([*writes, Wish(gone, access)], network=False)


def test_what_a_view_has_of_its_own_can_be_neither_written_nor_denied() -> None:
    assert resolve([Wish("/dev/shm", "write")], network=False).notes == (
        "/dev/shm: a confined command has a /dev and a /proc of its own",
    )
    assert resolve([Wish("/", "read"), Wish("/dev/sda", "none")], network=False).notes == ()
    for path in ("/proc", "/proc/cpuinfo", "/dev", "/dev/null"):
        with pytest.raises(SandboxUnavailableError, match="cannot be denied"):
            resolve([Wish("/", "read"), Wish(path, "none")], network=False)


def test_nothing_is_seen_inside_of_what_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(SandboxUnavailableError, match="is to be seen inside of"):
        resolve([Wish("/", "read"), Wish(str(tmp_path), "none"), Wish(str(tmp_path / "a"), "read")], network=False)


def test_patterns_are_matched_at_the_start_and_bounded(tmp_path: Path) -> None:
    for name in ("a/.env", "a/b/.env", "a/b/x.txt", ".env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern: str, depth: int | None = None) -> list[str]:
        return sorted(os.path.relpath(path, tmp_path) for path in policy.matches(f"{tmp_path}/{pattern}", depth))

    assert found("**/.env") == [".env", "a/.env", "a/b/.env"]
    assert found("*/.env") == ["a/.env"]
    assert found("a/**") == ["a/.env", "a/b", "a/b/.env", "a/b/x.txt"]
    assert found("**/*.tx?") == ["a/b/x.txt"]
    assert found("**/.env", 1) == [".env", "a/.env"]
    assert found("none/*") == []
    assert found("a/.env") == ["a/.env"]
    assert found("none") == []
    (tmp_path / "line\nfeed").mkdir()
    (tmp_path / "line\nfeed/key").touch()
    assert found("**/key") == ["line\nfeed/key"]
    for pattern in ("**/[.]env", "**/{a,b}", "a\\*"):
        with pytest.raises(SandboxUnavailableError, match="more than"):
            found(pattern)
    for number in range(policy.MOST_MATCHES + 1):
        (tmp_path / f"a/{number}.log").touch()
    with pytest.raises(SandboxUnavailableError, match="more than 1024 matches"):
        found("**/*.log")


# -- on the wire --


@needs_confinement
async def test_a_managed_policy_is_kept_and_told(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "w/.git").mkdir(parents=True)
    it = files(
        ROOT,
        entry(special("project_roots"), "write"),
        entry(special("project_roots", subpath=".git"), "read", missing_path_behavior="skip"),
        entry(special("project_roots", subpath=".codex"), "read", missing_path_behavior="skip"),
        cwd=f"file://{tmp_path}/w",
        workspaceRoots=[f"file://{tmp_path}/w"],
        windowsSandboxLevel="disabled",
    )
    script = f"echo in >in; echo out >{tmp_path}/out; echo git >.git/x; ls"
    params = peer.start_params("a", ["sh", "-c", script]) | {"cwd": f"{tmp_path}/w", "sandbox": it}
    answer = await peer.call("process/start", params)
    assert (answer["sandboxType"], answer["sandbox"]["gaps"]) == ("linuxSeccomp", [])
    assert {"view", "landlock", "seccomp", "capabilities", "no-new-privs"} <= set(answer["sandbox"]["layers"])
    await peer.until_told("a", "closed")
    assert peer.output("a", "stdout") == b"in\n"
    assert not (tmp_path / "out").exists()
    assert os.listdir(tmp_path / "w/.git") == []


@needs_confinement
@pytest.mark.parametrize("tty", [False, True])
async def test_a_denial_is_told_with_its_evidence(peer: Peer, tty: bool) -> None:
    it = files(ROOT)

    async def end(id: str, script: str) -> dict[str, Any]:
        await peer.start(id, ["sh", "-c", script], tty=tty, sandbox=it)
        exited = await peer.until_told(id, "exited")
        await peer.until_told(id, "closed")
        read = await peer.call("process/read", {"processId": id})
        assert read["sandboxDenied"] == exited["sandboxDenied"]
        return exited

    denied = await end("a", "echo x >/usr/denied")
    assert denied["sandboxDenied"]
    assert denied["denial"]["evidence"] == "output"
    killed = await end("b", "kill -SYS $$")
    assert (killed["sandboxDenied"], killed["denial"]) == (True, {"evidence": "signal", "text": "SIGSYS"})
    for id, script in {"c": "exit 3", "d": "echo permission denied", "e": "exit 0"}.items():
        ended = await end(id, script)
        assert (ended["sandboxDenied"], "denial" in ended) == (False, False)
    await peer.start("f", ["sh", "-c", "echo permission denied; exit 1"], tty=tty)
    assert not (await peer.until_told("f", "exited"))["sandboxDenied"]  # it was not confined


MALFORMED: list[Any] = [
    entry("/", "execute"),
    entry({"type": "new", "path": "/"}, "read"),
    entry(special("new"), "read"),
    {"path": "/", "access": "read"},
    entry({"type": "path", "path": "relative"}, "read"),
    entry({"type": "path", "path": "http://x/"}, "read"),
]


@pytest.mark.parametrize("wrong", MALFORMED)
async def test_a_malformed_entry_is_refused(peer: Peer, wrong: Any) -> None:
    code, _, _ = await peer.refused("process/start", peer.start_params("a", ["true"]) | {"sandbox": files(wrong)})
    assert code == -32602
    assert await peer.call("process/list") == {"processes": []}


@needs_confinement
async def test_a_policy_that_cannot_be_kept_is_refused_and_nothing_runs(peer: Peer, tmp_path: Path) -> None:
    it = files(ROOT, entry(tmp_path, "write"), entry(tmp_path / "gone", "read"))
    params = peer.start_params("a", ["touch", f"{tmp_path}/ran"]) | {"sandbox": it}
    code, message, data = await peer.refused("process/start", params)
    assert (code, data["kind"]) == (-32602, "sandboxUnavailable")
    assert "gone is to be protected and is missing" in message
    assert not (tmp_path / "ran").exists()


@needs_confinement
async def test_nothing_can_be_done_by_a_policy_that_says_nothing(peer: Peer) -> None:
    params = peer.start_params("a", ["/bin/true"]) | {"sandbox": files()}
    _, message, data = await peer.refused("process/start", params)
    assert (data["kind"], data["stage"]) == ("spawnPermissionDenied", "permission"), message


@needs_confinement
async def test_programs_run_with_what_is_minimal_and_see_no_more(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    it = files(entry(special("minimal"), "read"), entry(special("unknown", path="x"), "read"))
    script = f"cat /etc/passwd >/dev/null && echo fine; cat {tmp_path}/secret; cat /etc/shadow; ls /root /home"
    await peer.start("a", ["sh", "-c", script], sandbox=it)
    await peer.until_told("a", "closed")
    said = peer.output("a").decode()
    assert said.startswith("fine\n")
    assert said.count("Permission denied") == 4
    assert "\nsecret" not in said


OVERREACHING: dict[str, Any] = {
    "a place that is not known here cannot be denied": files(ROOT, entry(special("unknown", path="x"), "deny")),
    "a part of slash_tmp is not known here": files(ROOT, entry(special("slash_tmp", subpath="x"), "write")),
    "its file_system is unrestricted, and has entries": {
        "permissions": {
            "type": "managed",
            "network": "enabled",
            "file_system": {"type": "unrestricted", "entries": [entry("/root", "deny")]},
        }
    },
}


@pytest.mark.parametrize("why", OVERREACHING)
async def test_nothing_that_takes_rights_away_is_passed_over(peer: Peer, why: str) -> None:
    params = peer.start_params("a", ["true"]) | {"sandbox": OVERREACHING[why]}
    code, message, data = await peer.refused("process/start", params)
    assert (code, data["kind"]) == (-32602, "sandboxUnavailable")
    assert why in message


async def test_a_call_that_keeps_no_policy_refuses_one(peer: Peer) -> None:
    params = {"argv": ["true"], "cwd": "/", "env": {}, "tty": False}
    code, message, data = await peer.refused("command/exec", params | {"sandbox": files(ROOT)})
    assert (code, data["kind"]) == (-32602, "sandboxUnavailable")
    assert "command/exec confines nothing" in message
    assert await peer.call("command/exec", params | {"sandbox": {"permissions": {"type": "disabled"}}})


@needs_confinement
async def test_a_policy_may_have_many_places(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(100)]
    for folder in folders:
        folder.mkdir()
    async with execsrv.connect_in_process() as client:
        policy = Policy.read_only(network=False).write(*folders)
        script = 'for d in "$@"; do touch $d/x || exit; done; ! touch /usr/x'
        await client.run(["sh", "-c", script, "sh", *map(str, folders)], sandbox=policy, check=True)
    assert all((folder / "x").exists() for folder in folders)


@needs_confinement
async def test_the_files_of_its_output_are_opened_with_its_own_rights(tmp_path: Path) -> None:
    for name in ("work", "outside"):
        (tmp_path / name).mkdir()
    work, kept = tmp_path / "work", tmp_path / "outside/kept"
    kept.write_text("kept")
    (work / "link").symlink_to(kept)
    script = ["sh", "-c", "echo out; echo err >&2"]
    async with execsrv.connect_in_process() as client:
        policy = Policy.read_only(network=False).write(work)

        async def run(**places: Any) -> None:
            async with client.start(script, sandbox=policy, **places) as process:
                assert (await process.wait()).exit_code == 0

        for path in (kept, work / "link", tmp_path / "outside/new"):
            for append in (False, True):
                with pytest.raises(SpawnError, match=f"cannot open `{path}` for its stdout") as caught:
                    await run(stdout=OutputFile(str(path), append))
                assert caught.value.stage == "stdout"
        assert (os.listdir(tmp_path / "outside"), kept.read_text()) == (["kept"], "kept")
        await run(stdout=work / "both", stderr=execsrv.STDOUT)
        await run(stdout=work / "o", stderr=work / "e")
        await run(stdout=OutputFile(str(work / "o"), True))
    assert [(work / name).read_text() for name in ("both", "o", "e")] == ["out\nerr\n", "out\nout\n", "err\n"]


# -- by the client --


@needs_confinement
async def test_a_client_has_policies(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("told")
    (tmp_path / ".git").mkdir()
    async with execsrv.connect_in_process() as client:
        workspace = Policy.workspace_write(tmp_path, network=False)
        script = f"echo x >{tmp_path}/x && cat {tmp_path}/secret; touch {tmp_path}/.git/x /usr/x"
        result = await client.run(["sh", "-c", script], sandbox=workspace, text=True)
        assert (result.stdout, result.exit_code) == ("told", 1)
        assert result.denial is not None
        assert result.denial.evidence == "output"
        hidden = workspace.hide(tmp_path / "secret")
        assert (await client.run(["cat", str(tmp_path / "secret")], sandbox=hidden)).exit_code == 1
        protected = Policy.everything(network=True).protect(tmp_path)
        assert (await client.run(["touch", str(tmp_path / "y")], sandbox=protected)).exit_code == 1
        assert (await client.run(["touch", str(tmp_path / "y")], sandbox=protected.write(tmp_path))).exit_code == 0
        async with client.start(["true"], sandbox=Policy.read_only(network=False)) as process:
            assert process.confined is not None
            assert "seccomp" in process.confined.layers
        async with client.start(["true"]) as process:
            assert process.confined is None
        with pytest.raises(TypeError, match="sandbox must be a Policy, got str"):
            await client.run(["true"], sandbox="strict")  # type: ignore[call-overload]
        with pytest.raises(InvalidParamsError):
            Policy.read_only(network="no")  # type: ignore[arg-type]
        with pytest.raises(InvalidParamsError, match=r"paths\[1\] must be an absolute path .*, got 'build'"):
            workspace.hide("/tmp", "build")
        with pytest.raises(InvalidParamsError, match=r"folders\[0\] must be an absolute path .*, got 'build'"):
            Policy.workspace_write("build", network=False)


@needs_confinement
async def test_paths_of_a_client_need_not_be_utf_8(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"odd \xff %41")
    (odd / ".git").mkdir(parents=True)
    (odd / "secret").touch()
    async with execsrv.connect_in_process() as client:
        workspace = Policy.workspace_write(odd, network=False).hide(odd / "secret")
        script = "touch made; touch .git/x 2>/dev/null || pwd"
        await client.run(["sh", "-c", script], cwd=odd, stdout=OutputFile(str(odd / "out")), sandbox=workspace)
        assert (odd / "out").read_bytes() == os.fsencode(f"{odd}\n")
        assert sorted(path.name for path in odd.iterdir()) == [".git", "made", "out", "secret"]
        with pytest.raises(InvalidParamsError, match=r"cwd must be an absolute path .*, got 'odd .udcff %41'"):
            await client.run(["true"], cwd=odd.name)


# -- a policy against the kernel --

USES: list[Use] = ["read", "write"]
NAMES = ["a", "a/b", "a/b/c", "a/d", "e", "e/f"]
Wishes = dict[str, Literal["read", "write", "none"]]


@needs_confinement
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(wanted=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["read", "write", "none"]), max_size=5))
async def test_what_is_resolved_is_what_the_kernel_does(
    tmp_path_factory: pytest.TempPathFactory, wanted: Wishes
) -> None:
    top = tmp_path_factory.mktemp("tree")
    for name in NAMES:
        (top / name).mkdir(parents=True)
        (top / name / "file").write_text("x")
    made = Policy.read_only(network=False).write(top)
    for name, access in wanted.items():
        narrow = {"read": made.protect, "write": made.write, "none": made.hide}[access]
        made = narrow(top / name)
    try:
        found = resolve([Wish("/", "read"), Wish(str(top), "write"), *_wishes(top, wanted)], network=False)
    except SandboxUnavailableError:
        return
    probe = 'for d in "$@"; do r=0; w=0; (: <$d/file) 2>&- && r=1; (: >$d/new) 2>&- && w=1; echo $r$w; done'
    async with execsrv.connect_in_process() as client:
        argv = ["sh", "-c", probe, "sh", *(str(top / name) for name in NAMES)]
        said = (await client.run(argv, sandbox=made, text=True, check=True)).stdout.split()
    rules = Rules({os.fsdecode(place.path): place.access for place in found.places})
    expected = {"none": "00", "read": "10", "write": "11"}
    for name, seen in zip(NAMES, said, strict=True):
        place = found.at(os.fsencode(top / name))
        assert place is not None
        assert seen == expected[place.access], (name, wanted)
        for use, allowed in zip(USES, seen, strict=True):  # so do the methods of files
            assert rules.may(str(top / name / "file"), use) == (allowed == "1"), (name, wanted)


def _wishes(top: Path, wanted: Wishes) -> Iterator[Wish]:
    for name, access in wanted.items():
        yield Wish(str(top / name), access)


# -- less --

EPERM = 1


@asynccontextmanager
async def denying(call: str, folder: Path, *options: str) -> AsyncIterator[Peer]:
    """Open a peer of a server on a machine that refuses a system call."""
    argv = [sys.executable, deny.__file__, str(EPERM), call, sys.executable, "-m", "execsrv", "serve"]
    async with (
        open_daemon((argv, dict(os.environ)), f"unix://{folder}/s", *options) as (_, url),
        _connected(url) as peer,
    ):
        await peer.handshake()
        yield peer


@pytest.fixture
def without_namespaces(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Peer]]:
    """Open a peer of a server on a machine that makes no namespaces, with some options."""
    if not isinstance(start.means_without_view(), Means):
        pytest.skip("Landlock keeps no signals in here")
    return partial(denying, str(NUMBERS["unshare"]), tmp_path)


PRIMITIVES = [
    *"mount mount_setattr open_tree move_mount openat2 mknodat symlinkat capset setsid".split(),
    *"landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp unshare".split(),
    *("prctl:24", "prctl:28"),
]


@needs_confinement
@pytest.mark.skipif(os.getuid() != 0, reason="others have no use for some of them")
@pytest.mark.parametrize(
    "call", [call if call == "landlock_add_rule" else pytest.param(call, marks=pytest.mark.slow) for call in PRIMITIVES]
)
async def test_without_any_of_its_primitives_a_start_is_refused_and_nothing_has_run(call: str, tmp_path: Path) -> None:
    name, colon, first = call.partition(":")
    async with denying(f"{NUMBERS[name]}{colon}{first}", tmp_path) as peer:
        _, _, data = await peer.refused("process/start", start_with(peer, tmp_path))
        assert data["kind"] == "sandboxUnavailable"
        assert data["errno"] in (EPERM, errno.EOPNOTSUPP)
        assert not (tmp_path / "made").exists()
        assert await peer.call("process/list") == {"processes": []}


def start_with(peer: Peer, folder: Path, *more: dict[str, Any], **others: Any) -> dict[str, Any]:
    script = f"echo x >{folder}/made; echo x >{folder}/../outside; echo $?; cat /dev/null; ls -d /usr"
    it = files(ROOT, entry(folder, "write"), *more, **others)
    return peer.start_params("a", ["sh", "-c", script]) | {"sandbox": it}


async def test_less_is_had_only_where_its_caller_asks_and_the_operator_permits_it(
    without_namespaces: Callable[..., AbstractAsyncContextManager[Peer]], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    async with without_namespaces() as peer:
        _, message, data = await peer.refused("process/start", start_with(peer, work, atLeast="landlock"))
        assert message.endswith("is not allowed here: allow_landlock_only is off")
        assert (data["kind"], data["step"], data["errno"]) == ("sandboxUnavailable", "unshare", EPERM)
    async with without_namespaces("--allow-landlock-only") as peer:
        code, message, _ = await peer.refused("process/start", start_with(peer, work))
        assert (code, "allow_landlock_only" in message) == (-32602, False)
        part = start_with(peer, tmp_path, entry(work, "read"), atLeast="landlock")
        _, message, _ = await peer.refused("process/start", part)
        assert message.startswith("Landlock alone cannot keep this policy: ")
        everything = files(entry(special("root"), "write"), atLeast="landlock")
        _, message, _ = await peer.refused("process/start", part | {"sandbox": everything})
        assert message == "Landlock alone cannot keep this policy: everything is to be written, devices among it"
        assert os.listdir(work) == []
        answer = await peer.call("process/start", start_with(peer, work, atLeast="landlock"))
        assert answer["sandbox"] == {
            "layers": ["capabilities", "landlock", "no-new-privs", "seccomp"],
            "gaps": list(start.WITHOUT_VIEW),
        }
        await peer.until_told("a", "closed")
        assert peer.output("a", "stdout") == b"2\n/usr\n"
    assert os.listdir(work) == ["made"]
    assert not (tmp_path / "outside").exists()


@needs_confinement
async def test_who_takes_less_gets_all_where_it_can_be_had(peer: Peer, tmp_path: Path) -> None:
    answer = await peer.call("process/start", start_with(peer, tmp_path, atLeast="landlock"))
    assert "view" in answer["sandbox"]["layers"]
    assert answer["sandbox"]["gaps"] == []
