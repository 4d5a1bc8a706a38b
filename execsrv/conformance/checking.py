"""Checks a server, case by case: each on connections of its own, and within a time of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import trio

from execsrv.conformance import additions, commands, faults, files, handshake, processes, resuming
from execsrv.conformance.case import Case, Kind, Stage, Verdict
from execsrv.conformance.reaching import open_texts
from execsrv.conformance.talk import AbsentError, DiffersError
from execsrv.errors import ConnectionFailedError

_SUITES = (
    handshake.SUITE,
    processes.SUITE,
    commands.SUITE,
    files.SUITE,
    resuming.SUITE,
    faults.SUITE,
    additions.SUITE,
)


def cases(*suites: str) -> list[Case]:
    """Return all cases, or those of some suites."""
    return [case for suite in _SUITES for case in suite.cases if not suites or suite.name in suites]


def suites() -> list[str]:
    """Return the names of all suites."""
    return [suite.name for suite in _SUITES]


async def check(
    url: str,
    *,
    token: str | None = None,
    patience: float = 20,
    wanted: list[Case] | None = None,
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Check the server at `url` and return a verdict on each case; `tell` is called with each as it comes.

    `patience` is the time of one case in seconds. Raises `ConnectionFailedError` where no server can be reached.
    """
    async with open_texts(url, token):
        pass
    verdicts = []
    for case in cases() if wanted is None else wanted:
        verdicts.append(verdict := await _verdict(case, url, token, patience))
        tell(verdict)
    return verdicts


async def _verdict(case: Case, url: str, token: str | None, patience: float) -> Verdict:
    kind: Kind = "ok"
    why = ""
    with trio.move_on_after(patience) as scope:
        try:
            async with trio.open_nursery() as nursery:
                await case.conversation(Stage(url, token, nursery))
                nursery.cancel_scope.cancel()
        except ExceptionGroup as group:
            error = next(_leaves(group))
            kind = "absent" if isinstance(error, AbsentError) else "differs"
            known = isinstance(error, DiffersError | AbsentError | ConnectionFailedError)
            why = str(error) if known else f"said what nobody can follow: {type(error).__name__}: {error}"
    if scope.cancelled_caught:
        kind, why = "no answer", f"what has to come did not come within {patience:g} s"
    return Verdict(case, kind, why)


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
