"""Capability roots: directories in which a client hopes for plugins and skills.

This server looks into none of them: a client reads what it wants with `fs/*`. What is told is only whether a root is
there, and that nothing was looked for; the methods exist because clients fail without an answer, and no capability
announces them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio

from execsrv.protocol import CapabilityRoot, CapabilityRootFound, CapabilityRootsFound

_WARNING = "this server does not look for plugins and skills"


async def discover_roots(roots: Sequence[tuple[CapabilityRoot, str]]) -> CapabilityRootsFound:
    """What can be said of each root and its path, in a thread: a disk may be slow. Cancelling does not wait for it."""
    if not roots:
        return CapabilityRootsFound([])
    return await trio.to_thread.run_sync(
        lambda: CapabilityRootsFound([_look_at(root, path) for root, path in roots]), abandon_on_cancel=True
    )


def _look_at(root: CapabilityRoot, path: str) -> CapabilityRootFound:
    try:
        os.scandir(path).close()
    except NotADirectoryError:
        return CapabilityRootFound(root.id, root.path, error=f"capability root {root.path} is not a directory")
    except (OSError, ValueError) as error:
        number = error.errno or 0 if isinstance(error, OSError) else 0
        why = f"{os.strerror(number)} (os error {number})" if number else str(error)
        return CapabilityRootFound(root.id, root.path, error=f"failed to inspect capability root {root.path}: {why}")
    return CapabilityRootFound(root.id, root.path, warnings=[_WARNING])
