"""Variables of the server's environment that look like secrets, and those that no command gets whatever is asked for.

A secret is told by its name, or is a URL with a password in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from execsrv.limits import ServerConfig

SECRET_NAMES = (
    "*KEY*",
    "*SECRET*",
    "*TOKEN*",
    "*PASSWORD*",
    "*PASSWD*",
    "*PASSPHRASE*",
    "*_PASS",
    "*_PWD",  # and neither PWD nor OLDPWD
    "*CREDENTIAL*",
    "*COOKIE*",
)
_URL_NAMES = ("*_URL", "*_URI", "*_DSN")
_PASSWORD_IN_URL = r"://[^/?#]*:[^/?#]+@"


OWN_TOKEN = "EXECSRV_TOKEN"
"""The token by which a client of ours comes in somewhere. No command gets it."""


class Withheld(NamedTuple):
    """The server's own word on what commands inherit: patterns of names, and with `secrets` all that looks like one."""

    patterns: Sequence[str] = ()
    secrets: bool = False

    def covers(self, name: str, value: str) -> bool:
        """Return whether no command may inherit a variable."""
        return matches(name, self.patterns) or (self.secrets and is_secret(name, value))

    def kept(self, variables: Mapping[str, str]) -> Mapping[str, str]:
        """Return the variables that commands may inherit."""
        if not self.patterns and not self.secrets:
            return variables
        return {name: value for name, value in variables.items() if not self.covers(name, value)}


NOTHING = Withheld()


def withheld_by(config: ServerConfig) -> Withheld:
    """Return the word of a server with these settings."""
    return Withheld(config.withheld_variables, config.withhold_secrets)


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable looks like a secret."""
    if matches(name, SECRET_NAMES):
        return True
    return matches(name, _URL_NAMES) and re.search(_PASSWORD_IN_URL, value) is not None


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name matches one of the globs, in whatever case."""
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)
