"""What the neighbours of the attacks have measured, said at the end."""

from __future__ import annotations

import pytest

from tests.attack.neighbour import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long a neighbour waited in each attack. It is measured, not asserted: machines are busy."""
    if not FIGURES:
        return
    terminalreporter.section("milliseconds of a neighbour: an echo through a command, and a status")
    for name, rounds in sorted(FIGURES.items(), key=lambda figure: -max(figure[1])):
        times = sorted(1000 * each for each in rounds)
        half, nearly = times[len(times) // 2], times[len(times) * 99 // 100]
        terminalreporter.write_line(
            f"worst {times[-1]:7.1f}   99 % {nearly:7.1f}   half {half:6.1f}   of {len(times):5} in {name}"
        )
