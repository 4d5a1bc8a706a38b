"""Pages in a real browser that try to reach a server on its machine: of elsewhere, and by a name made to lead here."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from execsrv._doors.tokens import new_token, sha256
from tests.peers import PATIENCE
from tests.test_reloading import running

BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs a browser"),
]

PAGE = """<!doctype html><body>waiting</body><script>
const [url, protocols] = [PLACE, PROTOCOLS];
const socket = new WebSocket(url, protocols);
const done = text => fetch("/done", {method: "POST", body: text});
socket.onopen = () => socket.send('{"id":1,"method":"initialize","params":{"clientName":"page"}}');
socket.onmessage = event => done("heard " + event.data);
socket.onerror = () => done("refused");
</script>"""


STAYING_PAGE = """<!doctype html><body>waiting</body><script>
const told = text => fetch("REPORT", {method: "POST", mode: "no-cors", body: text});
const isUp = async () => { try { return !(await (await fetch("/livez")).text()) } catch { return false } };
(async () => {
  await told("here");
  while (!await isUp()) await new Promise(again => setTimeout(again, 50));
  const socket = new WebSocket("ws://" + location.host);
  socket.onopen = () => told("in");
  socket.onerror = () => told("refused");
})();
</script>"""
"""A page that waits for another server in the place of its own, and says so to a third."""


class Site:
    """A web site whose page opens a websocket, and says what became of it."""

    def __init__(self) -> None:
        self.page = b""
        self.said = ""
        self.done = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(site.page)

            def do_POST(self) -> None:
                site.said = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.send_response(204)
                self.end_headers()
                site.done.set()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def visited(self, host: str, place: str, profile: Path, protocols: str = "[]") -> str:
        """Have a browser open the page under the name of a host; what the page says of its websocket."""
        self.page = PAGE.replace("PLACE", f'"{place}"').replace("PROTOCOLS", protocols).encode()
        with opened(f"http://{host}:{self.port}/", profile):
            return self.next_said()

    def next_said(self) -> str:
        """Wait until a page says something."""
        assert self.done.wait(PATIENCE), "the page has said nothing"
        self.done.clear()
        return self.said


@contextmanager
def opened(url: str, profile: Path) -> Iterator[None]:
    """Have a browser open a page."""
    argv = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    argv += ["--host-resolver-rules=MAP *.example 127.0.0.1", url]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as browser:
        try:
            yield
        finally:
            browser.terminate()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever)
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


def test_a_page_of_elsewhere_is_refused(site: Site, tmp_path: Path) -> None:
    with running("--listen", "ws://127.0.0.1:0") as daemon:
        port = daemon.url.rpartition(":")[2]
        assert site.visited("evil.example", daemon.url, tmp_path / "a") == "refused"
        # Its own name, which it has lead here: then the host has the page's own name, and it is refused for that.
        assert site.visited("evil.example", f"ws://evil.example:{port}", tmp_path / "b") == "refused"
        # Another server of this machine, such as one for development, is another origin too.
        assert site.visited("localhost", f"ws://localhost:{port}", tmp_path / "c") == "refused"


def test_a_page_that_had_the_port_before_is_refused(site: Site, tmp_path: Path) -> None:
    """It has our own origin then. Any user of the machine can take a port, and serve a page that stays."""
    before = Site()
    before.page = STAYING_PAGE.replace("REPORT", f"http://127.0.0.1:{site.port}/").encode()
    thread = threading.Thread(target=before.server.serve_forever)
    thread.start()
    with opened(f"http://127.0.0.1:{before.port}/", tmp_path):
        assert site.next_said() == "here"
        before.server.shutdown()
        thread.join()
        before.server.server_close()
        with running("--listen", f"ws://127.0.0.1:{before.port}"):
            assert site.next_said() == "refused"


def test_a_page_that_is_listed_comes_in_with_its_token(site: Site, tmp_path: Path) -> None:
    token = new_token()
    (tmp_path / "tokens").write_text(f"page owner {sha256(token)} never\n")
    (tmp_path / "tokens").chmod(0o600)
    origin = f"http://tools.example:{site.port}"
    argv = ["--listen", "ws://127.0.0.1:0", "--allowed-origins", origin, "--token-file", f"{tmp_path}/tokens"]
    with running(*argv, "--no-allow-same-user") as daemon:
        protocols = f'["execsrv", "execsrv.token.{token}"]'
        heard = site.visited("tools.example", daemon.url, tmp_path / "a", protocols)
        assert '"environmentInfo"' in heard
        assert site.visited("tools.example", daemon.url, tmp_path / "b", '["execsrv"]') == "refused"
        assert site.visited("tools.example", daemon.url, tmp_path / "c", '["execsrv", "execsrv.token.x"]') == "refused"
        assert site.visited("other.example", daemon.url, tmp_path / "d", protocols) == "refused"
