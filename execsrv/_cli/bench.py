"""`execsrv bench`: the figures of the documentation, measured on the user's own machine, as a table and a plot."""

from __future__ import annotations

import os
import platform
import stat
import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple, TextIO

import trio

from execsrv._cli.bench_cases import CASES, Case, own_server
from execsrv._cli.bench_plot import Bar, shown, svg
from execsrv._cli.manners import Manners, print_json, print_text
from execsrv._cli.progress import Foot, has_terminal
from execsrv._cli.reach import Reach
from execsrv._cli.usage import UsageError, unknown
from execsrv._version import __version__


class Figure(NamedTuple):
    """The values of one case, a round each."""

    case: Case
    values: list[float]

    @property
    def median(self) -> float:
        """Return the one in the middle."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Return the distance from the lowest to the highest, as a part of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    @property
    def facts(self) -> dict[str, object]:
        """Return all of it, for programs."""
        return {"name": self.case.name, "unit": self.case.unit, "median": self.median, "values": self.values}


def bench(*, rounds: int, only: Sequence[str], plot: str | None, reach: Reach, manners: Manners) -> int:
    """Measure, and print what came of it."""
    if not rounds:
        raise UsageError("cannot take `0` for --rounds: expected a whole number above 0")
    names = [case.name for case in CASES]
    for name in only:
        if name not in names:
            raise unknown("figure", name, names)
    chosen = [case for case in CASES if (not only and (reach.url is None or not case.is_here)) or case.name in only]
    with nullcontext() if plot is None else _opened(plot) as file:  # first: measuring takes minutes
        figures = trio.run(_measured, chosen, rounds, reach, manners)
        if manners.as_json:
            print_json([figure.facts for figure in figures])
        else:
            print_text(_table(figures, reach))
        if file is not None:
            bars = [Bar(figure.case.name, figure.median, figure.case.unit) for figure in figures]
            file.write(svg(f"execsrv {__version__}", _machine(reach), bars))
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.truncate()
    if plot is not None and not manners.as_json:
        manners.note(f"wrote the plot to `{plot}`")
    return 0


def _opened(path: str) -> TextIO:
    """Open a file to be written anew, with what it has until then. Raises `OSError`."""
    return open(path, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags & ~os.O_TRUNC, 0o666))


async def _measured(cases: Sequence[Case], rounds: int, reach: Reach, manners: Manners) -> list[Figure]:
    """Measure each case in turn, round after round, so that a noisy minute hits all alike."""
    figures = [Figure(case, []) for case in cases]
    foot = Foot()
    is_shown = has_terminal() and not manners.quiet
    async with reach.connect() if reach.url is not None else own_server() as client:
        try:
            for number in range(1, rounds + 1):
                for figure in figures:
                    if is_shown:
                        foot.draw(f"execsrv: round {number} of {rounds}: {figure.case.name}")
                    figure.values.append(await figure.case.run(client))
        finally:
            foot.clear()
    return figures


def _table(figures: Sequence[Figure], reach: Reach) -> str:
    rows = [("", "median", "", "spread", "better")]
    for figure in figures:
        better = "less" if figure.case.less_is_better else "more"
        rows.append((figure.case.name, shown(figure.median), figure.case.unit, f"{figure.spread:.0%}", better))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{name:{widths[0]}}  {median:>{widths[1]}} {unit:{widths[2]}}  {spread:>{widths[3]}}  {better}".rstrip()
        for name, median, unit, spread, better in rows
    ]
    return f"execsrv {__version__}, {_machine(reach)}\n\n" + "\n".join(lines) + "\n"


def _machine(reach: Reach) -> str:
    where = "a server of its own" if reach.url is None else reach.url
    return f"{where}; Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors"
