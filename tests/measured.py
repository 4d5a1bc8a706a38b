"""What coverage measures of the suite: one case of every fourth test, and the processes of half of these.

To be measured makes a test half as slow again, and doubles the start of a process. So the floor is that of a sample:
what a sample reaches, all tests reach. `nox -s coverage` measures all, and has a floor of its own.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch

import pytest
from coverage import Coverage

WITH_PROCESSES = """
agents bench ci cli_* confine_* conformance daemon guard interact lifeline limits_cli log_forms logs machine map mcp
record reloading run runner* silence systemd testing tokens users
""".split()

ITSELF = pytest.StashKey[bool]()
PROCESSES = pytest.StashKey[bool]()


def choose(items: list[pytest.Item], *, everything: bool) -> None:
    """Note at each test whether it is measured, and whether the processes that it starts are."""
    tests: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        item.stash[ITSELF] = item.stash[PROCESSES] = everything
        tests[item.nodeid.partition("[")[0]].append(item)
    for number, cases in enumerate(tests.values()):
        chosen = cases[number // 4 % len(cases)]  # of those over several transports each time another one
        chosen.stash[ITSELF] = number % 4 == 0
        if number % 8 == 0 and any(fnmatch(chosen.path.stem, f"test_{name}") for name in WITH_PROCESSES):
            chosen.stash[PROCESSES] = True


@contextmanager
def collecting() -> Iterator[None]:
    """Have one process of many measure what modules do as they are loaded, since they do the same in each of them."""
    is_first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    with _paused(None if is_first else Coverage.current()):
        yield


@contextmanager
def measured(item: pytest.Item) -> Iterator[None]:
    """Have coverage measure of a test what `choose` has noted."""
    with pytest.MonkeyPatch.context() as environment:
        if not item.stash.get(PROCESSES, False):
            environment.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        with _paused(None if item.stash.get(ITSELF, False) else Coverage.current()):
            yield


@contextmanager
def _paused(coverage: Coverage | None) -> Iterator[None]:
    if coverage is not None:
        coverage.stop()
    try:
        yield
    finally:
        if coverage is not None:
            coverage.start()
