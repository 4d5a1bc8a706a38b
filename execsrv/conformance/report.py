"""Findings of the kit, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from execsrv.conformance.case import Kind, Verdict

WORDS: dict[Kind, str] = {"ok": "as described", "differs": "differs", "absent": "absent", "no answer": "no answer"}


def line(verdict: Verdict) -> str:
    """Return a verdict as a line, and what there is to say about it below."""
    said = f"  {WORDS[verdict.kind]:<12}  {verdict.case.title}"
    return f"{said}\n{'':16}{verdict.why}" if verdict.why else said


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """Return a line for each suite: how many cases are as they are described, and how many are not."""
    lines = []
    for suite in dict.fromkeys(verdict.case.suite for verdict in verdicts):
        counts = Counter(verdict.kind for verdict in verdicts if verdict.case.suite == suite)
        others = [f"{counts[kind]} {WORDS[kind]}" for kind in ("differs", "absent", "no answer") if counts[kind]]
        of = sum(counts.values())
        lines.append(f"{suite:<10}  {counts['ok']} of {of} as described" + (f"; {', '.join(others)}" if others else ""))
    return lines


def facts(verdicts: Iterable[Verdict]) -> list[dict[str, str]]:
    """Return verdicts as plain values."""
    return [
        {
            "suite": verdict.case.suite,
            "case": verdict.case.name,
            "title": verdict.case.title,
            "verdict": verdict.kind,
            "why": verdict.why,
        }
        for verdict in verdicts
    ]
