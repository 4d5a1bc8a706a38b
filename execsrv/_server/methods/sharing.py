"""`connection/*`: the connections that there are, and who may be there."""

from __future__ import annotations

import math

from execsrv._server.methods.table import Caller, handles
from execsrv._server.sharing import Shared
from execsrv._wire.quoting import quoted
from execsrv.errors import InvalidParamsError, NotReadyError
from execsrv.protocol import (
    ConnectionEnd,
    ConnectionGrant,
    ConnectionGranted,
    ConnectionId,
    ConnectionJoin,
    ConnectionJoined,
    ConnectionList,
    ConnectionRevoke,
    ConnectionRevoked,
    Nothing,
)
from execsrv.protocol.roles import Role


@handles("connection/list")
def connection_list(caller: Caller, params: Nothing) -> ConnectionList:
    visits = caller.shared.visits
    seen = caller.shared.directory.seen_by(visits)
    return ConnectionList([shared.listed(visits, shared is caller.shared) for shared in seen])


@handles("connection/join")
def connection_join(caller: Caller, params: ConnectionJoin) -> ConnectionJoined:
    shared = caller.shared.directory.find(params.connection, caller.shared.visits, params.grant)
    if shared is caller.shared:
        raise InvalidParamsError("connection: this is the connection itself", field="connection")
    member = caller.shared.visits.join(shared, params.role, params.grant)
    members = [each.listed() for each in shared.members.values()]
    return ConnectionJoined(shared.id, shared.terms.name, member.id, member.role, members)


@handles("connection/leave")
def connection_leave(caller: Caller, params: ConnectionId) -> Nothing:
    members = caller.shared.visits.members
    named = caller.shared.directory.named(params.connection, caller.principal)
    member = members.get(params.connection) or (members.get(named.id) if named is not None else None)
    if member is None:
        raise NotReadyError(f"connection {quoted(params.connection)} was not joined")
    caller.shared.visits.leave(member)
    return Nothing()


@handles("connection/grant")
def connection_grant(caller: Caller, params: ConnectionGrant) -> ConnectionGranted:
    shared = _owned(caller, params.connection)
    seconds = math.inf if params.expires_seconds is None else params.expires_seconds
    grant = shared.grant(params.role, params.principal, seconds)
    return ConnectionGranted(grant.id, shared.id, grant.role, grant.secret)


@handles("connection/revoke")
def connection_revoke(caller: Caller, params: ConnectionRevoke) -> ConnectionRevoked:
    shared = _owned(caller, params.connection)
    if (params.grant_id is None) == (params.member_id is None):
        raise InvalidParamsError("name either a grant, as grantId, or who has joined, as memberId", field="grantId")
    if params.member_id is not None:
        if (member := shared.members.get(params.member_id)) is None:
            raise InvalidParamsError(f"memberId: unknown member {quoted(params.member_id)}", field="memberId")
        member.visits.put_out(member)
        return ConnectionRevoked(1)
    if (grant := shared.grants.get(params.grant_id or "")) is None:
        raise InvalidParamsError(f"grantId: unknown grant {quoted(params.grant_id or '')}", field="grantId")
    return ConnectionRevoked(shared.revoke(grant))


@handles("connection/end")
def connection_end(caller: Caller, params: ConnectionEnd) -> Nothing:
    if params.connection is None:
        caller.shared.ends_with_channel = True  # which hears the answer
        return Nothing()
    caller.principal.check(Role.OWNER, "to end another connection")
    _owned(caller, params.connection).end()
    return Nothing()


def _owned(caller: Caller, ref: str | None) -> Shared:
    """Return a connection that the caller owns. Raises `ForbiddenError` and `UnknownConnectionError`."""
    if ref is None:
        return caller.shared
    shared = caller.shared.directory.find(ref, caller.shared.visits)
    shared.check(caller.shared.visits, "owner")
    return shared
