"""The fixtures of `execsrv.testing` for pytest, for a `conftest.py` at the top of the tests:

    pytest_plugins = ["execsrv.testing.pytest_plugin"]

It is not loaded by itself: a test run that does not ask for it does not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from execsrv.testing import assert_no_strays


@pytest.fixture
def no_strays() -> Iterator[None]:
    """Fail a test that leaves processes behind, two seconds after it, and kill them, by `assert_no_strays`.

    `pytestmark = pytest.mark.usefixtures("no_strays")` asks for it in a whole module.
    """
    with assert_no_strays():
        yield
