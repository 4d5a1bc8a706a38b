"""The scripts of a seed: number 170 of seed 3 is the same script in every run, as long as the corpus is the same.

The first ones are those of the corpus itself, as they are.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from tests.fuzz import framing, mutations, packing
from tests.fuzz.scripts import CORPUS, Again, Door, Frame, Hear, Raw, Say, Script, load


class Maker:
    """Makes scripts out of recorded conversations."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._corpus = list(load(CORPUS).values())
        self._spoken = [
            spoken
            for script in self._corpus
            if (spoken := [step for step in script.steps if isinstance(step, Say | Hear | Again)])
        ]

    def make(self, number: int) -> Script:
        """Return a script."""
        if number < len(self._corpus):
            return self._corpus[number]
        rng = Random(f"{self.seed}:{number}")
        door: Door = rng.choices(("websocket", "unix", "stdio"), (20, 16, 1))[0]
        steps = rng.choice(self._spoken)
        if rng.random() < 0.85:
            steps = mutations.conversation(steps, self._spoken, rng)
        if door == "stdio":
            steps = [step for step in steps if not isinstance(step, Again)]
        last: Literal["half", "reset"] = "reset" if rng.random() < 0.2 and door != "stdio" else "half"
        carried: list[Say | Raw | Frame | Hear | Again] = list(steps)
        whole, head = True, None
        if rng.random() < 0.3:
            carried, whole = packing.conversation(steps, rng, framed=door == "websocket")
        elif door == "websocket":
            if rng.random() < 0.35:
                carried, whole = framing.frames(steps, rng)
            if rng.random() < 0.2:
                head, whole = framing.head(rng), False
        elif rng.random() < 0.35:
            carried, whole = framing.lines(steps, rng)
        script = Script(door, is_whole=whole, last=last, steps=tuple(carried))
        return script if head is None else Script(door, head, whole, last, tuple(carried))
