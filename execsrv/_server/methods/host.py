"""`environment/*` and the discovery of capabilities: the machine that the server runs on."""

from __future__ import annotations

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
    Unit,
)


@handles("environment/info")
def tell_of_environment(caller: Caller, params: Unit) -> EnvironmentInfo:
    return environment_info(caller.config, passes=caller.passing is not None)


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
