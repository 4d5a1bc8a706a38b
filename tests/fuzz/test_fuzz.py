"""The corpus, and mutations of it, said to real daemons; and that the fuzzer finds what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from execsrv.protocol import METHODS
from tests.fuzz import values
from tests.fuzz.__main__ import UNREACHABLE
from tests.fuzz.decoding import by_seed
from tests.fuzz.making import Maker
from tests.fuzz.scripts import CORPUS, DOORS, Say, Script, load

SEED = 12


def fuzz(*arguments: str) -> tuple[int, str]:
    """Run the fuzzer; its exit status, and all that it wrote."""
    argv = [sys.executable, "-m", "tests.fuzz", *arguments]
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == UNREACHABLE:
        pytest.skip(done.stdout)
    return done.returncode, done.stdout


@pytest.mark.few
@pytest.mark.timeout(600)  # seconds of work, which a crowded machine may make minutes
@pytest.mark.parametrize("count", [15, pytest.param(250, marks=pytest.mark.slow)])
def test_the_corpus_and_mutations_of_it_do_no_harm(count: int, tmp_path: Path) -> None:
    status, said = fuzz("--seed", f"{SEED}", "--count", f"{count}", "--found", f"{tmp_path}/found")
    assert status == 0, said
    assert said.startswith(f"{count} conversations of seed {SEED} in ")


def test_what_is_decoded_raises_nothing_that_a_peer_is_not_told() -> None:
    assert by_seed(SEED, 500, 60) > 50


def test_every_method_is_recorded() -> None:
    said = [step.text for script in load(CORPUS).values() for step in script.steps if isinstance(step, Say)]
    assert [name for name in METHODS if not any(f'"{name}"' in text for text in said)] == []


def test_nothing_of_a_machine_is_recorded() -> None:
    text = "".join(path.read_text() for path in CORPUS.rglob("*"))
    assert len(text) < 200_000
    assert not any(word in text for word in ("/home/", "/root", "/tmp/tmp", "127.0.0.1:"))


@pytest.mark.slow
def test_a_seed_is_the_same_conversations_again() -> None:
    one, other, third = ([Maker(seed).make(number) for number in range(120)] for seed in (1, 1, 2))
    assert one == other != third
    assert {script.door for script in one} == {None, *DOORS}


def test_a_written_script_is_the_same_script() -> None:
    for number in range(100):
        script = Maker(SEED).make(number)
        assert Script.from_bytes(script.to_bytes()) == script


def test_values_at_the_bounds_of_every_type_are_tried() -> None:
    types = values.types_of("process/resize")
    assert values.edges(types["rows"]) == [0, 1, 2, 65534, 65535, 65536]
    assert [len(value) for value in values.edges(types["processId"])] == [255, 256, 257] * 2
    rng = Random(SEED)
    assert all(isinstance(values.invent(name, rng), list) for name in METHODS)


ANSWER = CORPUS / "host.jsonl"
"""Asks, among other things, for what a faulty daemon answers wrongly."""


def with_a_fault(fault: str, *arguments: str) -> tuple[int, str]:
    """Run the fuzzer on a daemon that has a fault."""
    return fuzz("--daemon", f"tests.fuzz.faulty {fault}", *arguments)


@pytest.mark.few
@pytest.mark.parametrize(
    ("fault", "sign"),
    [
        ("traceback", "RuntimeError: a fault"),
        pytest.param("end", "the server ended with 3", marks=pytest.mark.slow),
        pytest.param("answer", "ValidationError: ", marks=pytest.mark.slow),
        pytest.param("descriptor", "left behind: 1 descriptors: ", marks=pytest.mark.slow),
        pytest.param("command", "sleep 1000", marks=pytest.mark.slow),
        pytest.param("hang", "nothing came in ", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_what_is_wrong_is_found(fault: str, sign: str) -> None:
    status, said = with_a_fault(fault, "--replay", str(ANSWER))
    assert status == 1, said
    assert sign in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_found_is_made_small_and_can_be_replayed(tmp_path: Path) -> None:
    found = tmp_path / "found"
    status, said = with_a_fault("answer", "--seed", f"{SEED}", "--count", "200", "--found", str(found))
    assert status == 1, said
    [script, *_] = found.glob("*.jsonl")
    assert len(load(script)[script.stem].steps) < 6
    status, said = with_a_fault("answer", "--replay", str(script))
    assert status == 1, said
    status, said = fuzz("--replay", str(script))
    assert status == 0, said + script.read_text()
