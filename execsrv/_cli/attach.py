"""`execsrv attach`: at a session that runs already, beside others or after having left it, or only watching."""

from __future__ import annotations

import trio

from execsrv._cli import terminal
from execsrv._cli.escape_keys import EscapeKeys, parse_key
from execsrv._cli.finding import at_session, listing
from execsrv._cli.interactive import Interaction, Outcome
from execsrv._cli.manners import Manners, one_line
from execsrv._cli.reach import Reach
from execsrv._cli.shell import status_of
from execsrv._cli.streams import say
from execsrv.client.inside import connection_of, mirror_of
from execsrv.errors import ConnectionLostError, ExecsrvError, ForbiddenError

_ACTIONS = {ord("."): "detach", ord("d"): "detach", 26: "suspend", ord("r"): "repaint", ord("?"): "help"}
_CTRL_C = 3


def attach(*, name: str, read_only: bool, escape: str, detach_key: str | None, reach: Reach, manners: Manners) -> int:
    """Be at a session until it ends, or is left; return its exit status, or 0."""
    key = parse_key("--escape", escape)
    direct = {_CTRL_C: "detach"} if read_only else {}
    if detach_key is not None and (leaves := parse_key("--detach-key", detach_key)) is not None:
        direct[leaves] = "detach"
    try:
        outcome = trio.run(_attach, name, read_only, key, direct, reach, manners)
    except ForbiddenError as error:
        if read_only:
            raise
        raise ExecsrvError(f"{error}; `--read-only` asks for less") from error
    if outcome.how == "detach":
        manners.note(f"left `{one_line(name)}`, which goes on")
    return status_of(outcome)


async def _attach(
    name: str, read_only: bool, escape: int | None, direct: dict[int, str], reach: Reach, manners: Manners
) -> Outcome:
    """Be at it, again behind what was seen where a connection is lost for good: nothing depends on this one."""
    pid, seen = None, 0
    while True:
        async with reach.connect() as client:
            listed = (await listing(client)).find(name)
            if listed.pid != pid:  # of another server, under the same name, where it is not the first time
                pid, seen = listed.pid, 0
            elif terminal.modes() is not None and not manners.quiet:
                say("[execsrv: connected again]")
            async with at_session(client, listed, "viewer" if read_only else "writer", after=seen) as process:
                at = Interaction(
                    process,
                    connection_of(client),
                    EscapeKeys(escape, _ACTIONS, direct),
                    escape=escape,
                    actions=_ACTIONS,
                    is_terminal=listed.tty,
                    types=not read_only,
                    ends_input=False,
                    past=listed.next_seq - 1,
                    patience=reach.reconnect,
                    quiet=manners.quiet,
                )
                try:
                    return await at.run(fresh=False)
                except ConnectionLostError:
                    if not reach.reconnect or connection_of(client).calls.lost is None:
                        raise
                    seen = mirror_of(process).last_seq
