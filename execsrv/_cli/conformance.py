"""`execsrv conformance`: the verdicts on a server, for people or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from execsrv._cli.manners import Manners, colored, one_line, print_json, print_text
from execsrv.client.tokens import token_reader
from execsrv.conformance import Verdict, cases, check
from execsrv.conformance.report import facts, line, summary

_COLORS = {"ok": "green", "absent": "yellow"}


def conformance(*, url: str, suites: Sequence[str], patience: float, token_file: str | None, manners: Manners) -> int:
    """Check a server, and print the verdicts as they come; return 1 where anything differs."""
    told = _Told(quiet=manners.quiet or manners.as_json)
    verdicts = trio.run(partial(_check, url, suites, patience, token_file, told))
    if manners.as_json:
        print_json(facts(verdicts))
    else:
        print_text("\n".join([*([] if manners.quiet else [""]), *summary(verdicts)]) + "\n")
    return int(any(verdict.kind in ("differs", "no answer") for verdict in verdicts))


async def _check(
    url: str, suites: Sequence[str], patience: float, token_file: str | None, told: _Told
) -> list[Verdict]:
    token = await token_reader(None, token_file)()
    return await check(url, token=token, patience=patience, wanted=cases(*suites), tell=told.tell)


class _Told:
    """Prints verdicts, with a heading for each suite."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._suite = ""

    def tell(self, verdict: Verdict) -> None:
        """Print a verdict."""
        if self._quiet:
            return
        if verdict.case.suite != self._suite:
            print_text(f"{'' if not self._suite else chr(10)}{verdict.case.suite}\n")
            self._suite = verdict.case.suite
        first, _, rest = line(verdict).partition("\n")
        print_text(colored(first, _COLORS.get(verdict.kind, "red")) + "\n" + (f"{one_line(rest)}\n" if rest else ""))
