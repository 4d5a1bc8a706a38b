"""`environment/*` and the discovery of capabilities: the machine that the server runs on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from execsrv.protocol.bounds import Id, Name, PathText
from execsrv.protocol.messages import Nothing, Told, Wire


class Shell(Wire, frozen=True):
    """A command interpreter: its short name and its absolute path."""

    name: str
    path: str


class EnvironmentInfo(Wire, frozen=True):
    """The facts that a client needs of the machine it runs commands on. Paths are `file:` URIs."""

    shell: Shell
    executor_version: str
    cwd: str | None
    """The directory of the server, null where it was removed."""
    user_home_dir: str
    platform_os: str
    temp_dir: str
    temporary_directories: list[str] = []
    prepend_path_dirs: list[str] = []
    capabilities: dict[str, bool] = {}


class Unit(Nothing, frozen=True, forbid_unknown_fields=True):
    """No parameters, and no others: this is where the Codex exec-server refuses what it does not know."""


class EnvironmentStatus(Wire, frozen=True):
    """A server that can be asked is ready."""

    status: Told[Literal["ready"]] = "ready"


KeyPaths = Annotated[list[Annotated[list[Name], Meta(max_length=64)]], Meta(max_length=1024)]
"""Places in a TOML file, each by the keys that lead to it."""


class EnvironmentConfigRead(Wire, frozen=True):
    """Ask for parts of the server's own Codex configuration, each by the path of its keys."""

    cwd: PathText
    config_paths: KeyPaths
    requirements_paths: KeyPaths


class ConfigLayer(Wire, frozen=True):
    """One configuration file: what it is called, the directory that it counts from, and the asked parts of it."""

    source: str
    base_dir: str
    toml: str


class ConfigLayers(Wire, frozen=True):
    """Configuration files, and where among them a cloud's would go."""

    layers: list[ConfigLayer] = []
    cloud_insertion_index: int = 0


class EnvironmentConfig(Wire, frozen=True):
    """The asked configuration: there is none, since execsrv has no part in it. Directories are `file:` URIs."""

    user_home_dir: str
    codex_home_dir: str
    hostname: str
    config: ConfigLayers = ConfigLayers()
    requirements: ConfigLayers = ConfigLayers()


class CapabilityRoot(Wire, frozen=True):
    """A directory that may hold plugins and skills, under an id of the client's."""

    id: Id
    path: PathText


class CapabilityRootsDiscover(Wire, frozen=True):
    """Ask what these directories hold."""

    roots: Annotated[list[CapabilityRoot], Meta(max_length=1024)]


class CapabilityRootFound(Wire, frozen=True):
    """The content of one root, or the reason why it could not be read."""

    id: str
    path: str
    plugin: None = None
    skills: list[Any] = []
    namespace_manifests: list[Any] = []
    warnings: list[str] = []
    error: str | None = None


class CapabilityRootsFound(Wire, frozen=True):
    """One answer for each root, in their order."""

    roots: list[CapabilityRootFound]


class CapabilitiesDiscover(Wire, frozen=True):
    """Ask for all plugins and skills that apply in a directory."""

    cwd: PathText


class CapabilitiesFound(Wire, frozen=True):
    """None: this server looks for none, and does not announce that it would."""

    plugins: list[Any] = []
    skills: list[Any] = []
    warnings: list[str] = []
