"""The command that a request of version 2 asks for, decided where it is to run: its program, environment and policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from execsrv._lent import Lent
from execsrv._policies import asked
from execsrv._processes.command import Command, Output, Wishes, settle
from execsrv._processes.environment import command_environment, inherited_environment
from execsrv._processes.terminal import checked_modes
from execsrv._runner.version_2_messages import SpawnRequest
from execsrv.errors import InvalidParamsError


def settled(request: SpawnRequest, given: Mapping[str, Lent]) -> Callable[[], Command]:
    """Return what decides, in a thread, what is to run. `given` are the descriptors that streams are, by their names.

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
            from execsrv._policies.resolver import Resolver

            resolver = Resolver(sandbox, request.cwd, may_lack_view=True)  # which our server has to permit
            command = replace(command, confinement=resolver.resolve(env.get("TMPDIR")))
        stdout, stderr = _output(request.stdout, "stdout", given), _output(request.stderr, "stderr", given)
        return replace(command, stdin=given.get("stdin"), stdout=stdout, stderr=stderr, limits=request.limits)

    return settle_it


def _output(place: str, name: str, given: Mapping[str, Lent]) -> Output:
    return given.get(name) or ("null" if place == "null" else "stdout" if place == "stdout" else "pipe")
