"""Login shells that are restored from a snapshot show what a real one would, or run their login files after all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv import ServerConfig
from execsrv._login_shells import snapshots
from tests.confined import needs_confinement
from tests.conftest import OpenServer, Server
from tests.peers import ENV, Peer
from tests.processes import may_become_nobody, new_mark, until_gone, until_marked

BASH = shutil.which("bash") or ""
pytestmark = pytest.mark.skipif(not BASH, reason="there is no bash")

COUNTED = "echo run >> ~/runs\n"
"""Login files that begin with this tell how often they were run."""

HARD = r"""
export MULTI="two
lines, 'single' \"double\" \$dollar \`tick\` \\"
export BYTES=$'\377\376 no text'
export UTF=grün EMPTY= BASH_ENV=/dev/null
unset GONE
PATH=$HOME/bin:$PATH
declare -i number=5; declare -u UPPER=abc; declare -n ref=number; declare -rx FIXED=1
readonly -a LIST=(1 "a b"); declare -A TABLE=([x]="1 2" ["q r"]=3); not_exported=$'a\nb'
PROMPT_COMMAND=(one two); IFS=:
shopt -s extglob expand_aliases nullglob
quoted() { echo "it's \"$1\" $(echo sub) `echo tick`"; cat <<END
here: $1
END
}
matched() { case $1 in @(a|b)*) echo yes;; *) echo no;; esac; }
with-dash() { :; }
export -f quoted
readonly -f with-dash
alias greet='echo hello' declare='echo no' shopt='echo neither'
alias -- -='cd -'
umask 027
trap 'echo "at the end: $?"' EXIT
trap '' USR1
trap 'echo failed' ERR
set -o pipefail -u
enable -n test
(exit 3)
"""

LOOK = r"""echo "status $?"
greet; quoted x; matched b; echo "$ref $UPPER ${LIST[1]} ${TABLE[q r]} $not_exported"
volatile='BASH_ARG[CV]|BASHPID|BASH_LINENO|EPOCH|RANDOM|SRANDOM|SECONDS|PPID|_='
\builtin declare -p | grep -avE "^declare -[a-z-]+ ($volatile)"
\builtin declare -f; \builtin declare -F; alias; \builtin shopt; set -o; trap; umask; enable -n; pwd
ulimit -a | grep -v real-time
env -0 | sort -z | tr '\0' '\n'; bash -c 'quoted inner'; echo "$0 $# $1 $- $SHLVL"; set +u; false; nobody=$unset
ls -l /proc/self/fd | wc -l; echo "$BASH_EXECUTION_STRING"; \builtin test
"""


CONFINED = {"permissions": {"type": "managed", "file_system": {"type": "unrestricted"}, "network": "restricted"}}


class Shells:
    """Login shells of one home, started by a raw peer."""

    def __init__(self, peer: Peer, home: Path) -> None:
        self.peer = peer
        self.home = home
        self.snapshot: Any = {"scopeId": "scope", "shell": {"name": "bash", "path": BASH}}
        self._number = 0

    def profile(self, text: str) -> None:
        (self.home / ".bash_profile").write_text(COUNTED + text)

    @property
    def runs(self) -> int:
        """How often the login files have been run."""
        path = self.home / "runs"
        return path.read_text().count("run\n") if path.exists() else 0

    async def start(self, *argv: str, env: Mapping[str, str] = {}, **params: Any) -> dict[str, Any]:
        """The answer to a start of a login shell, with a snapshot unless `shellSnapshot` says otherwise."""
        self._number += 1
        env = {**ENV, "HOME": str(self.home), "GONE": "1", **env}
        params = {"shellSnapshot": self.snapshot, "env": env, "cwd": str(self.home)} | params
        result: dict[str, Any] = await self.peer.start(f"p{self._number}", list(argv), **params)
        return result

    async def run(self, line: str, *words: str, **params: Any) -> tuple[str | None, str]:
        """What the answer says of the snapshot, and all that a login shell prints."""
        result = await self.start(BASH, "-lc", line, *words, **params)
        await self.peer.until_told(result["processId"], "closed")
        output = b"".join(self.peer.output(result["processId"], stream) for stream in ("stdout", "stderr", "pty"))
        return result.get("shellSnapshot"), output.decode(errors="surrogateescape")


@pytest.fixture
async def shells(server: Server, tmp_path: Path) -> Shells:
    return Shells(await server.peer(), tmp_path)


async def test_initialize_offers_snapshots(server: Server) -> None:
    greeting = await (await server.peer(ready=False)).handshake()
    assert greeting["environmentInfo"]["capabilities"]["shellSnapshotV2"] is True


@pytest.mark.few
@pytest.mark.usefixtures("starter")
async def test_a_restored_shell_shows_what_a_login_shell_shows(shells: Shells) -> None:
    shells.profile(HARD)
    real = await shells.run(LOOK, "name", "word", shellSnapshot=None)
    assert real[0] is None
    assert "status 3" in real[1]
    assert "hello" in real[1]
    for _ in range(2):
        restored = await shells.run(LOOK, "name", "word")
        assert restored[0] == "restored"
        assert restored[1].splitlines() == real[1].splitlines()
    assert shells.runs == 2


async def test_login_files_are_run_once_for_many_shells_at_once(shells: Shells) -> None:
    shells.profile("export MADE=yes")
    env = {**ENV, "HOME": str(shells.home)}
    params = shells.peer.start_params("", [BASH, "-lc", "echo $MADE"], env=env, shellSnapshot=shells.snapshot)
    for number in range(6):
        await shells.peer.post("process/start", params | {"processId": f"many-{number}"})
    for number in range(6):
        await shells.peer.until_told(f"many-{number}", "closed")
        assert shells.peer.output(f"many-{number}", "stdout") == b"yes\n"
    assert shells.runs == 1
    assert await shells.run("echo $MADE") == ("restored", "yes\n")


async def test_what_login_files_print_is_not_told_again(shells: Shells) -> None:
    shells.profile("echo noise; printf 'a\\0b'; echo more >&2; yes | head -c 70000")
    assert await shells.run("echo $$ > pid; cat pid > other; echo said") == ("restored", "said\n")


async def test_another_environment_has_another_snapshot(shells: Shells) -> None:
    shells.profile('export MADE="of ${WITH-nothing}" LIST="more:$LIST"')
    assert await shells.run("echo $MADE") == ("restored", "of nothing\n")
    assert await shells.run("echo $MADE", env={"WITH": "it"}) == ("restored", "of it\n")
    assert await shells.run("echo $LIST", env={"LIST": "mine"}) == ("restored", "more:mine\n")
    assert shells.runs == 3


async def test_a_start_has_its_own_tracing_and_tool_call(shells: Shells) -> None:
    shells.profile("")
    line = "echo $CODEX_TOOL_CALL_ID $TRACEPARENT; pwd"
    for call in ("call_1", "call_2"):
        env = {"CODEX_TOOL_CALL_ID": call, "TRACEPARENT": f"of {call}", "PWD": f"/{call}"}
        assert await shells.run(line, env=env, cwd="/") == ("restored", f"{call} of {call}\n/\n")
    assert shells.runs == 1


async def test_changed_login_files_are_run_again(shells: Shells) -> None:
    shells.profile("export MADE=first; . ~/.bashrc")
    (shells.home / ".bashrc").write_text("export MORE=first")
    assert await shells.run("echo $MADE $MORE") == ("restored", "first first\n")
    (shells.home / ".bashrc").write_text("export MORE=another")
    assert await shells.run("echo $MADE $MORE") == ("restored", "first another\n")


async def test_each_scope_and_each_connection_has_its_own(server: Server, tmp_path: Path) -> None:
    first = Shells(await server.peer(), tmp_path)
    first.profile("")
    await first.run("true")
    first.snapshot = {**first.snapshot, "scopeId": "other"}
    await first.run("true")
    second = Shells(await server.peer(), tmp_path)
    await second.run("true")
    assert first.runs == 3


@pytest.mark.few(8)
@pytest.mark.parametrize(
    "profile",
    [
        "cd /",
        "set -- word",
        "ulimit -c 0; ulimit -n 77",
        "exec 5</dev/null",
        "exec 2>~/log",
        "trap 'echo -n .' DEBUG",
        "sleep 600 & echo $! > ~/left",
        "yes | head -c 2000000",
    ],
)
async def test_what_cannot_be_restored_is_run_each_time(shells: Shells, profile: str) -> None:
    shells.profile(profile)
    line = "pwd; echo $#; ulimit -n; fds=(/proc/$$/fd/*); echo ${fds[@]##*/}; [ -e left ] && kill $(cat left)"
    real = await shells.run(line, shellSnapshot=None)
    for _ in range(2):
        assert await shells.run(line) == ("unused", real[1])
    assert shells.runs == 4  # one of them found out


@pytest.mark.parametrize("profile", ["exit 4", "exec echo away", "false; set -e; false", "kill -KILL $$"])
async def test_login_files_that_end_the_shell_do_so_each_time(shells: Shells, profile: str) -> None:
    shells.profile(profile)
    real = await shells.run("echo never", shellSnapshot=None)
    assert await shells.run("echo never") == ("unused", real[1])
    assert "never" not in real[1]


async def test_login_files_that_hang_are_given_up(shells: Shells, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "TAKING_SECONDS", 0.5)
    mark = new_mark()
    shells.profile(f"[ -e tried ] || {{ touch tried; bash -c 'exec -a {mark} sleep 600'; }}")
    assert await shells.run("echo done") == ("unused", "done\n")
    assert await shells.run("echo done") == ("unused", "done\n")
    await until_gone(mark)
    assert shells.runs == 3


async def test_a_deadline_of_the_command_leaves_it_its_time(shells: Shells) -> None:
    shells.profile("echo begun; sleep 600")
    result = await shells.start(BASH, "-lc", "true", timeoutMs=1000)
    exited = await shells.peer.until_told(result["processId"], "exited")
    assert (result["shellSnapshot"], exited["reason"]) == ("unused", "timeout")
    assert shells.peer.output(result["processId"], "stdout") == b"begun\n"


async def test_the_end_of_the_connection_ends_the_login_files(server: Server, tmp_path: Path) -> None:
    mark = new_mark()
    async with server.open_peer() as peer:
        await peer.handshake()
        shells = Shells(peer, tmp_path)
        shells.profile(f"bash -c 'exec -a {mark} sleep 600'")
        params = peer.start_params("p", [BASH, "-lc", "true"], env={**ENV, "HOME": str(tmp_path)})
        await peer.post("process/start", params | {"shellSnapshot": shells.snapshot})
        await until_marked(mark, 1)
    await until_gone(mark)


async def test_other_starts_are_as_they_were_asked_for(shells: Shells) -> None:
    shells.profile("export MADE=yes")
    await shells.run("true")
    runs = shells.runs
    for argv in ([BASH, "-c", "true"], [BASH, "-l", "-c", "true"], ["bash", "-lc", "true"], [BASH, "-lc"]):
        assert (await shells.start(*argv))["shellSnapshot"] == "unused"
    for shell in ({"name": "zsh", "path": BASH}, {"name": "bash", "path": "/other/bash"}):
        snapshot = {**shells.snapshot, "shell": shell}
        assert (await shells.start(BASH, "-lc", "true", shellSnapshot=snapshot))["shellSnapshot"] == "unused"
    assert (await shells.run("echo $MADE", tty=True)) == ("unused", "yes\r\n")
    assert (await shells.run("echo $MADE", kind="prepared")) == ("unused", "yes\n")
    assert shells.runs > runs


@pytest.mark.few
async def test_wishes_of_a_start_are_kept(shells: Shells) -> None:
    shells.profile("export MADE=yes")
    line = "umask; nice; echo $MADE"
    assert await shells.run(line, umask=0o27, nice=5) == ("restored", "0027\n5\nyes\n")
    assert await shells.run(line, umask=0o77, nice=5) == ("restored", "0077\n5\nyes\n")


@pytest.mark.skipif(not may_become_nobody(), reason="only root can become somebody else")
async def test_another_user_is_given_none(shells: Shells) -> None:
    shells.profile("export MADE=$(id -un)")
    await shells.run("true")
    shells.home.chmod(0o755)
    assert await shells.run("echo $MADE", user="nobody", cwd="/", env={"HOME": "/"}) == ("unused", "\n")
    shells.snapshot = {**shells.snapshot, "scopeId": "theirs"}
    assert await shells.run("echo $MADE", user="nobody", cwd="/", env={"HOME": "/"}) == ("unused", "\n")


@needs_confinement
async def test_a_confined_shell_runs_its_login_files(shells: Shells) -> None:
    shells.profile("export MADE=yes")
    await shells.run("true")
    assert await shells.run("echo $MADE", sandbox=CONFINED) == ("unused", "yes\n")


async def test_errors_of_a_start_are_its_own(shells: Shells) -> None:
    params = shells.peer.start_params("p", [BASH, "-lc", "true"], cwd="/does/not/exist")
    plain = await shells.peer.refused("process/start", params)
    assert await shells.peer.refused("process/start", params | {"shellSnapshot": shells.snapshot}) == plain
    for wrong in ({"shell": shells.snapshot["shell"]}, {**shells.snapshot, "scopeId": ""}, {"scopeId": "a"}):
        assert (await shells.peer.refused("process/start", params | {"shellSnapshot": wrong}))[0] == -32602
    long = {**shells.snapshot, "scopeId": "a" * 257}
    assert (await shells.peer.refused("process/start", params | {"shellSnapshot": long}))[0] == -32602


async def test_the_oldest_are_forgotten(shells: Shells) -> None:
    shells.profile("")
    for number in range(snapshots.MOST_SNAPSHOTS + 1):
        await shells.run("true", env={"NUMBER": str(number)})
    taken = shells.runs
    await shells.run("true", env={"NUMBER": str(number)})
    assert shells.runs == taken
    await shells.run("true", env={"NUMBER": "0"})
    assert shells.runs == taken + 1


@pytest.mark.few
async def test_starts_that_all_differ_cost_nothing_in_the_end(shells: Shells) -> None:
    shells.profile("")
    told = [(await shells.run("true", env={"NUMBER": str(number)}))[0] for number in range(18)]
    assert told == ["restored"] * 16 + ["unused"] * 2
    assert shells.runs == 18


async def test_snapshots_are_given_back(server: Server, tmp_path: Path) -> None:
    if server.transport in ("memory", "stdio"):
        pytest.skip("a server for each connection")
    watching = await server.peer()

    async def held(setting: str = "held_bytes") -> int:
        told = await watching.call("server/limits", {"settings": [setting]})
        [used] = (ceiling["used"] for ceiling in told["limits"] if ceiling["scope"] == "server")
        return int(used)

    before = await held()
    async with server.open_peer() as peer:
        await peer.handshake()
        shells = Shells(peer, tmp_path)
        shells.profile("export LARGE=$(yes | head -c 60000)")
        await shells.run("true")
        assert await held() > before + 60_000
        for number in range(snapshots.MOST_SNAPSHOTS + 1):
            assert await held("max_file_handles") == min(number + 1, snapshots.MOST_SNAPSHOTS)
            await shells.run("true", env={"NUMBER": str(number)})
    while await held() > before:  # noqa: ASYNC110  # until the connection is over
        await trio.sleep(0.01)
    assert await held("max_file_handles") == 0


async def test_without_an_open_file_to_spare_none_is_kept(open_server: OpenServer, tmp_path: Path) -> None:
    server = open_server("unix", ServerConfig(max_file_handles=1, principal_percent=100))
    shells = Shells(await server.peer(), tmp_path)
    shells.profile("")
    for number in (0, 0, 1, 1):
        await shells.run("true", env={"NUMBER": str(number)})
    assert shells.runs == 1 + 3


async def test_a_snapshot_is_nobody_elses(shells: Shells) -> None:
    shells.profile("export SECRET=hidden; umask 0")
    await shells.run("true")
    status, said = await shells.run("find /proc/$$/fd -lname '*login-shell*'; printf 'MODE %s' \"$BASH_ENV\"")
    assert (status, said) == ("restored", "MODE ")


async def test_the_client_asks_for_them(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".bash_profile").write_text(COUNTED + "export MADE=yes")
    client = await server.client()
    for _ in range(2):
        result = await client.run(
            [BASH, "-lc", "echo $MADE"], env_add={"HOME": str(tmp_path)}, shell_snapshot="scope", text=True, check=True
        )
        assert result.stdout == "yes\n"
    assert (tmp_path / "runs").read_text() == "run\n"
