"""The page on deployment, followed to the letter: its commands, its options, and what it says of a proxy."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

import execsrv
from execsrv import ClientConfig, ConnectionFailedError, connect
from tests.certificates import Authority
from tests.peers import PATIENCE
from tests.test_daemon import EXECSRV
from tests.test_health import free_port

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "deployment.md").read_text()
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.S | re.M)


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M)
    assert found, title
    return found[1]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user of this machine, who has execsrv in the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "run").mkdir(mode=0o700)
    program = tmp_path / "bin" / "execsrv"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(EXECSRV)} "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": f"{tmp_path}/run"}


def follow(text: str, home: dict[str, str], stack: ExitStack) -> int:
    """Do what is said, one line after the other, and compare what is printed. Return how many lines there were."""
    ports = {port: str(free_port()) for port in ("8765", "9090")}
    for port, free in ports.items():
        text = text.replace(port, free)
    count = 0
    for block in CONSOLE.findall(text):
        for command, said in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M):
            count += 1
            if command.endswith(" &"):
                server = stack.enter_context(
                    subprocess.Popen(
                        ["bash", "-c", f"exec {command[:-2]}"], env=home, cwd=home["HOME"], stdout=subprocess.PIPE
                    )
                )
                stack.callback(server.kill)
                assert server.stdout is not None
                assert server.stdout.readline()
                continue
            done = subprocess.run(
                ["bash", "-c", command], env=home, cwd=home["HOME"], capture_output=True, text=True, timeout=PATIENCE
            )
            assert (done.returncode, done.stdout) == (0, said), (command, done.stderr)
    return count


@pytest.mark.few
@pytest.mark.parametrize(("title", "lines"), [("On a laptop", 2), ("On a shared machine", 5), ("Behind a proxy", 1)])
def test_the_commands_do_what_is_said(title: str, lines: int, home: dict[str, str]) -> None:
    if "curl" in section(title) and shutil.which("curl") is None:
        pytest.skip("needs curl")
    with ExitStack() as stack:
        if title == "Behind a proxy":
            follow("```console\n$ execsrv token new x --file tokens --out x.token\n```", home, stack)
        assert follow(section(title), home, stack) == lines


@pytest.mark.slow
def test_every_option_is_one(home: dict[str, str]) -> None:
    asked = [line.removesuffix(" &") for line in re.findall(r"(execsrv serve --.*)", PAGE)]
    # The first two are of a server, those behind them of a command under `execsrv init`.
    entry, cmd, *_ = (json.loads(found) for found in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", PAGE, re.M))
    asked.append(shlex.join(["execsrv", *entry[1:], *cmd]))
    for unit in (Path(execsrv.__file__).parent / "systemd").glob("*.service"):
        (start,) = re.findall(r"^ExecStart=/usr/bin/env (.*)$", unit.read_text(), re.M)
        asked.append(start.replace("${LOGS_DIRECTORY}", "/logs"))
    assert len(asked) > 7
    for command in asked:
        words = shlex.split(command.split("`")[0])
        done = subprocess.run([*words, "--print-config"], env=home, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, (command, done.stderr)


async def test_the_container_serves_with_the_files_as_they_are_made(home: dict[str, str]) -> None:
    """A stand-in for docker, which runs what the image runs, with the folder of the host as its own."""
    folder, port = home["HOME"], free_port()
    [making, *_] = [block for block in CONSOLE.findall((DOCS / "tls.md").read_text()) if "openssl" in block]
    container = section("In a container")
    [running] = [block for block in CONSOLE.findall(container) if "docker run" in block]
    entry, cmd, *_ = (json.loads(found) for found in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", container, re.M))
    image = shlex.join(["execsrv", *entry[1:], *cmd]).replace("/secrets", f"{folder}/secrets")
    for taken, free in (("8765", port), ("9090", free_port())):
        image = image.replace(taken, str(free))
    docker = Path(folder) / "bin" / "docker"
    volume = f"{folder}/secrets:/secrets:ro"
    docker.write_text(
        f'#!/bin/sh\ncase "$*" in *" --user $(id -u):$(id -g) "*" -v {volume} IMAGE") exec {image};; esac\n'
    )
    docker.chmod(0o755)
    *before, last = "".join(re.findall(r"^\$ (.*\n)", making + running, re.M)).splitlines()
    script = "\n".join(["set -e", *before, f"exec {last}"])
    with subprocess.Popen(["bash", "-c", script], env=home, cwd=folder, stdout=subprocess.PIPE) as server:  # noqa: ASYNC220
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == f"wss://0.0.0.0:{port}\n".encode()
            trio.socket.set_custom_hostname_resolver(Here())
            config = ClientConfig(tls_ca_file=f"{folder}/ca.pem")
            url = f"wss://build.example.org:{port}"
            async with connect(url, token_file=f"{folder}/ci.token", config=config) as client:
                assert (await client.run(["echo", "hello"])).stdout == b"hello\n"
        finally:
            server.terminate()


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    server {{
        listen 127.0.0.1:{port} ssl; server_name build.example.org;
        ssl_certificate {certificate}; ssl_certificate_key {certificate};
{lines}
    }}
}}
"""

CADDY = """
{{
    admin off
    auto_https disable_redirects
}}
{lines}
"""


class Here(trio.abc.HostnameResolver):
    """Finds every name on the loopback."""

    async def getaddrinfo(self, host: Any, port: Any, *how: Any, **more: Any) -> Any:
        return await trio.socket.getaddrinfo("127.0.0.1", port)

    async def getnameinfo(self, *how: Any) -> Any:
        raise NotImplementedError


async def until_it_listens(port: int) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                return
            except OSError:
                await trio.sleep(0.02)


@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_the_lines_for_a_proxy_are_all_it_takes(name: str, home: dict[str, str]) -> None:
    """They are put into what every configuration has around them: a port, a certificate, and paths of a test's own."""
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"needs {name}")
    folder = home["HOME"]
    authority = Authority(Path(folder))
    certificate = authority.server("build.example.org")
    page = section("Behind a proxy")
    (lines,) = re.findall(rf"^{name}:\n\n```\w+\n(.*?)^```", page, re.S | re.M | re.I)
    with ExitStack() as stack:
        follow("```console\n$ execsrv token new ada --file tokens --out ada.token\n```", home, stack)
        port, behind = free_port(), free_port()
        (serve,) = re.findall(r"^\$ (execsrv serve .*) &$", page, re.M)
        words = shlex.split(serve.replace("8765", str(behind)))
        server = stack.enter_context(
            subprocess.Popen(words, env=home, cwd=folder, stdout=subprocess.PIPE)  # noqa: ASYNC220
        )
        stack.callback(server.kill)
        assert server.stdout is not None
        server.stdout.readline()
        lines = lines.replace("8765", str(behind))
        if name == "nginx":
            said = NGINX.format(folder=folder, port=port, certificate=certificate, lines=lines)
            argv = [program, "-p", folder, "-c", f"{folder}/proxy", "-e", "stderr"]
        else:
            inside = f"build.example.org:{port} {{\n    bind 127.0.0.1\n    tls {certificate} {certificate}"
            said = CADDY.format(lines=lines.replace("build.example.org {", inside))
            argv = [program, "run", "--adapter", "caddyfile", "--config", f"{folder}/proxy"]
        (Path(folder) / "proxy").write_text(said)
        proxy = stack.enter_context(subprocess.Popen(argv, env=home, stderr=subprocess.DEVNULL))  # noqa: ASYNC220
        stack.callback(proxy.kill)
        await until_it_listens(port)
        trio.socket.set_custom_hostname_resolver(Here())
        url, config = f"wss://build.example.org:{port}", ClientConfig(tls_ca_file=authority.file)
        with pytest.raises(ConnectionFailedError, match="401"):
            async with connect(url, config=config):
                pass
        async with connect(url, token_file=f"{folder}/ada.token", config=config) as client:
            result = await client.run(["sort"], input=b"b\na\n" * 100_000)
            assert result.stdout == b"a\n" * 100_000 + b"b\n" * 100_000


async def test_who_comes_by_a_proxy_needs_a_token(home: dict[str, str]) -> None:
    """As the page has nginx do it: the name that was asked for is kept, and a header tells of the peer."""
    port = free_port()
    subprocess.run(  # noqa: ASYNC221
        ["execsrv", "token", "new", "ada", "--file", "tokens", "--out", "ada.token"],
        env=home,
        cwd=home["HOME"],
        check=True,
    )
    (serve,) = re.findall(r"^\$ (execsrv serve .*) &$", section("Behind a proxy"), re.M)
    with subprocess.Popen(  # noqa: ASYNC220
        shlex.split(serve.replace("8765", str(port))), env=home, cwd=home["HOME"], stdout=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            async with trio.open_nursery() as nursery:

                async def proxy(client: trio.SocketStream) -> None:
                    async with client, await trio.open_tcp_stream("127.0.0.1", port) as upstream:
                        head = b""
                        while b"\r\n\r\n" not in head:
                            head += await client.receive_some()
                        head = re.sub(rb"(?i)\r\nHost: [^\r]*", b"\r\nHost: build.example.org", head)
                        await upstream.send_all(head.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"))
                        async with trio.open_nursery() as both:
                            both.start_soon(copy, client, upstream, both.cancel_scope)
                            both.start_soon(copy, upstream, client, both.cancel_scope)

                async def copy(one: trio.SocketStream, other: trio.SocketStream, scope: trio.CancelScope) -> None:
                    try:
                        while data := await one.receive_some():
                            await other.send_all(data)
                    except trio.BrokenResourceError:
                        pass
                    scope.cancel()

                listeners = await nursery.start(trio.serve_tcp, proxy, 0)
                url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
                with pytest.raises(ConnectionFailedError, match="401"):
                    async with connect(url):
                        pass
                async with connect(url, token_file=f"{home['HOME']}/ada.token") as client:
                    assert (await client.run(["echo", "hello"])).stdout == b"hello\n"
                nursery.cancel_scope.cancel()
        finally:
            server.kill()
