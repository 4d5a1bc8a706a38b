"""Labels: the words by which a server of a pool is asked for."""

from __future__ import annotations

from collections.abc import Mapping

Labels = frozenset[tuple[str, str]]
"""Labels that a server must have."""


def labels_of(labels: Mapping[str, str] | None) -> Labels:
    """Return labels as they are looked up. Raises `TypeError` for what is no mapping of strings."""
    if labels is not None and not is_labels(labels):
        raise TypeError(f"labels must be a mapping of strings, such as {{'gpu': '1'}}, got {labels!r}")
    return frozenset(labels.items() if labels else ())


def is_labels(labels: object) -> bool:
    """Return whether something is a mapping of strings to strings."""
    return isinstance(labels, Mapping) and all(isinstance(word, str) for each in labels.items() for word in each)
