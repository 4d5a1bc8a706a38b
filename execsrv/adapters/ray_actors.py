"""The actors of `execsrv.adapters.ray`: one that keeps a server on each node, and one a node that owns the server.

An actor that owns a server ends with it, so that Ray starts both anew, and ends with its raylet, which Ray alone does
not see to. What Ray starts anew is a new server, under a new URL and with a new token.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from execsrv._doors.tokens import Entry, new_token, sha256
from execsrv.protocol.roles import Role

_LOOK_SECONDS = 0.5
"""So often the keeper looks for nodes, and asks its servers whether they are there."""

_PATIENCE_SECONDS = 5.0
"""A server that has not answered for that long is told to nobody until it does."""

_AGAIN_SECONDS = 5.0
"""So long between two attempts to start a server on a node where the first failed."""

_SAID_LINES = 5
_NOT_LABELS = ("memory", "object_store_memory")


class Told(NamedTuple):
    """The answer of an actor that owns a server: where it is, or why it is not."""

    url: str = ""
    token: str = ""
    failure: str = ""


class _Kept:
    """One node, and the actor there."""

    def __init__(self, actor: Any, labels: dict[str, str]) -> None:
        self.actor = actor
        self.labels = labels
        self.told = Told()
        self.asked_at = self.heard_at = time.monotonic()
        self.question: Any = None


class Keeper:
    """Keeps an actor with a server on each node. Its methods answer at once, from what it saw last."""

    def __init__(self, listen: str, options: Sequence[str]) -> None:
        self._listen, self._options = listen, tuple(options)
        self._nodes: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._has_looked = threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    def endpoints(self) -> list[dict[str, Any]]:
        """Return the servers that answer, as the fields of an `Endpoint`."""
        self._has_looked.wait()
        with self._lock:
            kept = list(self._nodes.values())
        late = time.monotonic() - _PATIENCE_SECONDS
        return [
            {
                "url": node.told.url,
                "token": node.told.token,
                "allow_plain_network": "--allow-plain-network" in self._options,
                "labels": node.labels,
            }
            for node in kept
            if node.told.url and node.heard_at > late
        ]

    def wait_ready(self, patience: float) -> str:
        """Wait until every node has a server; return why one has none, and nothing if all have."""
        deadline = time.monotonic() + patience
        self._has_looked.wait(patience)
        while True:
            with self._lock:
                kept = dict(self._nodes)
            failed = {name: node for name, node in kept.items() if node.told.failure}
            missing = [name for name, node in kept.items() if not node.told.url]
            if failed:
                name, node = next(iter(failed.items()))
                return f"node {name}: {node.told.failure}"
            if kept and not missing:
                return ""
            if time.monotonic() > deadline:
                return f"{len(missing)} of {len(kept)} nodes have none after {patience:g} s"
            time.sleep(_LOOK_SECONDS / 5)

    def _keep(self) -> None:
        while True:
            try:
                self._look()
            except Exception as error:  # such as Ray itself starting anew: it is looked again, whatever it was
                print(f"execsrv: cannot look after the servers: {error!r}", file=sys.stderr)
            self._has_looked.set()
            time.sleep(_LOOK_SECONDS)

    def _look(self) -> None:
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for name in self._nodes.keys() - alive.keys():
            self._drop(name)
        for name in alive.keys() - self._nodes.keys():
            kept = _Kept(self._start(name), _labels(alive[name]))
            with self._lock:
                self._nodes[name] = kept
        for name, kept in list(self._nodes.items()):
            self._ask(name, kept)

    def _start(self, node: str) -> Any:
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = ray.remote(Owner).options(num_cpus=0, max_restarts=-1, scheduling_strategy=strategy)
        return actor.remote(self._listen, self._options)

    def _ask(self, name: str, kept: _Kept) -> None:
        """Take the answer to the last question, if there is one, and ask again."""
        if kept.told.failure:
            if time.monotonic() - kept.heard_at > _AGAIN_SECONDS:
                self._drop(name)
            return
        if kept.question is not None:
            if not ray.wait([kept.question], timeout=0)[0]:
                return
            try:
                kept.told = ray.get(kept.question)
                kept.heard_at = time.monotonic()
            except ray.exceptions.RayError:
                kept.told = Told()  # it starts anew
        kept.question = kept.actor.tell.remote()

    def _drop(self, name: str) -> None:
        with self._lock:
            kept = self._nodes.pop(name)
        ray.kill(kept.actor)


class Owner:
    """Owns the server of one node: it ends with the server, with its raylet, and when Ray ends it."""

    def __init__(self, listen: str, options: Sequence[str]) -> None:
        raylet = os.getppid()
        _end_with(raylet)
        token = new_token()
        with open(os.memfd_create("execsrv-tokens"), "w") as tokens:
            os.fchmod(tokens.fileno(), 0o600)
            tokens.write(Entry("pool", Role.OWNER, sha256(token), None).line())
            tokens.flush()
            node = ray.util.get_node_ip_address()
            words = [sys.executable, "-m", "execsrv", "serve", "--listen", listen.replace("{node}", node)]
            words += ["--until-stdin-closes", "--quiet", "--token-file", f"/proc/self/fd/{tokens.fileno()}", *options]
            self._server = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=_environment(raylet),
                pass_fds=[tokens.fileno()],
                start_new_session=True,  # Ray kills groups: the server is to end by its lifeline, and clean up
            )
        self._said: deque[str] = deque(maxlen=_SAID_LINES)
        self._told = self._listening(token)

    def tell(self) -> Told:
        """Return where the server is."""
        return self._told

    def _listening(self, token: str) -> Told:
        log = threading.Thread(target=self._pass_log, daemon=True)
        log.start()
        assert self._server.stdout is not None
        url = self._server.stdout.readline().strip()
        if url:
            _end_with(self._server.pid)
            return Told(url, token)
        self._server.wait()
        log.join(_AGAIN_SECONDS)
        said = " ".join(" ".join(self._said).split()).removeprefix("execsrv: ")
        return Told(failure=said or f"the server ended with status {self._server.returncode}")

    def _pass_log(self) -> None:
        """Pass what the server says on to the log of this actor."""
        assert self._server.stderr is not None
        for line in self._server.stderr:
            self._said.append(line)
            sys.stderr.write(line)


def _end_with(pid: int) -> None:
    """End this process when that one has ended."""
    descriptor = os.pidfd_open(pid)

    def wait() -> None:
        select.select([descriptor], [], [])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _environment(raylet: int) -> dict[str, str]:
    """Return the environment of the node: that of its raylet, before Ray has fitted it to a worker with no GPU."""
    try:
        with open(f"/proc/{raylet}/environ", "rb") as file:
            text = os.fsdecode(file.read())
        found = dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
    except OSError:
        found = dict(os.environ)
    return {name: value for name, value in found.items() if not name.startswith(("EXECSRV_", "RAY_"))}


def _labels(node: dict[str, Any]) -> dict[str, str]:
    """Return the labels of a node: its own, and how much it has of each resource."""
    labels = {
        name: f"{amount:g}"
        for name, amount in node.get("Resources", {}).items()
        if name not in _NOT_LABELS and not name.startswith("node:")
    }
    labels.update(node.get("Labels", {}))
    return labels
