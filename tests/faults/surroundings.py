"""Machines that are short of something: command lines in front of a daemon's, and what each needs to be possible."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.test_survivors import as_ordinary_user


def limited(what: str) -> list[str]:
    """Return a prefix under a limit of bash's `ulimit`: "-n 64"."""
    return ["bash", "-c", f'ulimit {what} && exec "$@"', "bash"]


def apart(script: str) -> list[str]:
    """Return a prefix whose script may mount what it likes, for what follows alone. Skips where nobody may."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'set -e; {script}; exec "$@"', "sh"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"not allowed here: {tried.stderr.strip()}")
    return prefix


def somebody(folder: Path, uid: int) -> tuple[list[str], dict[str, str]]:
    """Return the command line of an execsrv that runs as that user, and its environment. For root only."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    command, env = as_ordinary_user(folder)
    words = [word.replace("65534", str(uid)) for word in command]
    return words[: words.index("serve")], env


JUMP_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long jump(void) {
    char text[32] = {0};
    int fd = open(getenv("JUMP_FILE"), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    close(fd);
    return atol(text);
}
int clock_gettime(clockid_t id, struct timespec *to) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, to);
    if (id == CLOCK_REALTIME && !result) to->tv_sec += jump();
    return result;
}
int gettimeofday(struct timeval *restrict to, void *restrict zone) {
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec; to->tv_usec = now.tv_nsec / 1000;
    return result;
}
time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"""


def jumping_clock(folder: Path) -> tuple[dict[str, str], Callable[[int], None]]:
    """Return an environment in which the time of day jumps by so many seconds when the second value is called."""
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        pytest.skip("no C compiler for the library that makes the clock jump")
    (folder / "jump.c").write_text(JUMP_SOURCE)
    library, offset = folder / "jump.so", folder / "jump"
    command: Sequence[str] = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(folder / "jump.c"), "-ldl"]
    subprocess.run(command, check=True)
    offset.write_text("0")

    def jump(seconds: int) -> None:
        (folder / "next").write_text(str(seconds))
        (folder / "next").rename(offset)

    return {"LD_PRELOAD": str(library), "JUMP_FILE": str(offset)}, jump
