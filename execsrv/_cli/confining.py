"""The policy that the options of a command line ask for: each takes something away from what a command may do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from execsrv._cli.job import RunOptions
from execsrv._cli.streams import escaped, say
from execsrv.client.policy import Policy, sandbox_of
from execsrv.errors import ExecsrvError

if TYPE_CHECKING:
    from execsrv._processes.confine.places import Confinement
    from execsrv.protocol.sandbox import Confined

WORKSPACE = "workspace-write"


def policy_of(options: RunOptions, path: Callable[[str], str]) -> Policy | None:
    """Return the policy, None where nothing is taken away. `path` makes an absolute path of one that was given.

    Raises `ExecsrvError` for a policy of another name, and for --or-landlock without any.
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
    elif options.or_landlock:
        raise ExecsrvError("--or-landlock is about a policy: add --sandbox, --read-only, --no-network or --hide")
    else:
        return None
    policy = policy.hide(*map(path, options.hide))
    return policy.or_landlock() if options.or_landlock else policy


def say_gaps(confined: Confined) -> None:
    """Say what a command can do, or cannot, in spite of its policy."""
    for gap in confined.gaps:
        say(f"execsrv: confined, but {escaped(gap)}")  # which may name paths, or come from a runner


def say_gaps_here(confinement: Confinement) -> None:
    """Say it of a command that runs here."""
    from execsrv._policies.resolver import told

    say_gaps(told(confinement))


def confinement_here(options: RunOptions, tmpdir: str | None) -> Confinement | None:
    """Return what a command may do here: its caller and the operator are the same.

    Raises `ExecsrvError` for a policy that cannot be kept.
    """
    policy = policy_of(options, os.path.abspath)
    if policy is None:
        return None
    from execsrv._policies.resolver import Resolver

    return Resolver(sandbox_of(policy), os.getcwd(), may_lack_view=True).resolve(tmpdir)
