"""The ways of a policy to its places: what a command has done to them leads no policy astray, nor away."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import execsrv
from execsrv import Policy
from execsrv._processes.confine import policy
from execsrv._processes.confine.places import Access, Confinement
from execsrv._processes.confine.policy import Wish, resolve
from execsrv._processes.confine.ways import way_to
from execsrv.errors import SandboxUnavailableError
from tests.confined import needs_confinement
from tests.processes import as_nobody

ROOT = Wish("/", "read")


def shown(confinement: Confinement) -> dict[str, Access]:
    return {os.fsdecode(place.path): place.access for place in confinement.places}


# -- a walk and the kernel --

NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(NAMES, NAMES, NAMES, st.sampled_from(["..", ".", ""]))
MADE = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=3), st.sampled_from(["folder", "file", "link"])), max_size=8
)


@given(made=MADE, targets=st.lists(st.tuples(st.booleans(), st.lists(STEPS, max_size=4), NAMES)), asked=st.lists(NAMES))
def test_a_walk_ends_where_the_kernel_does(
    made: list[tuple[list[str], str]], targets: list[tuple[bool, list[str], str]], asked: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = os.path.realpath(folder)
        ends = iter(targets)
        for names, kind in made:
            path = os.path.join(top, *names)
            with suppress(OSError):
                if kind == "folder":
                    os.makedirs(path)
                elif kind == "file":
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
                else:
                    absolute, steps, last = next(ends, (False, [], "a"))
                    os.symlink("/".join([*([top] if absolute else []), *steps, last]), path)
        path = os.path.join(top, *asked)
        way = way_to(os.fsencode(path))
        mode, number = _seen_by_kernel(path)
        assert (stat.S_IFMT(way.mode), way.error) == (stat.S_IFMT(mode), number)
        if not number:
            assert os.fsdecode(way.path) == os.path.realpath(path)
        assert all(stat.S_ISLNK(os.lstat(link).st_mode) for link in way.links)


def _seen_by_kernel(path: str) -> tuple[int, int]:
    """Return the mode of what is there, or why nothing is seen there."""
    try:
        return os.stat(path).st_mode, 0
    except OSError as error:
        return 0, error.errno or 0


def test_links_that_lead_back_and_forth_are_an_error_and_leave_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "long").symlink_to("x/" * 2000 + "x")
    (tmp_path / "x").symlink_to(".")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "up").symlink_to("../" * 500 + "etc")
    before = os.listdir("/proc/self/fd")
    for name in ("long", "round", "up"):
        way = way_to(os.fsencode(tmp_path / name))
        assert way.error in (errno.ELOOP, errno.ENAMETOOLONG), name
        with pytest.raises(SandboxUnavailableError, match="cannot be looked at: "):
            resolve([ROOT, Wish(str(tmp_path / name), "write")], network=False)
    assert os.listdir("/proc/self/fd") == before


# -- links behind links --


@pytest.mark.parametrize("access", ["read", "write", "none"])
def test_every_link_on_the_way_is_looked_at(tmp_path: Path, access: Access) -> None:
    for name in ("w/cache", "w/in", "elsewhere", "opt"):
        (tmp_path / name).mkdir(parents=True)
    w, elsewhere = str(tmp_path / "w"), str(tmp_path / "elsewhere")
    (tmp_path / "opt/cache").symlink_to("../opt/more")
    (tmp_path / "opt/more").symlink_to(f"{w}/cache")
    wishes = [ROOT, Wish(w, "write"), Wish(f"{tmp_path}/opt/cache", access, may_be_missing=True)]
    expected = {"/": "read", w: "write"} | ({} if access == "write" else {f"{w}/cache": access})
    assert shown(resolve(wishes, network=False)) == expected
    os.rename(f"{w}/cache", f"{w}/moved")
    os.symlink(elsewhere, f"{w}/cache")
    with pytest.raises(SandboxUnavailableError, match=f"{w}/cache is a link that a command could "):
        resolve(wishes, network=False)
    os.unlink(f"{w}/cache")
    os.symlink("in", f"{w}/cache")
    if access == "write":  # where it writes anyway
        assert shown(resolve(wishes, network=False)) == expected
    else:
        with pytest.raises(SandboxUnavailableError, match=f"{w}/cache is a link that a command could replace"):
            resolve(wishes, network=False)


def test_nothing_is_protected_by_a_link_into_what_a_command_has_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    wishes = [ROOT, Wish(f"{tmp_path}/w", "write")]
    cases: list[tuple[str, Access]] = [("/proc/self", "read"), ("/dev/sda", "none")]
    for target, access in cases:
        os.symlink(target, link := f"{tmp_path}/w/{access}")
        with pytest.raises(SandboxUnavailableError, match=f"w/{access} is a link that a command could replace"):
            resolve([*wishes, Wish(link, access)], network=False)
        os.symlink(target, link := f"{tmp_path}/{access}")
        resolve([*wishes, Wish(link, access)], network=False)


@needs_confinement
async def test_a_command_cannot_lead_the_policy_of_the_next_one_out(tmp_path: Path) -> None:
    for name in ("w/cache", "home"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "cache").symlink_to(tmp_path / "w/cache")
    policy = Policy.read_only(network=False).write(tmp_path / "w", tmp_path / "cache")
    async with execsrv.connect_in_process() as client:
        script = "cd w && touch ../cache/x && mv cache c && ln -s ../home cache"
        await client.run(["sh", "-c", script], cwd=str(tmp_path), sandbox=policy, check=True)
        with pytest.raises(SandboxUnavailableError, match="w/cache is a link that a command could have put there"):
            await client.run(["touch", f"{tmp_path}/home/x"], sandbox=policy)
        # Nor that of a call about files, which it would be the server itself to make.
        with pytest.raises(SandboxUnavailableError):
            await client.files.under(policy).write(f"{tmp_path}/home/x", b"")
    assert os.listdir(tmp_path / "home") == []


# -- what is closed --


@pytest.mark.parametrize("access", ["read", "none"])
@pytest.mark.parametrize("closed", ["w", "w/in"])
def test_what_is_closed_is_not_missing(access: Access, closed: str) -> None:
    with as_nobody() as top:
        (top / "w/in/.git").mkdir(parents=True)
        git = f"{top}/w/in/.git"
        wishes = [ROOT, Wish(f"{top}/w", "write"), Wish(git, access, may_be_missing=True)]
        assert shown(resolve(wishes, network=False))[git] == access
        (top / closed).chmod(0)
        with pytest.raises(SandboxUnavailableError, match=f"{git} cannot be looked at: Permission denied"):
            resolve(wishes, network=False)
        (top / closed).chmod(0o700)
        resolve(wishes, network=False)
        (top / closed).chmod(0)
        found = resolve([ROOT, Wish(git, "write")], network=False)
        assert found.notes == (f"{git}: it is closed to this server, so nothing can be written there",)
        (top / closed).chmod(0o700)


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o100])
@pytest.mark.parametrize("closed", ["w", "w/app", "w/app/deep"])
def test_a_pattern_passes_over_nothing_that_is_closed(closed: str, mode: int) -> None:
    with as_nobody() as top:
        (top / "w/app/deep").mkdir(parents=True)
        (top / "w/app/deep/.env").touch()
        assert list(policy.matches(f"{top}/w/**/.env", None)) == [f"{top}/w/app/deep/.env"]
        (top / closed).chmod(mode)
        try:
            with pytest.raises(SandboxUnavailableError, match=f"{closed} cannot be looked into, for .*: Permission"):
                list(policy.matches(f"{top}/w/**/.env", None))
        finally:
            (top / closed).chmod(0o700)


def test_a_name_that_can_be_seen_and_not_reached_is_not_missing() -> None:
    with as_nobody() as top:
        (top / "w").mkdir()
        (top / "w/.env").touch()
        (top / "w").chmod(0o400)
        try:
            for pattern in (f"{top}/w/*", f"{top}/w/.env"):
                found = list(policy.matches(pattern, None))
                assert found == [f"{top}/w/.env"]
                with pytest.raises(SandboxUnavailableError, match="cannot be looked at: Permission denied"):
                    resolve([ROOT, *(Wish(path, "none", may_be_missing=True) for path in found)], network=False)
        finally:
            (top / "w").chmod(0o700)


def test_a_closed_folder_that_no_match_can_be_in_is_none_of_its_business() -> None:
    with as_nobody() as top:
        (top / "w/app").mkdir(parents=True)
        (top / "w/app/.env").touch()
        (top / "w/.env").touch()
        (top / "w/app").chmod(0)
        try:
            assert list(policy.matches(f"{top}/w/.e*", None)) == [f"{top}/w/.env"]
            assert list(policy.matches(f"{top}/w/**/.env", 0)) == [f"{top}/w/.env"]
            with pytest.raises(SandboxUnavailableError, match="w/app cannot be looked into"):
                list(policy.matches(f"{top}/w/*/.e*", None))
        finally:
            (top / "w/app").chmod(0o700)


# -- what changes meanwhile --


@pytest.mark.parametrize("restless", [False, True], ids=["once", "all the time"])
@pytest.mark.parametrize("begins", ["folder", "link"])
@pytest.mark.parametrize("access", ["read", "write", "none"])
def test_a_folder_that_becomes_a_link_at_any_moment_leads_nowhere(
    tmp_path: Path, access: Access, begins: str, restless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("w/x/in", "home/in", "empty"):
        (tmp_path / name).mkdir(parents=True)
    w, home = str(tmp_path / "w"), str(tmp_path / "home")
    os.symlink(home, f"{w}/y")
    names = [f"{w}/x", f"{w}/y"]

    def exchange() -> None:
        rename(names[0], f"{w}/between")
        rename(names[1], names[0])
        rename(f"{w}/between", names[1])

    rename, looks, moment = os.rename, 0, 0

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def look(*arguments: Any, **named: Any) -> Any:
            nonlocal looks
            looks += 1
            if looks == moment or (restless and looks > moment):
                exchange()
            return call(*arguments, **named)

        return look

    wishes = [ROOT, Wish(w, "write"), Wish(f"{w}/x", access), Wish(f"{w}/x/in", access)]
    outcomes = set()
    for moment in count(1):
        if os.path.islink(f"{w}/x") == (begins == "folder"):
            exchange()
        looks = 0
        with monkeypatch.context() as patch:
            for name in ("open", "readlink", "fstat", "stat", "lstat"):
                patch.setattr(os, name, watched(getattr(os, name)))
            try:
                found = shown(resolve(wishes, network=False))
            except SandboxUnavailableError:
                outcomes.add("refused")
            else:
                outcomes.add("kept")
                assert found == {"/": "read", w: "write"} | ({} if access == "write" else {f"{w}/x": access})
        if looks < moment:
            break
    assert outcomes == {"kept", "refused"}
