"""The descriptors that a program of ours may have open: as many as its user may, for many commands need many."""

from __future__ import annotations

import resource

from execsrv._processes import carried_limits


def raise_descriptor_limit() -> None:
    """Raise our soft limit of descriptors to the hard one. Commands get the old one."""
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return  # we serve with what we have
    if soft != hard:
        carried_limits.commands_limits = ((resource.RLIMIT_NOFILE, soft),)
