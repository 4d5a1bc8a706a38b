"""The option of the fault suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-byte", action="store_true", help="faults at every byte, not at some; takes hours")
