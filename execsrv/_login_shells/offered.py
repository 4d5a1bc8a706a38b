"""The capability that tells of snapshots. It is apart from them: they are loaded with the first that is asked for."""

from __future__ import annotations

import os


def shell_capabilities() -> dict[str, bool]:
    """Return the capability, true on a machine that has files without a name and lets a shell open one."""
    return {"shellSnapshotV2": hasattr(os, "memfd_create") and os.path.exists("/dev/fd")}
