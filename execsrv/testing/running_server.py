"""A server in a process of its own, for as long as a test run or a session of nox needs it.

It is tied to this process by a pipe: it ends, with all that it has started, however this process ends.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_END_SECONDS = 20.0
"""Time that a server has for its end. It has a bound itself, which is shorter."""

_MOST_LOG_BYTES = 64 * 1024


class ServerFailedError(Exception):
    """A server that did not start, or ended by itself. It says what the server said."""


class RunningServer:
    """A server that listens. `pid` is None for one that somebody else has started."""

    def __init__(self, url: str, pid: int | None = None, log_path: str | None = None) -> None:
        self.url = url
        self.pid = pid
        self._log_path = log_path

    def __repr__(self) -> str:
        return f"<RunningServer {self.url}{'' if self.pid is None else f' pid={self.pid}'}>"

    @property
    def log(self) -> str:
        """Last words of the server, as it wrote them on stderr; empty where they went elsewhere."""
        if self._log_path is None:
            return ""
        try:
            with open(self._log_path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_LOG_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


@contextmanager
def serving(
    listen: str = "unix://",
    *options: str,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> Iterator[RunningServer]:
    """Run `execsrv serve` in a block, and give the server once it listens.

    `listen` is `unix://` for a socket in a new folder, which goes with the block, `stdio://` for a server of their own
    for all who connect, or any other URL that `execsrv serve --listen` takes. Further words are options of that
    command.

    `env` is the environment of the server, and of the commands that it runs: this process's by default. Settings of
    servers in that (`EXECSRV_...`) do not reach it. `python` is an interpreter that has execsrv.

    Raises `ServerFailedError` when it does not listen, and, at the end of the block, when it had ended by itself.
    """
    environment = dict(os.environ if env is None else env)
    for name in [name for name in environment if name.startswith("EXECSRV_")]:
        del environment[name]
    command = [python, "-m", "execsrv", "serve"]
    if listen == "stdio://":
        yield RunningServer("exec:" + shlex.join([*command, "--quiet", *options]))
        return
    folder = tempfile.mkdtemp(prefix="execsrv-")
    try:
        url = f"unix://{folder}/socket" if listen == "unix://" else listen
        words = [*command, "--listen", url, "--until-stdin-closes", *options]
        log = f"{folder}/log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                cwd=cwd,
                start_new_session=True,  # a Ctrl-C is for us, who end it
            )
        try:
            yield _listening(process, words, log)
            if process.poll() is not None:
                raise _failed("the server has ended by itself", process, log)
        finally:
            _end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listening(process: subprocess.Popen[bytes], words: Sequence[str], log: str) -> RunningServer:
    """Wait until it has printed its URL."""
    assert process.stdout is not None
    said = process.stdout.readline().decode().strip()
    if not said:
        process.wait()
        raise _failed(f"cannot start `{shlex.join(words)}`", process, log)
    return RunningServer(said, process.pid, log)


def _failed(what: str, process: subprocess.Popen[bytes], log: str) -> ServerFailedError:
    status = process.returncode
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    said = RunningServer("", None, log).log.strip()
    return ServerFailedError(f"{what}: {how}" + (f"\n{said}" if said else ""))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let go of its lifeline, and wait until it has ended with all that it has started."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            process.kill()  # its guardian ends what it has started
            process.wait()
        process.stdout.close()
