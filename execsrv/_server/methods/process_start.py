"""`process/start`: a command with all of its terms, under an id that its client chooses."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
from msgspec.structs import replace

from execsrv._doors.journal import Start
from execsrv._policies import asked
from execsrv._processes.accounts import account_of
from execsrv._processes.command import Command, File, Output, Wishes, settle
from execsrv._processes.environment import command_environment, inherited_environment
from execsrv._processes.git_trust import trusting
from execsrv._processes.terminal import checked_modes
from execsrv._processes.withheld import withheld_by
from execsrv._server.methods.process_dialect import process_dialect
from execsrv._server.methods.process_passing import check_passing, pass_streams
from execsrv._server.methods.table import (
    Caller,
    check_kind,
    check_own_network,
    check_window,
    handles,
)
from execsrv._server.secrets import secret_environment
from execsrv._server.session import Session
from execsrv._server.start_options import Key, StartOptions, shown_argv
from execsrv._server.starting import Deferred, Over, Starting, answer_of
from execsrv._wire.paths import path_from_wire
from execsrv.errors import InvalidParamsError, LimitExceededError
from execsrv.limits import ServerConfig
from execsrv.protocol import (
    OutputFile,
    ProcessStart,
    ProcessStarted,
    Size,
)
from execsrv.protocol.login_shells import ShellSnapshot
from execsrv.protocol.roles import Role
from execsrv.protocol.sandbox import Confined, Sandbox


@handles("process/start", holds=True)
def process_start(caller: Caller, params: ProcessStart) -> ProcessStarted | Deferred[ProcessStarted]:
    if params.process_id and caller.shared.visits.by_id:
        caller.shared.visits.check(params.process_id, Role.OWNER)
    sandbox = asked(params.sandbox)
    check_own_network(params.network_proxy, "networkProxy")
    check_own_network(params.managed_network, "managedNetwork")
    check_kind(caller.config, params.kind)
    if params.kind == "prepared":
        _check_prepared(params)
    key = _key_of(params)
    if key is not None and (process := caller.shared.keys.find(key)) is not None:
        return process_of(process)
    cwd = None if params.cwd is None else path_from_wire(params.cwd, "cwd")
    options = _start_options(caller.config, params, key, cwd)
    modes = checked_modes(params.modes)
    outputs = _output(params, "stdout"), _output(params, "stderr")
    if params.pass_streams:
        check_passing(caller, params)
    withheld = withheld_by(caller.config)
    if sandbox is None or params.runner is not None:
        policy = None
    else:
        from execsrv._policies.resolver import Resolver

        policy = Resolver(sandbox, cwd, may_lack_view=caller.config.allow_landlock_only)

    def noted(note: Start | None) -> Mapping[str, str]:
        return {} if note is None or params.kind == "prepared" else note.variables(params.env)

    def settled(note: Start | None) -> Command:
        inherited = inherited_environment(withheld) if params.env_policy is not None else {}
        env = command_environment(
            params.env_policy, inherited, params.env, cwd=cwd, tty=params.tty, remove=params.env_remove
        )
        account = None if params.user is None else account_of(params.user)
        if account is not None and params.env_policy is not None:
            env = {**env, **account.variables, **params.env}
        if params.secret_env:
            env = {**env, **secret_environment(params.secret_env, caller.config)}
        env = {**env, **noted(note)}
        other = account if account is not None and not account.is_ours else None
        if other is not None and params.env_policy is not None:
            env = trusting(env, cwd)
        wishes = Wishes(params.umask, params.nice, params.oom_score_adj, other)
        command = settle(params.argv, cwd, env, params.arg0, wishes, outputs)
        if params.limits is not None:
            command = replace(command, limits=params.limits)
        return command if policy is None else replace(command, confinement=policy.resolve(env.get("TMPDIR")))

    how: Callable[[Start | None], Command] | Over = settled
    if params.runner is not None:
        from execsrv._server.methods.process_over import over

        how = over(caller.config, params, cwd, sandbox, noted)
    starting = caller.sessions.start(
        params.process_id,
        how,
        process_dialect,
        options,
        argv=params.argv,
        pipe_stdin=params.pipe_stdin,
        size=(params.size or Size()) if params.tty else None,
        modes=modes,
        scope=None if params.shell_snapshot is None else _scope(params, params.shell_snapshot, sandbox),
    )
    if key is not None:
        caller.shared.keys.enter(key, starting.id)
    if params.pass_streams:
        return answer_of(starting, lambda session: pass_streams(caller, starting, _process_started(session)))
    return answer_of(starting, _process_started)


def _key_of(params: ProcessStart) -> Key | None:
    """Return the key of a start, None where it has none."""
    if params.key is None:
        return None
    import hashlib  # which brings in OpenSSL, and few starts have a key

    return Key(params.key, hashlib.sha256(msgspec.json.encode(params)).digest())


def process_of(process: Session | Starting) -> ProcessStarted | Deferred[ProcessStarted]:
    """Return the answer to a start that was asked for before. Raises `BusyError` where too many wait for it."""
    if isinstance(process, Starting):
        process.check_room()
        return answer_of(process, _process_started)
    return _process_started(process)


def _process_started(session: Session) -> ProcessStarted:
    if session.confinement is None:
        return ProcessStarted(session.id, pid=session.pid, shell_snapshot=session.shell_snapshot)
    if isinstance(session.confinement, Confined):
        confined = session.confinement
    else:
        from execsrv._policies.resolver import told

        confined = told(session.confinement)
    return ProcessStarted(session.id, "linuxSeccomp", session.pid, confined, session.shell_snapshot)


def _scope(params: ProcessStart, wanted: ShellSnapshot, sandbox: Sandbox | None) -> str:
    """Return the scope whose snapshot a command may be given, empty for one that may not.

    It is a bash that reads login files and then its words, on pipes, with the server's own rights and nothing else.
    """
    plain = sandbox is None and params.runner is None and params.kind == "direct" and not params.tty
    reads_login_files = wanted.shell.name == "bash" and params.argv[:2] == [wanted.shell.path, "-lc"]
    return wanted.scope_id if plain and reads_login_files and len(params.argv) > 2 else ""


def _output(params: ProcessStart, name: Literal["stdout", "stderr"]) -> Output:
    """Return the place where a stream goes. Raises `InvalidParamsError` for another than its pipe with a terminal."""
    wanted = params.stdout if name == "stdout" else params.stderr
    if wanted != "pipe" and params.tty:
        raise InvalidParamsError(f"{name}: a terminal has all of the output", field=name)
    if not isinstance(wanted, OutputFile):
        return wanted
    path = path_from_wire(wanted.path, f"{name}.path")
    try:
        return File(os.fsencode(path), wanted.append)
    except UnicodeEncodeError:
        raise InvalidParamsError(f"{name}.path: {path!r} holds a lone surrogate", field=f"{name}.path") from None


def _check_prepared(params: ProcessStart) -> None:
    """A prepared command leaves nothing to be looked up or inherited."""
    if params.argv and not params.argv[0].startswith("/"):
        raise InvalidParamsError("argv[0]: a prepared command names its program by an absolute path", field="argv")
    if params.cwd is None:
        raise InvalidParamsError("cwd: a prepared command names its directory", field="cwd")
    if params.secret_env:
        raise InvalidParamsError("secretEnv: a prepared command has nothing looked up", field="secretEnv")
    if params.env_policy is not None:
        raise InvalidParamsError("envPolicy: a prepared command inherits nothing", field="envPolicy")


def _start_options(config: ServerConfig, params: ProcessStart, key: Key | None, cwd: str | None) -> StartOptions:
    """Return the terms of a start. Raises `LimitExceededError` for a window or a grace that is too large."""
    check_window(config, params.window_bytes)
    if params.grace_ms is not None and params.grace_ms / 1000 > config.max_grace:
        message = f"graceMs is {params.grace_ms}: max_grace ({config.max_grace:g} s) would be exceeded"
        raise LimitExceededError(message, limit="max_grace", value=config.max_grace)
    return StartOptions(
        timeout=(params.timeout_ms or math.inf) / 1000,
        idle_timeout=(params.idle_timeout_ms or math.inf) / 1000,
        window_bytes=params.window_bytes,
        drops=params.overflow == "drop",
        grace=None if params.grace_ms is None else params.grace_ms / 1000,
        ends_with_leader=params.end_with_leader,
        times=params.times,
        argv=shown_argv(params.argv),
        cwd=cwd,
        key=key,
        passes=params.pass_streams,
    )
