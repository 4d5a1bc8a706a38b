"""What the command line does: a daemon from start to end, or one command, and what is said about it on stderr."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

import trio

from execsrv._run import OWN_FAILURE, run_command
from execsrv.errors import ExecsrvError, RequestError
from execsrv.server import serve, until_signalled


def run_daemon(listen: str) -> int:
    """Serve until the peer hangs up or a signal comes; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("trio-websocket").setLevel(logging.WARNING)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by our parent, it would lose us every exit status
    try:
        trio.run(_serve, listen)
    except ExecsrvError as error:
        print(f"execsrv: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(listen: str) -> None:
    failure: ExecsrvError | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_end_when_signalled, nursery.cancel_scope)
        try:
            await _serve_and_announce(listen)
        except ExecsrvError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _end_when_signalled(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    await until_signalled(task_status=task_status)
    scope.cancel()


class _Announcement(trio.TaskStatus[str]):
    """Tells people and programs where we listen, once we do."""

    def started(self, url: str | None = None) -> None:
        if url != "stdio://":
            print(url, flush=True)
            print(f"execsrv listening on {url}", file=sys.stderr, flush=True)


async def _serve_and_announce(listen: str) -> None:
    await serve(listen, task_status=_Announcement())


def run_once(argv: Sequence[str], *, url: str | None, tty: bool, cwd: str | None, env: Sequence[str]) -> int:
    """Run one command through a server; the exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    variables: dict[str, str] = {}
    for setting in env:
        name, equals, value = setting.partition("=")
        if not name or not equals:
            print(f"execsrv: invalid --env `{setting}`; expected `K=V`", file=sys.stderr)
            return OWN_FAILURE
        variables[name] = value
    try:
        return trio.run(lambda: run_command(argv, url=url, tty=tty, cwd=cwd, env=variables))
    except ExecsrvError as error:
        kind = f" ({error.kind})" if isinstance(error, RequestError) else ""
        print(f"execsrv: {error}{kind}", file=sys.stderr)
        return OWN_FAILURE
