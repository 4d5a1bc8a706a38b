"""Metrics in the text format of Prometheus, version 0.0.4. Pure: no I/O.

That format is a few lines of text, so there is no package for it. Every label has one of a few values that the server
itself has made: no peer can make one more series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Value = float | Mapping[tuple[str, ...], float]


class Metric(NamedTuple):
    """One metric: a number, or one for each combination of its labels' values. The name has no prefix."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    value: Value
    labels: tuple[str, ...] = ()


def exposition(metrics: Iterable[Metric], prefix: str = "execsrv_") -> bytes:
    """Return the text that a scraper reads."""
    return "".join(line for metric in metrics for line in _lines(metric, prefix)).encode()


def _lines(metric: Metric, prefix: str) -> Iterator[str]:
    name = prefix + metric.name
    yield f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
    if not isinstance(metric.value, Mapping):
        yield f"{name} {_number(metric.value)}\n"
        return
    for values, number in sorted(metric.value.items()):
        pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(metric.labels, values, strict=True))
        yield f"{name}{{{pairs}}} {_number(number)}\n"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
