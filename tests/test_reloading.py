"""A server that runs reads again what it is told to, and says what cannot change."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pexpect
import pytest
import trio

from execsrv import connect_unix, serve
from execsrv._doors import reloads as reloads_module
from execsrv._doors.reloads import Reloads
from execsrv.errors import ConnectionFailedError, InvalidConfigError
from tests.peers import PATIENCE
from tests.test_daemon import EXECSRV
from tests.test_files import hanging as hanging


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where `hanging` makes its folder."""
    return tmp_path


class Running:
    """A daemon whose log is read line by line."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self._lines.put(line)

    def end(self) -> None:
        """Kill it, and read its log to the end: nobody may read in a file that is being closed."""
        self.process.kill()
        self._reader.join(PATIENCE)

    def until(self, words: str) -> str:
        """Wait for a line of the log with these words, and return it."""
        while words not in (line := self._lines.get(timeout=PATIENCE)):
            pass
        return line


@contextmanager
def running(*argv: str, env: dict[str, str] | None = None) -> Iterator[Running]:
    with subprocess.Popen(
        [*EXECSRV, "serve", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=env,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url
            server = Running(process, url)
            try:
                yield server
            finally:
                server.end()
        finally:
            process.kill()


async def test_settings_are_read_again(tmp_path: Path) -> None:
    file, path = tmp_path / "execsrv.toml", f"{tmp_path}/s"
    file.write_text("max_connections = 2\n")
    with running("--listen", f"unix://{path}", "--config", str(file)) as server:
        async with connect_unix(path), connect_unix(path):
            file.write_text("max_connections = 3\ncgroup = false\n")
            server.process.send_signal(signal.SIGHUP)
            assert "INFO" in server.until("max_connections was 2, and is 3 for connections that come from now on")
            server.until("reloaded the settings")
            async with connect_unix(path) as third:
                assert (await third.run(["echo", "x"])).stdout == b"x\n"
                with pytest.raises(ConnectionFailedError, match=r"max_connections \(3\) are open"):
                    async with connect_unix(path):
                        pass


async def test_what_needs_a_new_start_is_told_and_stays(tmp_path: Path) -> None:
    file, path = tmp_path / "execsrv.toml", f"{tmp_path}/s"
    file.write_text("")
    with running("--config", str(file), env={"EXECSRV_LISTEN": f"unix://{path}"}) as server:
        for _ in range(2):
            file.write_text("cgroup = false\n")
            server.process.send_signal(signal.SIGHUP)
            assert "WARNING" in server.until("cgroup stays true: to make it false, start the server again")
        file.write_text("listen = 'stdio://'\nmax_connections = many")
        server.process.send_signal(signal.SIGHUP)
        assert "ERROR" in server.until("cannot reload the settings, so nothing of it has changed: cannot read")
        async with connect_unix(path) as client:
            assert (await client.run(["echo", "x"])).stdout == b"x\n"


async def test_a_program_reloads_its_server_when_it_likes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times: list[trio.Event] = [trio.Event(), trio.Event()]
    waiting = list(times)

    async def trigger() -> None:
        if not waiting:
            await trio.sleep_forever()
        await waiting.pop(0).wait()

    caplog.set_level("INFO")
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(_serve, f"unix://{tmp_path}/s", trigger)
        for event in times:
            event.set()
            await _until_logged(caplog, "reloaded the tokens", times.index(event) + 1)
        async with connect_unix(url.removeprefix("unix://")) as client:
            assert (await client.run(["echo", "x"])).stdout == b"x\n"
        nursery.cancel_scope.cancel()


async def _until_logged(caplog: pytest.LogCaptureFixture, words: str, count: int) -> None:
    with trio.fail_after(PATIENCE):
        while [record.getMessage() for record in caplog.records].count(words) < count:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def _serve(listen: str, trigger: Callable[[], object], *, task_status: trio.TaskStatus[str]) -> None:
    await serve(listen, reload_trigger=trigger, task_status=task_status)  # type: ignore[arg-type]


async def test_one_that_cannot_be_read_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    reloads, read = Reloads(), list[str]()

    async def good() -> None:
        read.append("good")

    async def bad(error: Exception) -> None:
        read.append("bad")
        raise error

    reloads.add("tokens", lambda: bad(InvalidConfigError("no such thing")))
    reloads.add("walls", lambda: bad(KeyError("fault")))
    reloads.add("doors", good)
    with caplog.at_level("INFO"):
        await reloads.run()
    assert read == ["bad", "bad", "good"]
    words = [(record.levelname, record.getMessage(), bool(record.exc_info)) for record in caplog.records]
    assert words == [
        ("ERROR", "cannot reload tokens, so nothing of it has changed: no such thing", False),
        ("ERROR", "cannot reload walls, so nothing of it has changed", True),
        ("INFO", "reloaded doors", False),
    ]


async def test_one_that_hangs_holds_up_no_other(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloads_module, "_PATIENCE_SECONDS", 0.01)
    reloads, read = Reloads(), list[str]()

    async def good() -> None:
        read.append("good")

    reloads.add("walls", trio.sleep_forever)
    reloads.add("doors", good)
    with trio.fail_after(PATIENCE):
        for _ in range(2):
            await reloads.run()
    assert read == ["good", "good"]
    assert "cannot reload walls, so nothing of it has changed: it is not read within 0.01 s" in caplog.text


def test_a_start_that_hangs_ends_at_a_signal(tmp_path: Path, hanging: tuple[Path, Callable[[], None]]) -> None:
    options = "--listen", f"unix://{tmp_path}/s", "--token-file", f"{hanging[0]}/tokens"
    with subprocess.Popen([*EXECSRV, "serve", *options]) as server:
        try:
            while not hears(server.pid, signal.SIGTERM):
                time.sleep(0.01)
            server.terminate()
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether a process handles a signal by now."""
    found = re.search(r"SigCgt:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


def test_on_a_terminal_it_says_that_the_terminal_is_gone(tmp_path: Path) -> None:
    server = pexpect.spawn(EXECSRV[0], [*EXECSRV[1:], "serve", "--listen", f"unix://{tmp_path}/s"], timeout=PATIENCE)
    server.expect_exact(f"unix://{tmp_path}/s")
    server.kill(signal.SIGHUP)
    server.expect_exact("ending on SIGHUP")
    server.expect(pexpect.EOF)
    server.close()
    assert server.exitstatus == 0
