"""The settings of a daemon, and where each came from: flag, else environment, else TOML file, else default.

What settings there are, and what each may be, is read from the fields of `ServerConfig`; beside them there is only
`listen`. Nothing unknown is skipped and nothing is corrected: a mistake, even where something else overrides it, is an
error that says what is wrong, where, and what would be right. Variables that others make (`_OF_A_SERVICE`) are no
settings, even though they begin as ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from execsrv._cli.register.common import CLIENT_VARIABLES, PREFIX, TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE
from execsrv._cli.settings import CODEX_DEFAULTS, CONFIG_VARIABLE, SETTINGS, UNITS, Setting
from execsrv.errors import InvalidConfigError
from execsrv.limits import ServerConfig

_OF_A_SERVICE = (
    rf"(?s){PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=.*"
    rf"|{PREFIX}(\w+_)?PORT=(tcp|udp|sctp)://.*"
    rf"|{PREFIX}(\w+_)?NAME=/.*|{PREFIX}(\w+_)?ENV_.*"
)
"""The variables that Kubernetes and container links make for a service whose name begins with `execsrv`."""

_NO_SETTINGS = (CONFIG_VARIABLE, URL_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE, *CLIENT_VARIABLES.values())
"""Variables that are no settings of a server."""

_WITH_UNIT = rf"([0-9]{{1,15}}) ?({'|'.join(UNITS)})"


class Loaded(msgspec.Struct, frozen=True):
    """The settings of a daemon, and for each by name the source of its value."""

    listen: str
    config: ServerConfig
    sources: Mapping[str, str]


def load(flags: Mapping[str, Any], environ: Mapping[str, str], *, codex: bool = False) -> Loaded:
    """Gather the settings. `flags` are by name of the setting, None where not given, and may hold `config`: a path.

    With `codex` some defaults are others. A flag that may be repeated has a tuple, empty where not given.

    Raises `InvalidConfigError`.
    """
    values: dict[str, Any] = {name: setting.default for name, setting in SETTINGS.items()}
    sources = dict.fromkeys(values, "default")
    if codex:
        values |= CODEX_DEFAULTS
        sources |= dict.fromkeys(CODEX_DEFAULTS, "default with --codex")

    def take(name: str, value: Any, source: str, *, is_text: bool) -> None:
        values[name] = _checked(SETTINGS[name], value, source, is_text=is_text)
        sources[name] = source

    path = flags.get("config")
    if path is None:
        path = environ.get(CONFIG_VARIABLE)
    if path is not None:
        for name, value in _read_toml(path).items():
            if name not in SETTINGS:
                raise _unknown(f"key `{name}` in `{path}`", name, SETTINGS)
            take(name, value, f"file {path}", is_text=False)
    by_variable = {setting.variable: name for name, setting in SETTINGS.items()}
    for variable, value in environ.items():
        if variable in by_variable:
            take(by_variable[variable], value, f"environment {variable}", is_text=True)
        elif (
            variable.startswith(PREFIX)
            and variable not in _NO_SETTINGS
            and not re.fullmatch(_OF_A_SERVICE, f"{variable}={value}")
        ):
            raise _unknown(f"environment variable `{variable}`", variable, [*by_variable, CONFIG_VARIABLE])
    for name, setting in SETTINGS.items():
        value = flags.get(name)
        if isinstance(value, tuple):
            value = setting.separator.join(value) if value else None
        if value is not None:
            take(name, value, f"flag {setting.no_flag if value is False else setting.flag}", is_text=True)
    listen = values.pop("listen")
    return Loaded(listen, ServerConfig(**values), sources)


def as_toml(loaded: Loaded) -> str:
    """Return all settings as a file that `load` takes, with the source of each. Raises `InvalidConfigError`."""
    groups: dict[str, list[str]] = {}
    for name, setting in SETTINGS.items():
        value = loaded.listen if name == "listen" else getattr(loaded.config, name)
        # A path may hold anything; a comment ends with its line.
        comment = "".join(character if character.isprintable() else "?" for character in loaded.sources[name])
        if setting.unit == "bytes":
            comment += f", {setting.show(value)}"
        groups.setdefault(setting.group, []).append(f"{name} = {_as_toml_value(name, value)}  # {comment}\n")
    return "\n".join(f"# {group}\n{''.join(lines)}" for group, lines in groups.items())


def _as_toml_value(name: str, value: Any) -> str:
    try:
        # JSON and TOML write strings, numbers and booleans in the same way, but for one control character.
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    except UnicodeEncodeError:
        raise InvalidConfigError(f"cannot write {name} {value!r} as TOML: it is not UTF-8") from None


def _read_toml(path: str) -> dict[str, Any]:
    import tomllib  # most servers have no file

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InvalidConfigError(f"cannot read the configuration file `{path}`: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or beyond all bounds
        raise InvalidConfigError(f"cannot read the configuration file `{path}`: {error}") from error


def _checked(setting: Setting, value: Any, source: str, *, is_text: bool) -> Any:
    """Return the value that was meant. Text may hold a number, a truth value or paths; bytes may have a unit."""
    meant = value.split(setting.separator) if setting.is_list and is_text else value
    if setting.unit == "bytes" and isinstance(value, str) and (match := re.fullmatch(_WITH_UNIT, value)):
        meant = int(match[1]) * UNITS[match[2]]
    try:
        return msgspec.convert(meant, setting.type, strict=not is_text)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the second: what is no text is no number
        wrong = f"cannot set {setting.name} to {value!r:.200} ({source})"
        raise InvalidConfigError(f"{wrong}: expected {setting.allowed}") from None


def _unknown(what: str, name: str, known: Iterable[str]) -> InvalidConfigError:
    """Return the error for a name that means nothing. A prefix that all of them share makes nothing similar."""
    from difflib import get_close_matches  # only errors pay for it

    prefix = PREFIX if name.startswith(PREFIX) else ""
    matches = get_close_matches(name.removeprefix(prefix), [word.removeprefix(prefix) for word in known], 2, 0.7)
    close = " or ".join(f"`{prefix}{match}`" for match in matches)
    hint = f"did you mean {close}?" if close else "`execsrv serve --print-config` lists all that there are"
    return InvalidConfigError(f"unknown {what}: {hint}")
