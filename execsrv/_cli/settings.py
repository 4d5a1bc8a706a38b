"""The settings, read from the fields of `execsrv.limits`: name, type, bounds, unit, group and description.

Those of a daemon are the fields of `ServerConfig`, and `listen`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from execsrv._cli.register.common import PREFIX
from execsrv.limits import GIB, KIB, MIB, ClientConfig, Limits, ServerConfig

CONFIG_VARIABLE = PREFIX + "CONFIG"
"""Names the TOML file, where no flag does."""

UNITS = {"GiB": GIB, "MiB": MIB, "KiB": KIB}


class Setting(msgspec.Struct, frozen=True):
    """One setting, as its type describes it. `facts` holds all that the `Meta`s of the type say."""

    name: str
    type: Any
    default: Any
    facts: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def no_flag(self) -> str:
        """The option that turns a switch off."""
        return "--no-" + self.flag.removeprefix("--")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return str(self.facts.get("variable", PREFIX + self.name.upper()))

    @property
    def unit(self) -> str:
        """ "bytes", "seconds", "file" or nothing."""
        return str(self.facts.get("unit", ""))

    @property
    def group(self) -> str:
        """The title of the settings that belong with it."""
        return str(self.facts["group"])

    @property
    def description(self) -> str:
        """The meaning, for people."""
        return str(self.facts["description"])

    @property
    def needs_restart(self) -> bool:
        """Return True for a setting that a running server cannot change."""
        return bool(self.facts.get("needs_restart", False))

    @property
    def is_switch(self) -> bool:
        """Return True for a setting that is true or false."""
        return isinstance(self.default, bool)

    @property
    def is_list(self) -> bool:
        """Return True for a list."""
        return isinstance(self.default, tuple)

    @property
    def separator(self) -> str:
        """The character between the items of a list in a text: that of `PATH`, where items cannot have it."""
        return str(self.facts.get("separator", os.pathsep))

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it may be, where there are a few."""
        return get_args(get_args(self.type)[0]) if get_origin(get_args(self.type)[0]) is Literal else ()

    @property
    def allowed(self) -> str:
        """The values that it may have, for people."""
        if self.is_switch:
            return "true or false"
        if self.is_list:
            between = "one on each line of" if self.separator == "\n" else f"with `{self.separator}` between them in"
            return f"{self.facts['items']}, {between} a text"
        if self.choices:
            return " or ".join(f"`{word}`" for word in self.choices)
        if not self.bounds:
            return "a path" if self.unit == "file" else "a text"
        number = "a whole number" if isinstance(self.default, int) else "a number"
        unit = {"bytes": " of bytes (or of KiB, MiB, GiB)", "seconds": " of seconds", "": ""}[self.unit]
        return f"{number}{unit}, {self.bounds}"

    @property
    def bounds(self) -> str:
        """The least and the most of a number, for people. Empty for a setting that is no number."""
        if "le" not in self.facts:
            return ""
        most = self.show(self.facts["le"])
        return (
            f"above {self.facts['gt']}, to {most}" if "gt" in self.facts else f"{self.show(self.facts['ge'])} to {most}"
        )

    def show(self, value: Any) -> str:
        """Return a value as people write it: bytes in the largest unit that divides them."""
        if self.is_switch:
            return "true" if value else "false"
        if self.is_list:
            return self.separator.join(map(str, value))
        if self.unit == "bytes" and value:
            for name, size in UNITS.items():
                if value % size == 0:
                    return f"{value // size} {name}"
        return f"{value:.12g}" if isinstance(value, float) else str(value)


def _setting(name: str, type: Any, default: Any) -> Setting:
    facts: dict[str, Any] = {}
    for meta in type.__metadata__:
        facts |= {word: fact for word in ("gt", "ge", "le", "description") if (fact := getattr(meta, word)) is not None}
        facts |= meta.extra or {}
    return Setting(name, type, default, facts)


def _settings_of(config: type[Limits]) -> list[Setting]:
    return [_setting(field.name, field.type, field.default) for field in fields(config)]


def _by_group(settings: Iterable[Setting]) -> dict[str, Setting]:
    """Return the settings by name, each next to those that it belongs with."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        groups.setdefault(setting.group, []).append(setting)
    return {setting.name: setting for group in groups.values() for setting in group}


_LISTEN = Annotated[
    str,
    msgspec.Meta(
        description="Where to listen: stdio:// (one message a line), ws://IP:PORT (port 0: any free one),"
        " wss://IP:PORT, unix://PATH, unix:// (a socket in the user's runtime directory) or fd:// (that of systemd).",
        extra={"group": "Connections", "needs_restart": True},
    ),
]
SETTINGS = _by_group([_setting("listen", _LISTEN, "stdio://"), *_settings_of(ServerConfig)])
"""The settings of a daemon, by name."""

CLIENT_SETTINGS = {setting.name: setting for setting in _settings_of(ClientConfig)}
"""The settings of a client, by name. They are set in Python only."""

CODEX_DEFAULTS: Mapping[str, Any] = {"listen": "ws://127.0.0.1:0", "resume_grace": 80.0, "http_variables": ("*",)}
"""The defaults that the Codex CLI expects of its exec-server: it may come back after a lost connection, and its users
name the variables with the tokens of their HTTP servers."""
