"""Users of this machine, as whom a command may be run by a server that is root."""

from __future__ import annotations

import grp
import os
import pwd
from typing import NamedTuple

from execsrv._processes.spare_descriptors import check_descriptors
from execsrv.errors import InvalidParamsError


class Account(NamedTuple):
    """A user: the rights that a command of it has, and what it knows of itself."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    is_of_group: bool = False
    """True with a group that was asked for, in place of those that the user has."""

    @property
    def is_ours(self) -> bool:
        """True where it is this user itself, whose rights need not be taken on."""
        return self.uid == os.geteuid() and not self.is_of_group

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which a command finds its user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


def account_of(wanted: str) -> Account:
    """Return the account of `USER` or `USER:GROUP`, by names or numbers. Blocks as long as the machine looks it up.

    Raises `InvalidParamsError` where there is none, and `OSError` without a descriptor to look with.
    """
    user, colon, group = wanted.partition(":")
    try:
        gid = _gid_of(group) if colon else None
        try:
            found = pwd.getpwnam(user)
        except KeyError:
            if not _is_number(user):
                raise
            found = pwd.getpwuid(int(user))
        groups = os.getgrouplist(found.pw_name, found.pw_gid)
    except (KeyError, ValueError, OverflowError, OSError):
        check_descriptors()
        what = f"user {wanted!r}" if not colon else f"user and group {wanted!r}"
        raise InvalidParamsError(f"user: there is no {what} on this machine", field="user") from None
    own = found.pw_name, found.pw_uid
    if gid is not None:
        return Account(*own, gid, (gid,), found.pw_dir, found.pw_shell, is_of_group=True)
    return Account(*own, found.pw_gid, tuple(groups), found.pw_dir, found.pw_shell)


def _gid_of(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if not _is_number(group):
            raise
        return grp.getgrgid(int(group)).gr_gid


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
