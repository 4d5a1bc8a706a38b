"""Runs tests on another kernel, with control groups of version 2: `python -m tests.uml tests/test_process_limits.py`.

The kernel is User Mode Linux, which is a program (`linux.uml`, of Debian's package user-mode-linux). It has the files
of this machine, and may not write any of them; what is written goes to a memory of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = "linux.uml"
MEMORY = "512M"

INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for folder in /tmp /run /dev/shm; do mount -t tmpfs memory $folder; done
ip link set lo up
echo "+memory +pids +cpu" >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/tests
cd {folder}
export PATH={path} PYTHONPATH={folder} PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
sh -c 'echo 0 >/sys/fs/cgroup/tests/cgroup.procs; exec "$@"' sh {argv} >/tmp/out 2>&1
status=$?
cat /tmp/out
find /sys/fs/cgroup -name 'execsrv-*'
echo "{end} $status"
poweroff -f
"""
END = "the tests ended with"


def main(words: list[str]) -> int:
    """Run pytest there; return its exit status. Groups that are left behind are printed, and are a failure too."""
    if (program := shutil.which(PROGRAM)) is None:
        print(f"there is no {PROGRAM} here: nothing was run")
        return 5
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=/tmp/tests", *words]
    folder = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as place:
        init = Path(place, "init")
        init.write_text(
            INIT.format(folder=folder, path=shlex.quote(os.environ["PATH"]), argv=shlex.join(argv), end=END)
        )
        init.chmod(0o755)
        kernel = [program, f"mem={MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"]
        kernel += [f"init={init}", "con=null", "con0=null,fd:1"]
        done = subprocess.run(kernel, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    said, _, status = done.stdout.rpartition(END)
    print(said)
    left = [line for line in said.splitlines() if line.startswith("/sys/fs/cgroup/")]
    return int(status.split()[0]) or bool(left) if status else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
