"""`http/*`: what the server's machine reaches."""

from __future__ import annotations

from execsrv._server.methods.table import Caller, Later, handles, handles_later
from execsrv.protocol import HttpBodyPiece, HttpRequest, HttpRequestId, HttpResponse, Nothing


@handles_later("http/request")
def http_request(caller: Caller, params: HttpRequest) -> Later[HttpResponse]:
    return caller.relay().request(params)


@handles_later("http/read")
def http_read(caller: Caller, params: HttpRequestId) -> Later[HttpBodyPiece]:
    return caller.relay().read(params)


@handles("http/close")
def http_close(caller: Caller, params: HttpRequestId) -> Nothing:
    return caller.relay().close(params)
