"""`process/start` over a runner: the request that the runner gets, and the terms that it cannot keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from execsrv._doors.journal import Start
from execsrv._processes.terminal import checked_modes
from execsrv._runner.remote import WINDOW_BYTES
from execsrv._runner.version_2_messages import SpawnRequest
from execsrv._server.runners import words_of
from execsrv._server.secrets import secret_environment
from execsrv._server.starting import Over
from execsrv.errors import InvalidParamsError
from execsrv.limits import ServerConfig
from execsrv.protocol import OutputFile, ProcessStart, Size
from execsrv.protocol.sandbox import Sandbox


def over(
    config: ServerConfig,
    params: ProcessStart,
    cwd: str | None,
    sandbox: Sandbox | None,
    noted: Callable[[Start | None], Mapping[str, str]],
) -> Over:
    """Return the start that a client asks of a runner. `noted` are variables from the journal.

    Raises `InvalidParamsError` for a term that a runner does not know, and what `words_of` does.
    """
    assert params.runner is not None
    words = words_of(params.runner, config)
    if not params.argv:
        raise InvalidParamsError("argv must not be empty", field="argv")
    if params.user is not None:
        raise InvalidParamsError("user: over a runner, a command has the rights of the runner", field="user")
    stdout, stderr = params.stdout, params.stderr
    if isinstance(stdout, OutputFile) or isinstance(stderr, OutputFile):
        field = "stdout" if isinstance(stdout, OutputFile) else "stderr"
        raise InvalidParamsError(f"{field}: over a runner, output goes to pipes and not to files", field=field)
    if sandbox is not None and not config.allow_landlock_only:  # which the runner has no say in
        sandbox = replace(sandbox, at_least="view")

    def settle(note: Start | None) -> SpawnRequest:
        env = {**params.env}
        if params.secret_env:
            env |= secret_environment(params.secret_env, config)
        return SpawnRequest(
            id=0,
            command=params.argv,
            cwd=cwd,
            env=env | dict(noted(note)),
            window=WINDOW_BYTES,
            tty=params.tty,
            arg0=params.arg0,
            env_policy=params.env_policy,
            env_remove=params.env_remove,
            size=params.size or Size(),
            modes={**checked_modes(params.modes)},
            sandbox=sandbox,
            stdin_open=params.pipe_stdin and not params.tty,
            stdout=stdout,
            stderr=stderr,
            limits=params.limits,
            umask=params.umask,
            nice=params.nice,
            oom_score_adj=params.oom_score_adj,
        )

    return Over(words, settle)
