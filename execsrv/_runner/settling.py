"""The command that a request of version 2 asks for, decided where it is to run: its program, environment and policy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from execsrv._processes.command import Command, Given, Output, Wishes, settle
from execsrv._processes.environment import command_environment, inherited_environment
from execsrv._processes.terminal import checked_modes
from execsrv._runner.messages import SpawnRequest
from execsrv._server.confining import asked
from execsrv.errors import InvalidParamsError


def settled(request: SpawnRequest, given: dict[str, int]) -> Callable[[], Command]:
    """Return what decides, in a thread, what is to run. It takes the descriptors that were `given` out of there.

    Raises `InvalidParamsError` and `SandboxUnavailableError`.
    """
    if request.cwd is not None and not request.cwd.startswith("/"):
        raise InvalidParamsError("cwd is no absolute path", field="cwd")
    if request.tty and (given or request.stdout != "pipe" or request.stderr != "pipe"):
        raise InvalidParamsError("a terminal has all of the output, and the input", field="tty")
    checked_modes(request.modes)
    sandbox = asked(request.sandbox)

    def settle_it() -> Command:
        inherited = inherited_environment() if request.env_policy is not None else {}
        env = command_environment(
            request.env_policy, inherited, request.env, cwd=request.cwd, tty=request.tty, remove=request.env_remove
        )
        wishes = Wishes(request.umask, request.nice, request.oom_score_adj)
        command = settle(request.command, request.cwd, env, request.arg0, wishes)
        if sandbox is not None:
            from execsrv._server.policy import Policy

            command = replace(command, confinement=Policy(sandbox, request.cwd).resolve(env.get("TMPDIR")))
        stdin = Given(given["stdin"]) if "stdin" in given else None
        command = replace(
            command,
            stdin=stdin,
            stdout=_output(request.stdout, "stdout", given),
            stderr=_output(request.stderr, "stderr", given),
        )
        given.clear()  # the start closes them
        return command

    return settle_it


def _output(place: str, name: str, given: Mapping[str, int]) -> Output:
    if name in given:
        return Given(given[name])
    return "null" if place == "null" else "stdout" if place == "stdout" else "pipe"


def close_given(given: dict[str, int]) -> None:
    """Close the descriptors that no start has taken."""
    while given:
        os.close(given.popitem()[1])
