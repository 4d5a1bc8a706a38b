"""`http/*`, `environment/*` and the discovery of capabilities: the machine that the server runs on."""

from __future__ import annotations

from execsrv._files.channel import file_capabilities
from execsrv._server.host import discover_roots, environment_config, environment_info
from execsrv._server.methods.table import Caller, Later, handles, handles_later
from execsrv._wire.paths import path_from_wire
from execsrv.protocol import (
    CapabilitiesDiscover,
    CapabilitiesFound,
    CapabilityRootsDiscover,
    CapabilityRootsFound,
    EnvironmentConfig,
    EnvironmentConfigRead,
    EnvironmentInfo,
    EnvironmentStatus,
    HttpBodyPiece,
    HttpRequest,
    HttpRequestId,
    HttpResponse,
    Nothing,
    Unit,
)


@handles_later("http/request")
def http_request(caller: Caller, params: HttpRequest) -> Later[HttpResponse]:
    return caller.relay.request(params)


@handles_later("http/read")
def http_read(caller: Caller, params: HttpRequestId) -> Later[HttpBodyPiece]:
    return caller.relay.read(params)


@handles("http/close")
def http_close(caller: Caller, params: HttpRequestId) -> Nothing:
    return caller.relay.close(params)


@handles("environment/info")
def tell_of_environment(caller: Caller, params: Unit) -> EnvironmentInfo:
    capabilities = {"environmentConfigRead": True, "httpHeaderEnvVars": caller.relay.has_variables}
    return environment_info(capabilities | file_capabilities(caller.config))


@handles("environment/status")
def environment_status(caller: Caller, params: Unit) -> EnvironmentStatus:
    return EnvironmentStatus()


@handles("environmentConfig/read")
def environment_config_read(caller: Caller, params: EnvironmentConfigRead) -> EnvironmentConfig:
    return environment_config(params)


@handles_later("capabilityRoots/discoverV1")
def capability_roots_discover(caller: Caller, params: CapabilityRootsDiscover) -> Later[CapabilityRootsFound]:
    return discover_roots(caller.files(), [(root, path_from_wire(root.path, "path")) for root in params.roots])


@handles("capabilities/discoverV2")
def capabilities_discover(caller: Caller, params: CapabilitiesDiscover) -> CapabilitiesFound:
    path_from_wire(params.cwd, "cwd")
    return CapabilitiesFound()
