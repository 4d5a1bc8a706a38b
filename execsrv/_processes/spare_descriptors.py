"""Descriptors that are kept for a time when there are no others: an end must not wait for others to give some."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def check_descriptors() -> None:
    """Raise `OSError` where there is none to look with: then nothing that was not found is missing."""
    os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


class Reserve:
    """Some descriptors. It has them from being entered until it is left; outside of that it lends none."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._is_open = False
        self._held: list[int] = []

    def __enter__(self) -> Reserve:
        self._is_open = True
        self._fill()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_open = False
        self._empty()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Leave as many descriptors to the block, which must not await, and then take what is there."""
        self._empty()
        try:
            yield
        finally:
            self._fill()

    def _fill(self) -> None:
        try:
            while self._is_open and len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pass  # there will be others

    def _empty(self) -> None:
        while self._held:
            os.close(self._held.pop())
