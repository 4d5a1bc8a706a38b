"""Users of this machine, as whom a command may be run by a server that is root."""

from __future__ import annotations

import os
import pwd
from typing import NamedTuple

from execsrv.errors import InvalidParamsError


class Account(NamedTuple):
    """A user: the rights that a command of it has, and what it knows of itself."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def is_ours(self) -> bool:
        """True where it is this user itself, whose rights need not be taken on."""
        return self.uid == os.geteuid()

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which a command finds its user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


def account_of(user: str) -> Account:
    """Return the account of a name or a number. Blocks as long as the machine looks it up.

    Raises `InvalidParamsError` where there is none.
    """
    try:
        try:
            found = pwd.getpwnam(user)
        except KeyError:
            if not (user.isascii() and user.isdecimal()):
                raise
            found = pwd.getpwuid(int(user))
        groups = os.getgrouplist(found.pw_name, found.pw_gid)
    except (KeyError, ValueError, OverflowError, OSError):
        raise InvalidParamsError(f"user: there is no user {user!r} on this machine", field="user") from None
    return Account(found.pw_name, found.pw_uid, found.pw_gid, tuple(groups), found.pw_dir, found.pw_shell)
