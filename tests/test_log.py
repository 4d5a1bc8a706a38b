"""The log: whatever happens in whatever order, what is read and what is told to be missing is all that was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execsrv._log.head_tail import HeadTail
from execsrv._log.log import ENTRY_BYTES, Closed, Entry, Exited, Gap, OutputLog, first_seq
from execsrv.protocol import Chunk, Member, ReadGap, Stream

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
MOST = 40  # bytes in a generated chunk


def new_log(retained: int = 16_000, window: int = 10_000, acknowledged: bool = False, drops: bool = False) -> OutputLog:
    return OutputLog(retained, window, streams=STREAMS, acknowledged=acknowledged, drops=drops)


def test_everything_is_numbered_in_one_order() -> None:
    log = new_log()
    log.append("stdout", b"a")
    log.append("stderr", b"b")
    log.append_exited(3, None, "exited")
    log.append("stdout", b"c")
    log.append_closed([Member(7, "left")])
    taken = [log.take() for _ in range(5)]
    assert taken == [
        Chunk(1, "stdout", b"a"),
        Chunk(2, "stderr", b"b"),
        Exited(3, 3, None, "exited"),
        Chunk(4, "stdout", b"c"),
        Closed(5, {"stdout": 2, "stderr": 1}, [Member(7, "left")]),
    ]
    assert not log.has_news
    with pytest.raises(LookupError):
        log.take()
    with pytest.raises(ValueError, match="expected entry 6"):
        log.add(Chunk(8, "stdout", b""))


def test_reading_pages() -> None:
    log = new_log()
    for letter in b"abc":
        log.append("stdout", bytes([letter]) * 10)
    log.append_exited(0, None, "exited")

    def seqs(after: int, most: int | None) -> tuple[list[int], int]:
        gap, chunks, next_seq = log.read(after, most)
        assert gap is None
        return [chunk.seq for chunk in chunks], next_seq

    assert seqs(0, None) == ([1, 2, 3], 5)
    assert seqs(0, 20) == ([1, 2], 3)
    assert seqs(2, 0) == ([3], 5)
    assert seqs(99, None) == ([], 5)


def test_what_is_forgotten_is_told() -> None:
    log = new_log(retained=1200)
    for number in range(20):
        log.append(STREAMS[number % 2], b"x" * 100)
        log.take()
    gap, chunks, next_seq = log.read(0, None)
    last = chunks[0].seq - 1
    assert gap == ReadGap(1, last, {"stdout": 100 * ((last + 1) // 2), "stderr": 100 * (last // 2)})
    assert next_seq == 21
    assert log.read(chunks[0].seq - 1, None)[0] is None
    assert log.read(3, None)[0] == ReadGap(4, last, gap.printed_before)


def test_a_log_that_drops_leaves_out_the_oldest_and_never_an_end() -> None:
    log = new_log(window=1000, drops=True)
    for _ in range(10):
        log.append("stdout", b"x" * 100)
    log.append_exited(0, None, "exited")
    for _ in range(10):
        log.append("stderr", b"y" * 100)
    log.append_closed([])
    heard: list[Entry] = []
    while log.has_news:
        heard.append(log.take())
    assert [type(entry).__name__ for entry in heard[:3]] == ["Gap", "Exited", "Gap"]
    assert heard[0] == Gap(1, 10, {"stdout": 1000})
    assert isinstance(heard[2], Gap)
    assert heard[2].from_seq == 12
    assert sum(len(entry.chunk) for entry in heard if isinstance(entry, Chunk)) + heard[2].omitted["stderr"] == 1000
    assert isinstance(heard[-1], Closed)


def test_a_log_that_drops_goes_no_further_than_what_was_acknowledged() -> None:
    log = new_log(retained=1000, window=600, acknowledged=True, drops=True)

    def print_one() -> None:
        log.append("stdout", b"x" * 250)

    for _ in range(2):
        print_one()
        assert log.take().seq == log.last_taken
    for _ in range(100):
        print_one()
        assert not log.has_news
    assert len(log.read(0, None)[1]) <= 4
    log.acknowledge(2)
    assert (log.take(), log.take()) == (Gap(3, 101, {"stdout": 99 * 250}), Chunk(102, "stdout", b"x" * 250))
    print_one()
    log.take()
    print_one()
    assert not log.has_news
    log.append_exited(0, None, "exited")
    print_one()
    assert [type(log.take()) for _ in range(2)] == [Gap, Exited]
    assert not log.has_news


def test_gaps_that_are_added_one_after_the_other_become_one() -> None:
    log = OutputLog(0, 1000)
    log.add(Gap(1, 3, {"stdout": 10}))
    for seq in range(4, 1004):
        log.add(Gap(seq, seq, {"stdout": 1, "stderr": 2}))
    log.add(Chunk(1004, "stdout", b"x"))
    log.add(Gap(1005, 1005, {"stdout": 7}))
    assert log.take() == Gap(1, 1003, {"stdout": 1010, "stderr": 2000})
    log.add(Gap(1006, 1006, {"stdout": 7}))
    assert [log.take(), log.take()] == [Chunk(1004, "stdout", b"x"), Gap(1005, 1006, {"stdout": 14})]
    log.add(Gap(1007, 1007, {}))
    assert log.take() == Gap(1007, 1007, {})
    assert not log.has_news


Action = st.one_of(
    st.tuples(st.sampled_from(STREAMS), st.binary(max_size=MOST)),
    st.sampled_from(["take", "acknowledge", "detach", "attach", "exit", "read"]),
)


def test_pieces_that_nobody_has_seen_become_one() -> None:
    log = new_log()
    log.append("stdout", b"seen")
    log.take()
    log.detach()
    for number in range(3000):
        log.append("stdout", b"%04d\n" % number)
    log.append("stderr", b"e")
    log.append("stdout", b"x")
    log.attach()
    log.append("stdout", b"y")
    gap, chunks, next_seq = log.read(1, None)
    assert gap is None
    assert [(chunk.seq, chunk.stream, len(chunk.chunk)) for chunk in chunks] == [
        (2, "stdout", 15_000),
        (3, "stderr", 1),
        (4, "stdout", 1),
        (5, "stdout", 1),
    ]
    assert chunks[0].chunk == b"".join(b"%04d\n" % number for number in range(3000))
    log.go_on(next_seq)
    assert not log.has_news
    log.append("stdout", b"z")
    assert log.take() == Chunk(6, "stdout", b"z")


def test_what_becomes_one_is_of_one_second() -> None:
    now = 0
    log = OutputLog(16_000, 10_000, streams=STREAMS, clock=lambda: now)
    log.detach()
    for now in range(0, 4000, 400):
        log.append("stdout", b"%04d" % now)
    assert [(chunk.at_ms, chunk.chunk) for chunk in log.read(0, None)[1]] == [
        (0, b"000004000800"),
        (1200, b"120016002000"),
        (2400, b"240028003200"),
        (3600, b"3600"),
    ]


def test_a_reader_that_is_away_loses_nothing_unless_it_wanted_to() -> None:
    for acknowledged in (False, True):
        log = new_log(2000, 1000, acknowledged=acknowledged)
        for number in range(20):
            log.append(STREAMS[number % 2], b"x" * 100)
            log.take()
            log.acknowledge(log.last_taken)
        log.append("stdout", b"waits" * 20)
        log.detach()
        while log.has_room:
            log.append(STREAMS[log.next_seq % 2], b"y" * 100)
        log.detach()
        log.attach()
        gap, chunks, next_seq = log.read(19, 150)
        assert (gap, next_seq) == (None, 21)
        assert not log.has_news
        assert not log.has_room
        log.go_on(next_seq)
        heard = [log.take() for _ in range(next_seq, log.next_seq)]
        assert [entry.seq for entry in [*chunks, *heard]] == list(range(20, log.next_seq))
        log.acknowledge(log.last_taken)
        assert log.has_room


def test_as_much_is_retained_as_the_codex_exec_server_retains() -> None:
    log = new_log(1 << 20, 1 << 18)
    for number in range(60_000):
        log.append(STREAMS[number % 2], b"x\n")
        log.take()
    assert len(log.read(0, None)[1]) > 50_000
    log = new_log(1 << 20, 1 << 18)
    for _ in range(40):
        log.append("stdout", bytes(1 << 16))
        log.take()
    assert len(log.read(0, None)[1]) == 16


def sizes(entries: list[Chunk]) -> dict[Stream, int]:
    return {stream: sum(len(chunk.chunk) for chunk in entries if chunk.stream == stream) for stream in STREAMS}


@given(
    st.booleans(),
    st.booleans(),
    st.integers(0, 4000),
    st.integers(1, 2000),
    st.integers(1, 100) | st.none(),
    st.lists(Action, max_size=80),
)
def test_what_is_read_and_what_is_missing_is_all_that_was_written(
    acknowledged: bool,
    drops: bool,
    retained: int,
    window: int,
    page: int | None,
    actions: list[tuple[Stream, bytes] | str],
) -> None:
    log = new_log(retained, window, acknowledged=acknowledged, drops=drops)
    written: dict[Stream, bytes] = dict.fromkeys(STREAMS, b"")
    heard: list[Entry] = []  # by the attached reader since it came
    had: dict[Stream, int] = dict.fromkeys(STREAMS, 0)  # by a reader that pages, what it missed among it
    attached, since, after, biggest = True, 0, 0, 0

    def take() -> None:
        entry = log.take()
        assert first_seq(entry) == (heard[-1].seq if heard else since) + 1
        heard.append(entry)

    def read() -> None:
        nonlocal after
        gap, chunks, next_seq = log.read(after, page)
        if gap is not None:
            assert gap.from_seq == after + 1
            for stream in STREAMS:
                assert gap.printed_before[stream] >= had[stream]
                had[stream] = gap.printed_before[stream]
        for chunk in chunks:
            assert written[chunk.stream][had[chunk.stream] :].startswith(chunk.chunk)
            had[chunk.stream] += len(chunk.chunk)
        after = next_seq - 1

    for action in actions:
        if isinstance(action, tuple):
            if log.has_room:
                stream, data = action
                log.append(stream, data)
                written[stream] += data
        elif action == "take" and attached and log.has_news:
            take()
        elif action == "acknowledge" and attached and acknowledged:
            log.acknowledge(log.last_taken + 3)  # more than was taken does not count
        elif action == "detach" and attached:
            log.detach()
            attached = False
        elif action == "attach" and not attached:
            log.attach()
            assert not log.has_news
            since = heard[-1].seq if heard else since
            gap, _, next_seq = log.read(since, page)
            assert drops or gap is None
            log.go_on(next_seq)
            attached, since, heard = True, next_seq - 1, []
        elif action == "exit" and log.exited is None:
            log.append_exited(0, None, "exited")
        elif action == "read" and attached:
            read()
        chunks = log.read(0, None)[1]
        biggest = sum(len(chunk.chunk) for chunk in chunks)
        assert biggest <= retained + window + (0 if drops else max(retained, window)) + 2 * (MOST + ENTRY_BYTES)
        assert attached or not drops or biggest <= retained
    log.append_closed([])
    assert log.totals == {stream: len(data) for stream, data in written.items()}
    while attached and log.has_news:
        take()
    if attached:
        assert (heard[-1].seq if heard else since) == log.next_seq - 1
        before = dict(log.totals)
        for entry in heard:
            match entry:
                case Chunk(_, stream, chunk):
                    before[stream] -= len(chunk)
                case Gap():
                    assert drops
                    for stream, size in entry.omitted.items():
                        before[stream] -= size
        assert since or before == dict.fromkeys(STREAMS, 0)
    while after < log.next_seq - 1:
        read()
    assert had == log.totals
    for stream, ends in log.streams.items():
        assert ends.total_bytes == len(written[stream])
        assert written[stream].startswith(ends.head)
        assert written[stream].endswith(ends.tail)
        assert len(ends.head) + len(ends.tail) + ends.omitted_bytes == len(written[stream])


@given(st.integers(0, 50), st.lists(st.binary(max_size=20)))
def test_head_and_tail_and_what_is_between(bound: int, pieces: list[bytes]) -> None:
    kept = HeadTail(bound)
    for piece in pieces:
        kept.append(piece)
    whole = b"".join(pieces)
    assert kept.total_bytes == len(whole)
    assert len(bytes(kept)) + kept.omitted_bytes == len(whole)
    if len(whole) <= bound:
        assert bytes(kept) == whole
    else:
        assert bytes(kept) == whole[: bound // 2] + whole[len(whole) - (bound - bound // 2) :]
