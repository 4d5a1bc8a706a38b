"""The settings of a server for commands: which run, how many, and how long they can be asked for."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import COMMANDS, NEEDS_RESTART, Count, FilePath, Patterns, Runners, Seconds
from execsrv.limits.group import Settings, group


@group(frozen=True, kw_only=True)
class CommandSettings(Settings):
    """A part of `ServerConfig`."""

    max_sessions_per_connection: Annotated[
        Count, COMMANDS, Meta(ge=1, description="Running sessions of one connection. One more is refused.")
    ] = 1024

    retained_sessions: Annotated[
        Count,
        COMMANDS,
        Meta(ge=0, description="Ended sessions that one connection keeps readable. The oldest goes first."),
    ] = 256

    exited_retention: Annotated[
        Seconds, COMMANDS, Meta(ge=0, description="How long an ended session stays readable.")
    ] = 80.0

    allow_direct_exec: Annotated[
        bool,
        COMMANDS,
        Meta(description='Whether requests of kind "direct" run: the server may look up the program in `PATH`.'),
    ] = True

    allow_prepared_exec: Annotated[
        bool, COMMANDS, Meta(description='Whether requests of kind "prepared" run: exactly what was sent.')
    ] = True

    allow_landlock_only: Annotated[
        bool,
        COMMANDS,
        Meta(
            description="Whether a policy whose caller asks for it (`atLeast`) may be kept by Landlock alone, on a"
            " machine without namespaces. The answer says what is then missing."
        ),
    ] = False

    cgroup: Annotated[
        bool,
        COMMANDS,
        NEEDS_RESTART,
        Meta(description="Whether the server and its commands move into a control group of their own, if any."),
    ] = True

    withheld_variables: Annotated[
        Patterns,
        COMMANDS,
        NEEDS_RESTART,
        Meta(
            description="Variables of the server's environment that no command inherits, whatever its client asks for."
        ),
    ] = ()

    withhold_secrets: Annotated[
        bool,
        COMMANDS,
        NEEDS_RESTART,
        Meta(
            description="Whether no command inherits what looks like a secret: variables named like keys, tokens,"
            " passwords, credentials or cookies, and URLs with a password."
        ),
    ] = False

    secrets_directory: Annotated[
        FilePath,
        COMMANDS,
        Meta(
            description="A directory. Each file in it is a secret, by its name, that a start may have put into a"
            " variable (`secretEnv`)."
        ),
    ] = ""

    runners: Annotated[
        Runners,
        COMMANDS,
        Meta(
            description="Runners of this server, each with its name: commands that get to a place where `execsrv"
            " runner` can start what clients ask for, as `box=sudo -n -u box`."
        ),
    ] = ()

    allow_debugging: Annotated[
        bool,
        COMMANDS,
        NEEDS_RESTART,
        Meta(
            description="Whether the user of `execsrv serve` may trace it and read its memory, and a crash leaves a"
            " core file. So may its commands then. Otherwise only root may."
        ),
    ] = False
