"""Directories: where a pool learns of servers, and how servers get there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

import execsrv
from execsrv import Endpoint, Pool
from execsrv._cli.joining import url_for_others
from execsrv.directories import DnsDirectory, FileDirectory, KubernetesDirectory, directory_of
from execsrv.directories.joined import join, joined, leave
from execsrv.limits import ServerConfig
from execsrv.testing.running_server import serving
from tests.certificates import Authority
from tests.conftest import OpenServer
from tests.kubernetes_api import kubernetes_api, pod
from tests.peers import PATIENCE
from tests.test_pool import killable, until

EXECSRV = [sys.executable, "-m", "execsrv"]


async def test_servers_join_a_file_and_leave_it(tmp_path: Path) -> None:
    """A pool has those that are in it, and sees who comes; one that was killed is in it still, and is found dead."""
    file = tmp_path / "servers"
    async with Pool(FileDirectory(file), refresh=0.05, reconnect=0, patience=PATIENCE) as pool:
        with killable(tmp_path, "--join", str(file), "--label", "gpu=1") as killed:
            assert (await pool.run(["true"], labels={"gpu": "1"})).server == killed.url
            with serving(f"unix://{tmp_path}/other", "--join", str(file)) as other:
                await until(lambda: len(pool.servers) == 2)
                assert joined(file) == [Endpoint(killed.url, labels={"gpu": "1"}), Endpoint(other.url)]
                assert killed.pid is not None
                os.kill(killed.pid, signal.SIGKILL)
                await until(lambda: [server.state for server in pool.servers] == ["lost", "up"])
                assert (await pool.run(["true"])).server == other.url
            assert [endpoint.url for endpoint in joined(file)] == [killed.url]
            await until(lambda: len(pool.servers) == 1)
            file.unlink()  # which says nothing of its servers
            await trio.sleep(0.1)
            assert [server.url for server in pool.servers] == [killed.url]


def test_many_join_and_leave_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "servers"
    endpoints = [Endpoint(f"ws://127.0.0.1:{port}", labels={"port": str(port)}) for port in range(1, 41)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda each: join(file, each), endpoints))
        assert sorted(endpoint.url for endpoint in joined(file)) == sorted(endpoint.url for endpoint in endpoints)
        list(threads.map(lambda each: leave(file, each.url), endpoints[1:]))
    assert joined(file) == endpoints[:1]
    join(file, Endpoint(endpoints[0].url, token="secret"))
    assert [endpoint.token for endpoint in joined(file)] == ["secret"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    file = tmp_path / "servers"
    join(file, Endpoint("ws://a:1"))
    for name in ("b", "c"):
        (tmp_path / name).symlink_to(file)
        join(tmp_path / name, Endpoint(f"ws://{name}:1"))
    leave(tmp_path / "b", "ws://a:1")
    assert joined(file) == joined(tmp_path / "c") == [Endpoint("ws://b:1"), Endpoint("ws://c:1")]
    assert (tmp_path / "b").is_symlink()


def test_a_lock_that_others_have_laid_there_is_refused(tmp_path: Path) -> None:
    lock, elsewhere = tmp_path / "servers.lock", tmp_path / "elsewhere"
    lock.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        join(tmp_path / "servers", Endpoint("ws://a:1"))
    assert not elsewhere.exists()
    if os.geteuid() == 0:
        lock.unlink()
        lock.touch()
        os.chown(lock, 1, 1)
        with pytest.raises(execsrv.InvalidConfigError, match=r"cannot trust `.*/servers\.lock`: it belongs to uid 1"):
            join(tmp_path / "servers", Endpoint("ws://a:1"))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "servers"
    file.write_text('{"url": "unix:///a"}\n\n{"link": 1}\n')
    with pytest.raises(execsrv.InvalidConfigError, match=r"servers` line 3 is no server: .*`url`"):
        FileDirectory(file)()
    with pytest.raises(execsrv.InvalidConfigError, match="line 3"):
        join(file, Endpoint("unix:///b"))
    assert file.read_text().startswith('{"url": "unix:///a"}')
    assert FileDirectory(tmp_path / "none")() == []
    file.write_text("")
    assert FileDirectory(file)() == []
    file.chmod(0o660)
    with pytest.raises(execsrv.InvalidConfigError, match="servers`: others than this user may write to it"):
        FileDirectory(file)()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--join", "/proc/none"], "cannot join `/proc/none`: No such file or directory"),
        (["--label", "gpu=1"], "--label is for a server that joins a file: with --join"),
        (["--join", "/tmp/none", "--listen", "stdio://"], "to join a file is for those that listen"),
        (["--join", "/tmp/none", "--label", "gpu"], "cannot take `gpu` for --label: expected a label such as `gpu=1`"),
    ],
)
def test_a_server_says_why_it_cannot_join(words: list[str], said: str, tmp_path: Path) -> None:
    argv = [*EXECSRV, "serve", "--listen", f"unix://{tmp_path}/s", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "cannot leave" not in done.stderr


@pytest.mark.parametrize("words", [["--listen", b"unix://./\xff"], ["--listen", "unix://s", "--label", b"a=\xff"]])
def test_a_server_that_no_line_of_text_can_name_joins_nothing(words: list[str | bytes], tmp_path: Path) -> None:
    argv = [*EXECSRV, "serve", "--join", "servers", *words]
    env = os.environ | {"PYTHONPATH": str(Path(execsrv.__file__).parent.parent)}
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, cwd=tmp_path, env=env, timeout=PATIENCE)
    assert done.returncode == 1
    assert re.search(rb"execsrv: cannot join `servers`: <Endpoint unix://.*\\udcff> is not UTF-8\n", done.stderr)
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "servers").exists()


def test_a_server_on_every_address_is_reached_by_name() -> None:
    assert url_for_others("ws://10.0.0.1:80") == "ws://10.0.0.1:80"
    assert url_for_others("unix:///a") == "unix:///a"
    assert url_for_others("unix://a") == f"unix://{os.getcwd()}/a"
    assert re.fullmatch(r"wss://[\w.-]+:80", url_for_others("wss://[::]:80"))
    assert url_for_others("ws://0.0.0.0:80") == f"ws://{os.uname().nodename}:80"


def test_a_text_names_servers_or_a_directory() -> None:
    assert directory_of("ws://a:1,unix:///b") == [Endpoint("ws://a:1"), Endpoint("unix:///b")]
    assert repr(directory_of("/tmp/servers")) == "<FileDirectory /tmp/servers>"
    assert repr(directory_of("dns://servers.jobs:8765")) == "<DnsDirectory servers.jobs:8765>"
    assert repr(directory_of("kubernetes://jobs:80/app=a,b=c")) == "<KubernetesDirectory jobs/app=a,b=c>"
    assert repr(directory_of("kubernetes:///app=a")) == "<KubernetesDirectory /app=a>"
    for wrong in ("", ",", "dns://name", "dns://name:port", "kubernetes://jobs"):
        with pytest.raises(execsrv.InvalidConfigError, match=r"expected `FILE`, `ws://HOST:PORT,\.\.\.`, "):
            directory_of(wrong)


@pytest.mark.parametrize(
    "urls",
    [
        ["ws://a:1", "unix:///b"],
        ["unix:///a,b", "http://c:1"],
        ["exec:ssh -c aes128-ctr,aes256-ctr host execsrv serve", "exec:execsrv serve"],
        ["exec:relay --to 'ws://a:1,ws://b:2' \"it's ,ws://c:3\" it\\'s", "ws://d:4"],
        ["exec:relay 'that is never closed, it seems", "ssh://host"],
    ],
)
def test_a_comma_of_a_command_stays_its_own(urls: list[str]) -> None:
    assert directory_of(",".join(urls)) == [Endpoint(url) for url in urls]


# -- names --


async def test_a_name_has_a_server_at_each_address(open_server: OpenServer) -> None:
    server = await open_server("websocket", ServerConfig()).url()
    directory = DnsDirectory("127.0.0.1", int(server.rpartition(":")[2]), labels={"zone": "a"})
    async with Pool(directory) as pool:
        assert (await pool.run(["true"], labels={"zone": "a"})).server == server
    assert Endpoint("wss://[::1]:80") in await DnsDirectory("::1", 80, scheme="wss")()
    with pytest.raises(execsrv.ConnectionFailedError, match=r"cannot look up `nobody\.invalid`: "):
        await DnsDirectory("nobody.invalid", 80)()


# -- Kubernetes: against a stand-in, since there is no cluster here --


async def test_pods_that_are_ready_are_servers(open_server: OpenServer) -> None:
    server = await open_server("websocket", ServerConfig()).url()
    with kubernetes_api() as api:
        api.pods = [
            pod("127.0.0.1", app="execsrv", zone="a"),
            pod("127.0.0.2", app="other"),
            pod("127.0.0.3", app="execsrv", ready=False),
            pod("127.0.0.4", app="execsrv", ending=True),
            pod(None, app="execsrv"),
            pod("fd00::5", app="execsrv"),
        ]
        directory = KubernetesDirectory(
            "app=execsrv", namespace="jobs", port=int(server.rpartition(":")[2]), api=api.url
        )
        first, last = await directory()
        assert first == Endpoint(server, labels={"app": "execsrv", "zone": "a"})
        assert last.url.startswith("ws://[fd00::5]:")
        assert len(api.asked) == 3  # pages
        async with Pool(directory) as pool:
            assert (await pool.run(["true"], labels={"zone": "a"})).server == server
        api.pods.clear()
        assert await directory() == []


async def test_an_api_may_be_behind_a_path() -> None:
    with kubernetes_api() as api:
        api.prefix = "/k8s/clusters/c-1"
        api.pods = [pod("10.0.0.1", app="x")]
        for end in ("", "/"):
            directory = KubernetesDirectory("app=x", namespace="jobs", api=api.url + api.prefix + end)
            assert await directory() == [Endpoint("ws://10.0.0.1:8765", labels={"app": "x"})]
    for none in ("http://127.0.0.1:99999", "http://[::1", "https://", "http:///x", "ftp://a"):
        with pytest.raises(execsrv.InvalidConfigError, match="cannot ask a Kubernetes API at `"):
            await KubernetesDirectory("app=x", namespace="jobs", api=none)()


async def test_a_pod_asks_with_its_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path, "ca")
    (tmp_path / "ca.pem").rename(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("jobs")
    directory = KubernetesDirectory("app=execsrv", account=tmp_path)
    with pytest.raises(execsrv.InvalidConfigError, match="no Kubernetes is known here: give `api`, or run in a pod"):
        await directory()
    with kubernetes_api(authority.server(), "first") as api:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.server_address[1]))
        api.pods = [pod("10.0.0.1", app="execsrv")]
        assert await directory() == [Endpoint("ws://10.0.0.1:8765", labels={"app": "execsrv"})]
        api.token = "second"
        with pytest.raises(execsrv.ConnectionFailedError, match=r"lists no pods: 401 Unauthorized: .*Unauthorized"):
            await directory()
        (tmp_path / "token").write_text("second\n")
        assert len(await directory()) == 1
        elsewhere = KubernetesDirectory("app=execsrv", namespace="a/b", account=tmp_path)
        with pytest.raises(execsrv.ConnectionFailedError, match=r"403 Forbidden: .*pods is forbidden"):
            await elsewhere()
        (tmp_path / "ca.crt").unlink()
        with pytest.raises(execsrv.ConnectionFailedError, match=r"cannot ask the Kubernetes API at 127.*certificate"):
            await directory()
    with pytest.raises(execsrv.ConnectionFailedError, match="cannot ask the Kubernetes API at 127"):
        await directory()


@pytest.mark.parametrize("private", [False, True])
async def test_an_api_that_drips_is_given_up_and_nothing_is_left(
    private: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path, "ca")
    (tmp_path / "ca.pem").rename(tmp_path / "ca.crt")
    monkeypatch.setattr("execsrv.directories.kubernetes._TIMEOUT_SECONDS", 0.5)
    with kubernetes_api(authority.server() if private else None) as api:
        api.drips = True
        directory = KubernetesDirectory("app=execsrv", namespace="jobs", api=api.url, account=tmp_path)
        with pytest.raises(execsrv.ConnectionFailedError, match=r"the Kubernetes API has not answered within 0\.5 s"):
            await directory()
        assert await trio.to_thread.run_sync(api.hung_up.wait, PATIENCE)
