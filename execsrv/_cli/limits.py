"""`execsrv limits`: the ceilings of a server that runs, with what is in use of each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import trio

from execsrv._cli.manners import Manners, colored, one_line, print_json, print_text, size, span
from execsrv._cli.reach import Reach
from execsrv._cli.settings import SETTINGS
from execsrv.protocol.ceilings import Ceiling

_HIGH = 0.8
"""From this part on, what is in use is shown in a color."""

_SCOPES = {
    "server": "everybody together",
    "principal": "you, on all connections",
    "connection": "one connection, the fullest",
    "session": "one session, the fullest",
    "each": "each by itself",
}
"""The scopes, for people, in the order in which they are listed."""


def limits(*, everything: bool, reach: Reach, manners: Manners) -> int:
    """List them: those that are counted, or all."""
    return trio.run(_list, everything, reach, manners)


async def _list(everything: bool, reach: Reach, manners: Manners) -> int:
    async with reach.connect() as client:
        found = await client.limits()
    shown = [ceiling for ceiling in found if everything or ceiling.used is not None]
    if manners.as_json:
        print_json(msgspec.to_builtins(shown))
        return 0
    rows = [(ceiling.scope, _row(ceiling)) for ceiling in shown]
    widths = [max((len(row[column]) for _, row in rows), default=0) for column in range(5)]
    for scope in dict.fromkeys([*_SCOPES, *(scope for scope, _ in rows)]):
        of_it = [row for found_in, row in rows if found_in == scope]
        if of_it:
            print_text(f"{_SCOPES.get(scope, scope)}:\n" + "".join(_line(row, widths) for row in of_it))
    if not everything:
        manners.note("`--all` lists those of which nothing is counted too")
    return 0


def _row(ceiling: Ceiling) -> tuple[str, str, str, str, str]:
    known = SETTINGS.get(ceiling.setting)
    flag = known.flag if known is not None else one_line(ceiling.setting)
    most = _amount(ceiling.most, ceiling.unit)
    if ceiling.used is None:
        return flag, "", most, "", ""
    part = f"{ceiling.used / ceiling.most:.0%}" if ceiling.most else ""
    refused = f"refused {ceiling.refused} times" if ceiling.refused else ""
    return flag, _amount(ceiling.used, ceiling.unit), most, part, refused


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    flag, used, most, part, refused = row
    of = " of " if used else "    "
    text = f"  {flag:{widths[0]}}  {used:>{widths[1]}}{of}{most:>{widths[2]}}  {part:>{widths[3]}}  {refused}".rstrip()
    is_high = bool(part) and int(part.rstrip("%")) >= _HIGH * 100
    return (colored(text, "yellow") if is_high or refused else text) + "\n"


def _amount(number: float, unit: str) -> str:
    if unit == "bytes":
        return size(number)
    if unit == "seconds":
        return span(number) if number else "0 s"
    return f"{number:g}" if isinstance(number, float) else str(number)
