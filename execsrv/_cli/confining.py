"""The policy that the options of a command line ask for: each takes something away from what a command may do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from execsrv._cli.job import RunOptions
from execsrv.client.policy import Policy, sandbox_of
from execsrv.errors import ExecsrvError

if TYPE_CHECKING:
    from execsrv._processes.confine.places import Confinement

WORKSPACE = "workspace-write"


def policy_of(options: RunOptions, path: Callable[[str], str]) -> Policy | None:
    """Return the policy, None where nothing is taken away. `path` makes an absolute path of one that was given.

    Raises `ExecsrvError` for a policy of another name.
    """
    network = not options.no_network
    name, _, folder = (options.sandbox or "").partition(":")
    if options.sandbox is not None and name != WORKSPACE and options.sandbox != "read-only":
        raise ExecsrvError(f"invalid --sandbox `{options.sandbox}`; expected `read-only` or `{WORKSPACE}[:DIR]`")
    if options.read_only and name == WORKSPACE:
        raise ExecsrvError(f"cannot use --read-only with --sandbox {WORKSPACE}")
    if name == WORKSPACE:
        policy = Policy.workspace_write(*([path(folder)] if folder else []), network=network)
    elif options.sandbox or options.read_only:
        policy = Policy.read_only(network=network)
    elif options.no_network or options.hide:
        policy = Policy.everything(network=network)
    else:
        return None
    return policy.hide(*map(path, options.hide))


def confinement_here(options: RunOptions, tmpdir: str | None) -> Confinement | None:
    """Return what a command may do here. Raises `ExecsrvError` for a policy that cannot be kept."""
    policy = policy_of(options, os.path.abspath)
    if policy is None:
        return None
    from execsrv._server.policy import Resolver

    return Resolver(sandbox_of(policy), os.getcwd()).resolve(tmpdir)
