"""A plot of figures as an SVG of bars, those of one unit below each other. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

_WIDTH = 720
_ROW = 26
_NAME = 200
_VALUE = 110
_EDGE = 20
_TITLES = {
    "s": "Time, in s: less is better",
    "ms": "Time, in ms: less is better",
    "per s": "How many in a second: more is better",
    "MiB/s": "MiB/s: more is better",
}
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.title{font-size:17px;font-weight:600}.small{font-size:11px;"
    "fill:#666}.unit{font-weight:600}.bar{fill:#2f6f9f}.ground{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#999}.bar{fill:#6fb1e0}.ground{fill:#16181a}}"
)


class Bar(NamedTuple):
    """One figure."""

    name: str
    value: float
    unit: str


def svg(title: str, below: str, bars: Sequence[Bar]) -> str:
    """Return the picture. Bars of one unit are drawn to one scale."""
    parts: list[str] = []
    y = 2 * _EDGE + 28
    for unit in dict.fromkeys(bar.unit for bar in bars):
        group = [bar for bar in bars if bar.unit == unit]
        y += _ROW
        parts.append(_text(_EDGE, y, _TITLES.get(unit, unit), "unit"))
        parts += _rows(group, y)
        y += _ROW * len(group) + _ROW // 2
    height = y + _EDGE
    said = escape(f"{title}: " + ", ".join(f"{bar.name} {shown(bar.value)} {bar.unit}" for bar in bars))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
            f' height="{height}" role="img" aria-label="{said}">',
            f'<style>{_STYLE}</style><rect class="ground" width="100%" height="100%"/>',
            _text(_EDGE, _EDGE + 14, title, "title"),
            _text(_EDGE, _EDGE + 34, below, "small"),
            *parts,
            "</svg>\n",
        ]
    )


def _rows(group: Sequence[Bar], y: int) -> Iterator[str]:
    longest = _WIDTH - 2 * _EDGE - _NAME - _VALUE
    most = max(bar.value for bar in group) or 1.0
    for bar in group:
        y += _ROW
        length = max(1.0, bar.value / most * longest)
        yield _text(_EDGE, y, bar.name)
        yield f'<rect class="bar" x="{_EDGE + _NAME}" y="{y - 13}" width="{length:.1f}" height="17" rx="2"/>'
        yield _text(_EDGE + _NAME + length + 8, y, f"{shown(bar.value)} {bar.unit}")


def _text(x: float, y: int, text: str, kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y}"{name}>{escape(text)}</text>'


def shown(number: float) -> str:
    """Return a figure with three digits, or all before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
