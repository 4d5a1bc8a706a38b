"""What coverage measures of the suite: all that only some test reaches, and the rest of it once.

To be measured makes a test half as slow again, and doubles the start of a process. So of a test that runs over several
transports one case is measured, over another of them than the test before it; and the processes that a test starts are
measured in its first case, in those modules whose processes reach what no others do.
"""

from __future__ import annotations

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


def choose(items: list[pytest.Item]) -> None:
    """Note at each test whether it is measured, and whether the processes that it starts are."""
    alike: dict[str, list[pytest.Item]] = defaultdict(list)
    started = set()
    for item in items:
        transport = str(item.callspec.params.get("transport", "")) if hasattr(item, "callspec") else ""
        test, _, which = item.nodeid.partition("[")
        alike[f"{test}[{which.replace(transport, '', 1)}"].append(item)
        with_processes = any(fnmatch(item.path.stem, f"test_{name}") for name in WITH_PROCESSES)
        item.stash[PROCESSES] = with_processes and test not in started
        started.add(test)
    for number, cases in enumerate(alike.values()):
        for case in cases:
            case.stash[ITSELF] = case is cases[number % len(cases)]


@contextmanager
def measured(item: pytest.Item) -> Iterator[None]:
    """Have coverage measure of a test what `choose` has noted."""
    with pytest.MonkeyPatch.context() as environment:
        if not item.stash.get(PROCESSES, False):
            environment.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        here = None if item.stash.get(ITSELF, False) else Coverage.current()
        if here is not None:
            here.stop()
        yield
        if here is not None:
            here.start()
