"""`Process.wait_for`: its arguments, its outcome and its errors. `waiting` does the rest."""

from __future__ import annotations

import math
from itertools import count
from typing import TYPE_CHECKING, Any

import trio
from msgspec import UnsetType

from execsrv.client.parameters import flag, milliseconds, seconds
from execsrv.client.waiting import Happened, Kind, Pattern, Wait, compiled, encoding_of, literals
from execsrv.errors import CommandError, ExecsrvError, InvalidParamsError, ProcessEndedError, WaitTimeoutError
from execsrv.protocol import PortWish, ProcessSnapshot, ProcessWaitFor

if TYPE_CHECKING:
    from execsrv.client.process import Process

_KINDS: dict[str, Kind] = {
    "output": "output",
    "port": "port",
    "idle": "idle",
    "exited": "exit",
    "treeEmpty": "tree_empty",
    "noEcho": "no_echo",
    "input": "input",
}

_LAST_WORDS_SECONDS = 1.0
"""Time that an error waits for the last output."""

_names = count(1)


async def wait_for(
    process: Process,
    *,
    output: Pattern | list[Pattern] | None = None,
    port: int | None = None,
    host: str | None = None,
    idle: float | None = None,
    exit: bool = False,
    tree_empty: bool = False,
    no_echo: bool = False,
    input: bool = False,
    timeout: float | None = None,  # noqa: ASYNC109  # it raises an error that tells more
    after: Happened | None = None,
) -> Happened:
    """Wait for the first of these. `Process.wait_for` tells the rest."""
    patience = seconds("timeout", timeout, zero=True)
    if host is not None and not isinstance(host, str):
        raise TypeError(f"host must be a string, got {type(host).__name__}")
    if not isinstance(after, Happened | None):
        raise TypeError(f"after must be what `wait_for` returned, got {type(after).__name__}")
    patterns = compiled(output)
    for name, value in (("exit", exit), ("tree_empty", tree_empty), ("no_echo", no_echo), ("input", input)):
        flag(name, value)
    if not patterns and port is None and idle is None and not (exit or tree_empty or no_echo or input):
        raise InvalidParamsError("nothing to wait for: name output, port, idle, exit, tree_empty, no_echo or input")
    if host is not None and port is None:
        raise InvalidParamsError("host is the address of port, which is missing", field="port")
    words = literals(process, patterns)
    params = ProcessWaitFor(
        process.id,
        output=words or [],
        port=None if port is None else PortWish(port, host),
        idle_ms=None if idle is None else milliseconds("idle", idle),
        exited=exit,
        tree_empty=tree_empty,
        no_echo=no_echo,
        input=input,
        timeout_ms=None if patience == math.inf else round(patience * 1000),
        after_seq=after.seq if after else None,
        after_offset=after.offset if after else None,
        wait_id=f"wait-{next(_names)}",
    )
    happened = await Wait(process, params, patterns if words is None else []).run()
    if isinstance(happened, Happened):
        return happened
    if happened.happened == "timeout":
        raise await _failure(process, WaitTimeoutError, f"did not do what was waited for within {patience:g} s")
    if happened.happened == "closed":
        raise await _failure(process, ProcessEndedError, "is over without what was waited for")
    match: Any = None
    if happened.index is not None and words is not None:
        pattern, found = patterns[happened.index], words[happened.index]
        match = pattern.fullmatch(found if isinstance(pattern.pattern, bytes) else found.decode(encoding_of(process)))
    return Happened(
        kind=_KINDS[happened.happened],
        match=match,
        index=happened.index,
        stream=happened.stream,
        missed=happened.gap is not None,
        seq=happened.seq,
        offset=happened.offset,
        input=None if isinstance(happened.input, UnsetType) else happened.input,
    )


async def _failure(process: Process, kind: type[CommandError], how: str) -> CommandError:
    """Return the error with what the server still has of the output and the end."""
    snapshot: ProcessSnapshot | None = None
    with trio.move_on_after(_LAST_WORDS_SECONDS):
        try:
            snapshot = await process.snapshot()
        except ExecsrvError:
            pass  # it is an error all the same
    outputs = [b"", b""]
    if snapshot is not None:
        streams = (snapshot.terminal or snapshot.stdout, snapshot.stderr)
        outputs = [b"" if ends is None else ends.tail or ends.head for ends in streams]
        if snapshot.exit_code is not None:
            how += f" (exit code {snapshot.exit_code})"
    return kind(
        process.argv,
        how,
        exit_code=snapshot.exit_code if snapshot else process.exit_code,
        signal=snapshot.signal if snapshot else process.signal,
        reason=snapshot.reason if snapshot else process.reason,
        stdout=outputs[0],
        stderr=outputs[1],
    )
