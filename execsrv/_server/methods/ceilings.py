"""`server/limits`: the ceilings that hold for whoever asks, with what is in use of them.

What others use is told to owners alone: they run commands as the server's own user, and can find it out anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import get_args

from execsrv._budget.allowance import Allowance
from execsrv._server.connection_names import kept_by_one
from execsrv._server.methods.table import Caller, handles
from execsrv._wire.quoting import quoted
from execsrv.errors import InvalidParamsError
from execsrv.limits import ServerConfig
from execsrv.protocol.ceilings import Ceiling, Ceilings, CeilingsAsked, CeilingScope
from execsrv.protocol.roles import Role


@handles("server/limits")
def server_limits(caller: Caller, params: CeilingsAsked) -> Ceilings:
    for name in params.settings or ():
        if name not in _units():
            raise InvalidParamsError(f"settings: there is no limit {quoted(name)}", field="settings")
    counted = list(_counted(caller))
    known = {ceiling.setting for ceiling in counted}
    every = counted + [_row(caller, name, "each") for name in _units() if name not in known]
    wanted = params.settings
    return Ceilings(every if wanted is None else [ceiling for ceiling in every if ceiling.setting in wanted])


def _counted(caller: Caller) -> Iterator[Ceiling]:
    allowance = caller.allowance
    whole = allowance.above
    if whole is not None and caller.principal.role is Role.OWNER:
        yield from _of_allowance(caller, whole, "server")
    yield from _of_allowance(caller, allowance, "server" if whole is None else "principal")
    directory = caller.shared.directory
    if caller.principal.role is Role.OWNER:
        yield _row(caller, "max_connections", "server", directory.count)
        yield _row(caller, "max_kept", "server", directory.kept)
    kept = directory.kept_of(caller.principal)
    yield _row(caller, "max_kept", "principal", kept, kept_by_one(caller.config))
    yield _row(caller, "max_connections_per_principal", "principal", directory.count_of(caller.principal))
    seen = [shared.sessions for shared in directory.seen_by(caller.shared.visits)]
    yield _row(caller, "max_sessions_per_connection", "connection", max((each.running for each in seen), default=0))
    yield _row(caller, "retained_sessions", "connection", max((each.ended for each in seen), default=0))
    sessions = [session for each in seen for session in each]
    retained = max((session.log.kept_bytes for session in sessions), default=0)
    yield _row(caller, "retained_output_bytes_per_session", "session", retained)
    queued = max((session.stdin.queued_bytes for session in sessions), default=0)
    yield _row(caller, "queued_stdin_bytes", "session", queued)


def _of_allowance(caller: Caller, allowance: Allowance, scope: CeilingScope) -> Iterator[Ceiling]:
    for budget in allowance.budgets:
        yield _row(caller, budget.limit, scope, budget.taken, budget.most, budget.refused)
    for rate in allowance.rates:
        yield _row(caller, rate.limit, scope, rate.taken, rate.most, rate.refused)


def _row(
    caller: Caller,
    setting: str,
    scope: CeilingScope,
    used: int | None = None,
    most: int | None = None,
    refused: int | None = None,
) -> Ceiling:
    value: int | float = getattr(caller.config, setting)
    return Ceiling(setting, value, _units()[setting], scope, value if most is None else most, used, refused)


@cache
def _units() -> dict[str, str]:
    """Return the unit of each setting that is a ceiling: a number, and no part of another one."""
    units = {}
    for field in fields(ServerConfig):
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            metas = get_args(field.type)[1:]
            extra = {word: fact for meta in metas for word, fact in (meta.extra or {}).items()}
            units[field.name] = str(extra.get("unit", ""))
    del units["principal_percent"]
    return units
