"""The result of one command of `execsrv map`, as the facts of its line of JSON."""

from __future__ import annotations

import base64
from typing import Any

from execsrv.client import Result
from execsrv.errors import CommandError, ExecsrvError, RequestError, Unknown

Facts = dict[str, Any]


def facts_of(result: Result[bytes]) -> Facts:
    """Return the end of a command, with its output."""
    facts: Facts = {
        "server": result.server,
        "exitCode": result.exit_code,
        "signal": result.signal,
        "reason": result.reason,
        **_output(result.stdout, result.stderr),
    }
    if result.omitted_bytes:
        facts["omittedBytes"] = result.omitted_bytes
    if result.denial is not None:
        facts["denial"] = result.denial
    return facts


def facts_of_error(error: ExecsrvError) -> Facts:
    """Return why there is no ordinary end, and what is known of the command. `exitCode` is there if it has ended."""
    facts: Facts = {"error": " ".join(str(error).split())}
    if isinstance(error, RequestError):
        return ({} if error.server is None else {"server": error.server}) | facts | {"kind": error.kind}
    if not isinstance(error, CommandError):
        return facts | {"kind": "no-server"}
    facts = {"server": error.server} | facts | _output(error.stdout, error.stderr)
    if error.exit_code is not None:
        return facts | {"exitCode": error.exit_code, "signal": error.signal, "reason": error.reason}
    if isinstance(error, Unknown):
        facts["process"] = error.process
    return facts | {"kind": "unknown"}


def _output(stdout: bytes, stderr: bytes) -> Facts:
    """Return output as text, or in Base64 where it is none."""
    facts = {}
    for name, data in (("stdout", stdout), ("stderr", stderr)):
        try:
            facts[name] = data.decode()
        except UnicodeDecodeError:
            facts[f"{name}Base64"] = base64.b64encode(data).decode()
    return facts
