"""Lines over evenly spaced marks, with a logarithmic scale upward, as an SVG for light, dark and print.

Pure: no I/O, and nothing to install. A server has one colour, one dash and one shape of marker in all plots, so that it
is known without its colour; its name stands at the end of its line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

WIDTH = 720
LEFT, RIGHT = 70, 150
HEAD, PANEL, FOOT = 62, 336, 0
PLOT_TOP, PLOT_BOTTOM = 34, 280
"""Within a panel."""
NAME_DISTANCE = 15
MARKER = 4

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-size:17px;font-weight:600}.panel{font-weight:600}"
    ".small{fill:#555}.ground{fill:#fff}.grid{stroke:#ddd}"
    ".ours{stroke:#1f5f95;fill:#1f5f95}.packed{stroke:#00734f;fill:#00734f}.peer{stroke:#a63d00;fill:#a63d00}"
    ".quickack{stroke:#8a2f7a;fill:#8a2f7a}.floor{stroke:#666;fill:#666}"
    ".peer.line{stroke-dasharray:7 4}.packed.line{stroke-dasharray:12 3 2 3}.quickack.line{stroke-dasharray:3 3}"
    ".floor.line{stroke-dasharray:1 4}.line.line{fill:none;stroke-width:2}.hollow.hollow{fill:#fff;stroke-width:1.5}"
    "@media screen and (prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#aaa}.ground{fill:#16181a}"
    ".grid{stroke:#3a3d40}"
    ".ours{stroke:#76b5e6;fill:#76b5e6}.packed{stroke:#5fc79f;fill:#5fc79f}.peer{stroke:#f0915a;fill:#f0915a}"
    ".quickack{stroke:#dd8fce;fill:#dd8fce}.floor{stroke:#999;fill:#999}.hollow.hollow{fill:#16181a}}"
)


class Line(NamedTuple):
    """The values of one server by what they were measured with. A hollow line has markers that are not filled."""

    name: str
    kind: str
    values: dict[int, float]
    is_hollow: bool = False


class Panel(NamedTuple):
    """One plot. `marks` are what values were measured with, each with its name below the plot."""

    title: str
    across: str
    upward: str
    marks: dict[int, str]
    lines: list[Line]


def svg(title: str, below: str, panels: Sequence[Panel]) -> str:
    """Return the picture, with one panel below the other."""
    height = HEAD + PANEL * len(panels) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img" aria-label="{escape(said(title, panels))}">',
        f'<style>{STYLE}</style><rect class="ground" width="100%" height="100%"/>',
        text(20, 32, title, "title"),
        text(20, 52, below, "small"),
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate(0 {HEAD + PANEL * number})">', *drawn(panel), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def said(title: str, panels: Sequence[Panel]) -> str:
    """What is to be seen, in words."""
    lines = [
        f"{panel.title}, {panel.upward}, {line.name}: "
        + ", ".join(f"{panel.marks[mark]} {shown(value)}" for mark, value in line.values.items())
        for panel in panels
        for line in panel.lines
    ]
    return "; ".join([title, *lines])


def drawn(panel: Panel) -> Iterator[str]:
    ticks = ticks_around([value for line in panel.lines for value in line.values.values()])
    right = WIDTH - RIGHT
    step = (right - LEFT - 20) / max(1, len(panel.marks) - 1)
    x_of = {mark: LEFT + 10 + step * number for number, mark in enumerate(panel.marks)}

    def y_of(value: float) -> float:
        share = (math.log(value) - math.log(ticks[0])) / (math.log(ticks[-1]) - math.log(ticks[0]))
        return PLOT_BOTTOM - share * (PLOT_BOTTOM - PLOT_TOP)

    yield text(20, 16, panel.title, "panel")
    for tick in ticks:
        yield f'<path class="grid" d="M{LEFT} {y_of(tick):.1f}H{right}"/>'
        yield text(LEFT - 8, y_of(tick) + 4, shown(tick), "small", "end")
    for mark, name in panel.marks.items():
        yield text(x_of[mark], PLOT_BOTTOM + 18, name, "small", "middle")
    yield text((LEFT + right) / 2, PLOT_BOTTOM + 38, panel.across, "", "middle")
    middle = (PLOT_TOP + PLOT_BOTTOM) // 2
    yield f'<text transform="translate(24 {middle}) rotate(-90)" text-anchor="middle">{escape(panel.upward)}</text>'
    for line in panel.lines:
        points = [(x_of[mark], y_of(value)) for mark, value in line.values.items()]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        yield f'<path class="{line.kind} line" d="M{path}"/>'
        for x, y in points:
            yield f'<path class="{line.kind}{" hollow" if line.is_hollow else ""}" d="{marker(line.kind, x, y)}"/>'
    ends = [y_of(list(line.values.values())[-1]) for line in panel.lines]
    for line, y in zip(panel.lines, apart(ends), strict=True):
        yield text(right + 8, y + 4, line.name)


def marker(kind: str, x: float, y: float) -> str:
    """A circle for execsrv, a square for it in msgpack, triangles for a peer, a small dash for a floor."""
    r = MARKER
    match kind:
        case "ours":
            return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
        case "packed":
            return f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z"
        case "peer":
            return f"M{x - r - 1:.1f} {y + r:.1f}h{2 * r + 2}l{-r - 1} {-2 * r - 1}z"
        case "quickack":
            return f"M{x - r - 1:.1f} {y - r:.1f}h{2 * r + 2}l{-r - 1} {2 * r + 1}z"
        case _:
            return f"M{x - r:.1f} {y:.1f}h{2 * r}"


def apart(places: Sequence[float]) -> list[float]:
    """The same places, moved so far that names there do not cover each other."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + NAME_DISTANCE)
    excess = max(0.0, moved[order[-1]] - PLOT_BOTTOM)
    return [place - excess for place in moved]


def ticks_around(values: Sequence[float]) -> list[float]:
    """Every 1, 2 and 5 of a power of ten, from the last that is below all values to the first above."""
    lowest, highest = min(values), max(values)
    decades = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    first = max(number for number, tick in enumerate(ticks) if tick <= lowest)
    last = min(number for number, tick in enumerate(ticks) if tick >= highest and number > first)
    return ticks[first : last + 1]


def shown(value: float, digits: int = 3) -> str:
    """A number with so many digits, or with all before the point."""
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    at = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{name}{at}>{escape(words)}</text>'
