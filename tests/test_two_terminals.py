"""Two people at two terminals, and one build: each step of it as they see it, in the order in which they do it.

The steps are tests that follow one another. Where one has failed, or was not asked for, those behind it are not tried.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.daemon import running_daemon
from tests.processes import marked, new_mark
from tests.terminals import CutLine, Seen, cuttable, seen

BUILD = """
echo compiling 1 of 2; sleep 0.2
read -p 'which target? ' target
echo linking $target | tee result
trap 'echo "not yet"' INT
exec -a MARK sleep 1000
"""


class Story:
    """The office: a server, a line to it that may be cut, and the terminals that are on the desks."""

    def __init__(self, folder: Path, url: str, line: CutLine, desks: ExitStack) -> None:
        self.folder, self.url, self.line = folder, url, line
        self.mark = new_mark()
        self.steps_done = 0
        self._desks = desks
        self.ann: Seen
        self.ben: Seen

    def sit_down(self, *words: str, url: str = "") -> Seen:
        """Have a command at a terminal of its own."""
        env = {"EXECSRV_URL": url or self.url}
        return self._desks.enter_context(seen(*words, env=env))

    def once(self, *words: str, cols: int = 120) -> str:
        """Have a command at a terminal that ends well, and return what is seen then."""
        with seen(*words, size=(60, cols), env={"EXECSRV_URL": self.url}) as terminal:
            assert terminal.end() == 0, terminal.text
            return terminal.text


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    with (
        running_daemon(folder, "unix") as daemon,
        cuttable(daemon.url, f"{folder}/line") as line,
        ExitStack() as desks,
    ):
        yield Story(folder, daemon.url, line, desks)


@pytest.fixture(autouse=True)
def in_order(story: Story, request: pytest.FixtureRequest) -> Iterator[None]:
    step = int(request.node.name.split("_")[1])
    if story.steps_done != step - 1:
        pytest.skip(f"step {step - 1} was not done before")
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        story.steps_done = step


def test_1_a_build_is_started_and_left(story: Story) -> None:
    script = BUILD.replace("MARK", story.mark)
    words = ["run", "--detach", "--tty", "--name", "build", "--cwd", str(story.folder), "--", "bash", "-c", script]
    assert story.once(*words) == "build"


def test_2_it_is_listed(story: Story) -> None:
    head, line = story.once("ps").splitlines()
    assert head.split()[:3] == ["NAME", "STATE", "AGE"]
    assert re.match(r"build  running  [\d.]+ s +\d+ ", line)
    assert line.endswith("…")  # the script has no room


def test_3_it_is_watched_from_two_places(story: Story) -> None:
    story.ann = story.sit_down("attach", "build", url=story.line.url)
    story.ben = story.sit_down("attach", "--read-only", "build")
    for terminal in (story.ann, story.ben):
        terminal.see(r"\Acompiling 1 of 2\nwhich target\?$")


def test_4_one_types_and_both_see_it(story: Story) -> None:
    story.ben.line("nonsense")  # he only watches
    story.ann.line("debug")
    for terminal in (story.ann, story.ben):
        terminal.see(r"\Acompiling 1 of 2\nwhich target\? debug\nlinking debug$")
    assert "nonsense" not in story.ann.text + story.ben.text


def test_5_one_loses_the_network_and_the_other_notices_nothing(story: Story) -> None:
    story.line.cut()
    story.ann.see(r"\[execsrv: the connection is lost; trying for 60 s to come back; ~\. gives up\]")
    assert "running" in story.once("ps")
    assert "lost" not in story.ben.text


def test_6_she_comes_back_to_the_same_build(story: Story) -> None:
    story.line.mend()
    story.ann.see(r"\[execsrv: connected again\]")
    story.ann.type("hello")  # echoed by the terminal of the build
    for terminal in (story.ann, story.ben):
        terminal.see("hello$")


def test_7_she_goes_home_and_it_goes_on(story: Story) -> None:
    story.ann.type("\r~.")
    assert story.ann.end() == 0
    assert story.ann.text.endswith("\nexecsrv: left `build`, which goes on")
    assert len(marked(story.mark)) == 1


def test_8_its_result_is_copied_out(story: Story) -> None:
    story.once("cp", "build:result", str(story.folder / "copy"))
    assert (story.folder / "copy").read_text() == "linking debug\n"


def test_9_it_is_killed_by_name_and_who_watches_sees_it(story: Story) -> None:
    assert story.once("kill", "build") == ""
    assert not marked(story.mark)
    assert story.ben.end() == 143
    assert story.ben.text.startswith("compiling 1 of 2\nwhich target? debug\nlinking debug\nhello")


def test_10_how_it_ended_is_listed(story: Story) -> None:
    _, line = story.once("ps").splitlines()
    assert re.match(r"build  terminated \(SIGTERM\)  ", line)
    [facts] = json.loads(story.once("ps", "--json", cols=500))
    assert (facts["name"], facts["signal"], facts["reason"]) == ("build", "SIGTERM", "terminated")
