"""Having git take a repository of this user's for its own where a command of another user works in it.

Git refuses a repository of somebody else, whose configuration could run anything. Who is asked to work in one of the
server's has no choice, and the server is trusted already. Other repositories stay refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def trusting(env: Mapping[str, str], cwd: str | None) -> dict[str, str]:
    """Return an environment with the repository that a directory is in among git's `safe.directory`.

    It comes behind what the environment has for git already. Blocks as long as the file system does.
    """
    root = _root_of(os.path.realpath(cwd or os.getcwd()))
    if root is None:
        return dict(env)
    try:
        count = max(0, int(env.get("GIT_CONFIG_COUNT", "0")))
    except ValueError:
        count = 0
    ours = {f"GIT_CONFIG_KEY_{count}": "safe.directory", f"GIT_CONFIG_VALUE_{count}": root}
    return {**env, **ours, "GIT_CONFIG_COUNT": f"{count + 1}"}


def _root_of(folder: str) -> str | None:
    """Return the folder of the repository or worktree that a folder is in, None for none, and for another user's."""
    for above in (Path(folder), *Path(folder).parents):
        try:
            if (above / ".git").lstat().st_uid == os.geteuid() == above.stat().st_uid:
                return str(above)
            return None
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
