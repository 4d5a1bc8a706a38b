"""The tree of errors: whole, picklable, and telling what happened in one line."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from typing import Any

import pytest

import execsrv
from execsrv import errors
from execsrv.errors import (
    BadAnswerError,
    CommandError,
    CommandFailedError,
    CommandTimeoutError,
    ConnectionLostError,
    ExecsrvError,
    FileError,
    NotFoundError,
    OutputNotTextError,
    OutputTruncatedError,
    ProtocolError,
    RequestError,
    SpawnError,
    Unknown,
)

CLASSES = [
    value
    for module in pkgutil.iter_modules(errors.__path__, "execsrv.errors.")
    for value in vars(importlib.import_module(module.name)).values()
    if isinstance(value, type) and issubclass(value, BaseException)
]
REQUEST_ERRORS = sorted(
    {error for error in CLASSES if issubclass(error, RequestError)}, key=lambda error: error.__name__
)
FAILED = CommandFailedError(["make"], exit_code=2, stdout=b"out", stderr=b"err\n")
TIMED_OUT = CommandTimeoutError(["make"], timeout=5, exit_code=137, signal="SIGKILL", reason="terminated", stderr=b"e")


def test_every_error_is_exported_and_in_the_tree() -> None:
    assert {error.__name__ for error in CLASSES} == set(errors.__all__)
    assert set(errors.__all__) <= set(execsrv.__all__)
    for error in CLASSES:
        assert issubclass(error, ExecsrvError)
        assert error.__name__.endswith("Error") or error is Unknown  # which is an outcome, among the results of a pool
        assert error.__doc__
        assert error.__module__ == "execsrv.errors"
        assert getattr(execsrv, error.__name__) is error


@pytest.mark.parametrize("names", [execsrv.__all__, errors.__all__])
def test_public_names_are_sorted(names: list[str]) -> None:
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def test_an_error_is_what_its_name_says() -> None:
    assert issubclass(CommandFailedError, CommandError)
    assert issubclass(CommandTimeoutError, CommandError)
    assert issubclass(CommandTimeoutError, TimeoutError)
    assert not issubclass(BadAnswerError, RequestError)


@pytest.mark.parametrize("error", REQUEST_ERRORS)
def test_every_error_comes_back_from_the_wire(error: type[RequestError]) -> None:
    if error is RequestError:
        return
    back = RequestError.from_wire(*error("text", fact=[1]).to_wire())
    assert type(back) is error
    assert (back.message, back.facts, back.code, back.kind) == ("text", {"fact": [1]}, error.code, error.kind)


KEYS: list[Any] = [
    {"message": "x", "self": 1, "code": 2, "args": [], "cls": None, "facts": {}},
    {"kind": "not-found", "message": "x", "errno": "none"},
    {"kind": ["a"], "": 1},
    {"kind": None},
    {1: 2},
    [1],
    "text",
]


@pytest.mark.parametrize("data", KEYS, ids=str)
def test_a_foreign_server_may_say_anything_in_its_errors(data: Any) -> None:
    error = RequestError.from_wire(-1, "odd", data)
    assert (error.message, error.code) == ("odd", -1)
    if isinstance(data, dict):
        assert error.facts == {str(name): value for name, value in data.items() if name != "kind"}
    if isinstance(error, FileError):
        assert error.errno == 0


def test_a_users_subclass_takes_nothing_over() -> None:
    class GoneError(NotFoundError):
        pass

    try:
        assert type(RequestError.from_wire(*NotFoundError("gone").to_wire())) is NotFoundError
    finally:
        del GoneError


SAMPLES = [
    SpawnError("no", stage="cwd", errno=2),
    RequestError.from_wire(-5, "odd", {"kind": "other"}),
    ProtocolError("bad", close_code=1009),
    BadAnswerError("process/start", "nothing"),
    FAILED,
    TIMED_OUT,
    OutputNotTextError(["x"], "is odd", exit_code=3, stdout="\ufffd"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled_and_copied(error: ExecsrvError) -> None:
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(same) is type(error)
        assert (str(same), same.args, vars(same)) == (str(error), error.args, vars(error))


def test_output_of_a_lost_connection_is_pickled() -> None:
    lost = ConnectionLostError("gone")
    lost.stdout = b"so far"
    assert pickle.loads(pickle.dumps(lost)).stdout == b"so far"


def test_what_a_command_error_knows() -> None:
    assert (FAILED.argv, FAILED.exit_code, FAILED.signal, FAILED.reason) == (["make"], 2, None, "exited")
    assert (FAILED.stdout, FAILED.stderr) == (b"out", b"err\n")
    assert (TIMED_OUT.timeout, TIMED_OUT.exit_code, TIMED_OUT.signal, TIMED_OUT.reason) == (
        5,
        137,
        "SIGKILL",
        "terminated",
    )
    unknown = CommandTimeoutError(["x"], timeout=1)
    assert (unknown.exit_code, unknown.signal, unknown.reason) == (None, None, None)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FAILED, "command `make` ended with exit code 2: err"),
        (TIMED_OUT, "command `make` did not end within 5 s and was ended: e"),
        (CommandFailedError(["sh", "-c", "a b"], exit_code=1), "command `sh -c 'a b'` ended with exit code 1"),
        (
            CommandFailedError(["x"], exit_code=143, signal="SIGTERM", reason="signaled"),
            "command `x` died of SIGTERM",
        ),
        (
            CommandFailedError(["x"], exit_code=137, signal="SIGKILL", reason="timeout"),
            "command `x` died of SIGKILL (timeout)",
        ),
        (
            CommandFailedError(["x"], exit_code=1, stderr=b"first\nlast \xff \x1b[31mred\n \n\n"),
            "command `x` ended with exit code 1: last \ufffd \ufffd[31mred",
        ),
        (
            CommandFailedError(["x"], exit_code=1, stdout=b"first\r\nlast\r\n", stderr=b" \n"),
            "command `x` ended with exit code 1: last",
        ),
        (
            CommandTimeoutError(["x"], timeout=1, stdout="said"),
            "command `x` did not end within 1 s and was ended: said",
        ),
        (OutputTruncatedError(["x"], "printed much", stdout=b"of that", stderr=b""), "command `x` printed much"),
        (CommandFailedError(["a\nb", ""], exit_code=1), "command `'a b' ''` ended with exit code 1"),
    ],
)
def test_the_text_of_a_command_error(error: CommandError, text: str) -> None:
    assert str(error) == text


def test_the_text_of_a_command_error_is_bounded() -> None:
    argv = ["x" * 1_000_000, *["word"] * 1_000_000]
    error = CommandFailedError(argv, exit_code=1, stderr=b"y" * 10_000_000)
    assert len(str(error)) < 500
    assert str(error).startswith("command `" + "x" * 200 + "...` ended with exit code 1: " + "y" * 100)
    assert error.argv == argv
