"""The table of attacks names tests that exist, and every test of an attack."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = (HERE / "README.md").read_text()
ROW = re.compile(r"^\| (?!---|what )(.+?) \| (.+) \|$", re.MULTILINE)
NAME = re.compile(r"`([a-z_/0-9]+\.py)::(test_\w+)`")


def names_in(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))


def test_every_row_is_tried_by_tests_that_exist() -> None:
    rows = ROW.findall(TABLE)
    numbers = [found[1] for what, _ in rows if (found := re.match(r"F(\d+): ", what))]
    assert numbers == [str(number) for number in range(1, 14)]
    for what, tests in rows:
        assert NAME.search(tests) or tests == "the third table", what
    missing = [name for file, name in NAME.findall(TABLE) if name not in names_in(HERE.parent / file)]
    assert not missing


def test_every_attack_of_a_flood_or_at_the_door_is_in_a_row() -> None:
    named = set(NAME.findall(TABLE))
    for file in ("others", "tokens", "handshakes", "floods", "crowds", "browsers"):
        name = f"test_{file}.py"
        assert not [test for test in names_in(HERE / name) if (f"attack/{name}", test) not in named]
