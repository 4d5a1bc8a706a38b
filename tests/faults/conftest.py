"""The option of the fault suite, and the end of what a failed test has left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.daemon import RUN, alive_with, kill
from tests.test_survivors import open_path as open_path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-byte", action="store_true", help="faults at every byte, not at some; takes hours")


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Whatever a test that failed has left is not to disturb the next one, nor the machine."""
    yield
    for pid in alive_with(RUN):
        kill(pid)
