"""Errors of a block and of its helpers: none is lost, and no cancel leaves its scope."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable
from types import FrameType

import pytest
import trio
import trio.testing

from execsrv._nursery import happened, open_helpers, started


class RootCauseError(Exception):
    pass


class CleanUpError(Exception):
    pass


def crash_with(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def crash() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return crash


async def sleep() -> None:
    await trio.sleep_forever()


async def in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep)
        nursery.start_soon(sleep)


async def in_nested_nurseries() -> None:
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        outer.start_soon(sleep)
        inner.start_soon(sleep)
        await trio.sleep_forever()


async def in_helpers_of_its_own() -> None:
    async with open_helpers() as helpers:
        helpers.start_soon(sleep)
        await in_a_nursery()


BLOCKS = [sleep, in_a_nursery, in_nested_nurseries, in_helpers_of_its_own]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kind", [RootCauseError, KeyboardInterrupt, MemoryError, SystemExit])
async def test_the_error_of_a_helper_leaves_as_itself(
    block: Callable[[], Awaitable[None]], kind: type[BaseException]
) -> None:
    root = kind("root cause")
    with pytest.raises(kind) as caught:
        async with open_helpers() as helpers:
            helpers.start_soon(crash_with(root))
            await block()
    assert caught.value is root
    assert root.__cause__ is None
    assert root.__context__ is None


@pytest.mark.parametrize("block", BLOCKS)
async def test_an_outer_cancel_works(block: Callable[[], Awaitable[None]]) -> None:
    with trio.CancelScope() as scope:
        async with open_helpers() as helpers:
            helpers.start_soon(sleep)
            scope.cancel()
            await block()
    assert scope.cancelled_caught


@pytest.mark.parametrize("block", BLOCKS)
async def test_clean_up_that_raises_under_the_cancel_tells_why_it_ran(block: Callable[[], Awaitable[None]]) -> None:
    root, of_block = RootCauseError(), CleanUpError()
    with pytest.raises(CleanUpError) as caught:
        async with open_helpers() as helpers:
            helpers.start_soon(crash_with(root))
            try:
                await block()
            finally:
                raise of_block
    assert caught.value is of_block
    assert of_block.__cause__ is root


async def test_a_cause_that_is_there_already_stays() -> None:
    root, of_block, cause = RootCauseError(), CleanUpError(), KeyError()
    with pytest.raises(CleanUpError):
        async with open_helpers() as helpers:
            helpers.start_soon(crash_with(root))
            try:
                await trio.sleep_forever()
            finally:
                raise of_block from cause
    assert of_block.__cause__ is cause
    assert cause.__cause__ is root


async def fails_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise CleanUpError


async def test_a_mixed_group_is_split_when_a_helper_crashed() -> None:
    root = RootCauseError()
    with pytest.raises(ExceptionGroup) as caught:
        async with open_helpers() as helpers:
            helpers.start_soon(crash_with(root))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sleep)
                nursery.start_soon(fails_when_cancelled)
    [error] = caught.value.exceptions
    assert isinstance(error, CleanUpError)
    assert caught.value.__cause__ is root


async def test_a_mixed_group_is_split_when_an_outer_scope_was_cancelled() -> None:
    with pytest.raises(ExceptionGroup) as caught, trio.CancelScope() as scope:
        async with open_helpers():
            scope.cancel()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sleep)
                nursery.start_soon(fails_when_cancelled)
    assert [type(error) for error in caught.value.exceptions] == [CleanUpError]


async def test_a_group_of_the_block_leaves_as_it_is() -> None:
    group = ExceptionGroup("mine", [ValueError(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_helpers() as helpers:
            helpers.start_soon(sleep)
            raise group
    assert caught.value is group


async def test_a_helper_that_fails_under_an_outer_cancel_is_heard() -> None:
    with pytest.raises(CleanUpError), trio.CancelScope() as scope:
        async with open_helpers() as helpers:
            helpers.start_soon(fails_when_cancelled)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_program_is_not_hidden_behind_clean_up(kind: type[BaseException]) -> None:
    of_block = CleanUpError()
    with pytest.raises(kind) as caught:
        async with open_helpers() as helpers:
            helpers.start_soon(crash_with(kind()))
            try:
                await trio.sleep_forever()
            finally:
                raise of_block
    assert caught.value.__cause__ is of_block


async def test_an_interrupt_of_the_block_names_the_helper_that_failed() -> None:
    root = RootCauseError()
    with pytest.raises(KeyboardInterrupt) as caught:
        async with open_helpers() as helpers:
            helpers.start_soon(crash_with(root))
            try:
                await trio.sleep_forever()
            finally:
                raise KeyboardInterrupt
    assert caught.value.__cause__ is root


async def test_several_helpers_that_fail_leave_as_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_helpers() as helpers:
            helpers.start_soon(fails_when_cancelled)
            helpers.start_soon(crash_with(RootCauseError()))
            await in_a_nursery()
    assert {type(error) for error in caught.value.exceptions} == {CleanUpError, RootCauseError}


async def test_a_task_that_fails_before_it_is_started_tells_why() -> None:
    async def fail(why: Exception, *, task_status: trio.TaskStatus[None]) -> None:
        raise CleanUpError from why

    why = RootCauseError()
    async with trio.open_nursery() as nursery:
        with pytest.raises(CleanUpError) as failed:
            await started(nursery, fail, why)
    assert failed.value.__cause__ is why


def test_an_interrupt_that_falls_into_the_wait_for_an_event_leaves_trio_whole() -> None:
    event, before, traced = trio.Event(), signal.getsignal(signal.SIGINT), sys.gettrace()

    def interrupt(frame: FrameType, what: str, argument: object) -> None:
        if frame.f_code.co_name == "wait_task_rescheduled":
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)

    async def wait() -> None:
        sys.settrace(interrupt)
        await happened(event)

    async def main() -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep_forever()
        finally:
            event.set()
            await trio.lowlevel.cancel_shielded_checkpoint()

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(BaseExceptionGroup) as failed:
            trio.run(main)
    finally:
        sys.settrace(traced)
        signal.signal(signal.SIGINT, before)
    assert failed.group_contains(KeyboardInterrupt)


def test_no_cancel_ends_the_program() -> None:
    """A bare `Cancelled` in the main task would end `trio.run` without an error."""

    async def main() -> str:
        try:
            async with open_helpers() as helpers:
                helpers.start_soon(crash_with(RootCauseError()))
                await in_nested_nurseries()
        except RootCauseError:
            return "heard"
        return "left"

    assert trio.run(main) == "heard"
