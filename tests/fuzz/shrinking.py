"""A script that shows a fault, made as small as it goes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator

from msgspec.structs import replace

from tests.fuzz.scripts import Frame, Raw, Say, Script


async def smaller(script: Script, is_bad: Callable[[Script], Awaitable[object]], seconds: float) -> Script:
    """Return the smallest script found in that time that is still bad: with fewer steps, and shorter ones."""
    until = time.monotonic() + seconds
    size = max(1, len(script.steps) // 2)
    while size:
        for candidate in _with_fewer(script, size):
            if time.monotonic() > until:
                return script
            if await is_bad(candidate):
                script = candidate
                break
        else:
            size //= 2
    index = 0
    while index < len(script.steps):
        for candidate in _with_shorter(script, index):
            if time.monotonic() > until:
                return script
            if await is_bad(candidate):
                script = candidate
                break
        else:
            index += 1
    return script


def _with_fewer(script: Script, size: int) -> Iterator[Script]:
    steps = script.steps
    for start in range(0, len(steps), size):
        yield replace(script, steps=steps[:start] + steps[start + size :])


def _with_shorter(script: Script, index: int) -> Iterator[Script]:
    """Yield the script with a half of one long step left out."""
    step = script.steps[index]
    text = step.text if isinstance(step, Say) else step.data if isinstance(step, Raw) else ""
    text = step.payload if isinstance(step, Frame) else text
    if len(text) < 200:
        return
    third = len(text) // 3
    for start in (0, third, 2 * third):
        kept = text[:start] + text[start + third :]
        match step:
            case Say():
                shorter: Say | Raw | Frame = Say(kept)
            case Raw():
                shorter = Raw(kept)
            case _:
                assert isinstance(step, Frame)
                shorter = replace(step, payload=kept)
        yield replace(script, steps=(*script.steps[:index], shorter, *script.steps[index + 1 :]))
