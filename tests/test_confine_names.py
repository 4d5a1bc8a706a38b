"""Names that are no text, in a policy: they are told as text, and nothing but the start is refused for them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from execsrv._processes.confine.places import Confinement, Place
from execsrv._processes.supervisor import Supervisor
from execsrv.errors import SpawnError
from tests.confined import needs_confinement
from tests.conftest import with_packed
from tests.peers import Peer
from tests.test_confine_policy import ROOT, entry, files
from tests.test_confine_start import spawn

transport = with_packed()

ODD = b"odd\xff.env"


@asynccontextmanager
async def beside_another(peer: Peer) -> AsyncIterator[None]:
    """Have a session run that does not notice what is done in the block."""
    await peer.start("other", ["sleep", "1000"])
    yield
    [other] = [named for named in (await peer.call("process/list"))["processes"] if named["processId"] == "other"]
    assert other["state"] == "running"
    assert not peer.ended


def glob(pattern: str) -> dict[str, Any]:
    return entry({"type": "glob_pattern", "pattern": pattern}, "deny")


@needs_confinement
async def test_a_link_that_a_command_has_made_ends_nothing_but_the_next_start(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    it = files(ROOT, entry(tmp_path / "work", "write"), glob(f"{tmp_path}/work/**/*.env"))
    async with beside_another(peer):
        script = "ln -s /etc/hosts \"$(printf 'odd\\377.env')\""
        params = peer.start_params("a", ["sh", "-c", script]) | {"cwd": f"{tmp_path}/work", "sandbox": it}
        await peer.call("process/start", params)
        await peer.until_told("a", "closed")
        assert os.listdir(os.fsencode(tmp_path / "work")) == [ODD]
        code, message, data = await peer.refused("process/start", params | {"processId": "b"})
        assert (code, data["kind"]) == (-32602, "sandboxUnavailable")
        assert "work/odd\ufffd.env is a link that a command could replace" in message
        code, message, data = await peer.refused("fs/readFile", {"path": f"file://{tmp_path}/work/x", "sandbox": it})
        assert data["kind"] == "sandboxUnavailable"
        assert "odd\ufffd.env" in message


@needs_confinement
async def test_what_is_missing_is_told_as_text(peer: Peer, tmp_path: Path) -> None:
    async with beside_another(peer):
        it = files(ROOT, entry(f"{tmp_path}/%FF", "write"))
        answer = await peer.call("process/start", peer.start_params("a", ["true"]) | {"sandbox": it})
        told = f"{tmp_path}/\ufffd: it is missing, so nothing can be written there"
        assert answer["sandbox"]["gaps"] == [told]
        await peer.until_told("a", "closed")


@needs_confinement
async def test_a_step_that_fails_is_told_as_text(tmp_path: Path) -> None:
    gone = Place(os.fsencode(tmp_path) + b"/\xff", "write")
    with pytest.raises(SpawnError) as caught:
        spawn(Supervisor(), ["true"], Confinement((Place(b"/", "read"), gone), network=False))
    step = f"bind {tmp_path}/\ufffd"
    assert caught.value.facts == {"stage": "sandbox", "errno": 2, "step": step}
    assert step in caught.value.message
