"""The words between `connect` and a far side before there is a server: a script that runs there, its answer. Pure.

The script says on a line of its own whether execsrv is there, a Python that could run it, or neither. Whoever greets
before that is passed over. A Python without execsrv reads an archive of it from its stdin, unpacks it into a folder
that only its user may read, serves from there, and removes it in the end. Where the server outlives its connection, the
next one finds that folder by its name, and brings nothing. It looks without writing: the disk may be full by then.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from typing import NamedTuple

SAID = b"execsrv-far-side: "
"""Begins the line that answers."""

LOWEST_PYTHON = (3, 11)

_BOOTSTRAP = """\
import os, sys, stat, tempfile, importlib.machinery as m, importlib.util as u
name = sys.argv[2]
places = [os.environ.get(variable) for variable in ("TMPDIR", "TEMP", "TMP")] + ["/tmp", "/var/tmp", "/usr/tmp"]
def load():
    sys.path.insert(0, folder)
    sys.argv[:3] = ["execsrv"]
    import msgspec
    from execsrv.__main__ import main
    return main
def is_mine(folder):
    try:
        it = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(it.st_mode) and it.st_uid == os.getuid() and it.st_mode & 0o77 == 0
for place in filter(None, places if name else []):
    folder = os.path.join(place, "execsrv-" + name)
    if is_mine(folder):
        print(sys.argv[1] + "there", flush=True)
        sys.exit(load()())
facts = "%d.%d" % sys.version_info[:2], m.EXTENSION_SUFFIXES[0], u.MAGIC_NUMBER.hex()
print(sys.argv[1] + "python", *facts, flush=True)
def take(n):
    data = b""
    while len(data) < n:
        part = os.read(0, min(n - len(data), 1 << 16))
        if len(part) == 0:
            sys.exit(1)
        data += part
    return data
size = int.from_bytes(take(4), "big")
import io, shutil, signal, zipfile
def end(number, frame):
    sys.exit(128 + number)
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, end)
archive = take(size)
if name:
    folder = os.path.join(tempfile.gettempdir(), "execsrv-" + name)
    os.mkdir(folder, 0o700)
else:
    folder = tempfile.mkdtemp(prefix="execsrv-")
try:
    try:
        zipfile.ZipFile(io.BytesIO(archive)).extractall(folder)
        del archive
        main = load()
    except (OSError, ImportError) as error:
        sys.exit("cannot use execsrv in %s (another TMPDIR may do): %s" % (folder, error))
    main()
finally:
    shutil.rmtree(folder, ignore_errors=True)
"""
"""Program that a Python there runs. No `!` and no line end may reach the shell: a csh would take them for its own."""


class Facts(NamedTuple):
    """The things of a Python that have to be the same here and there, for what is brought along to run."""

    version: str
    extensions: str
    """The ending of its extension modules: it names the version, the processor and the C library."""
    magic: str
    """The kind of its bytecode."""


def own_facts() -> Facts:
    """Return those of this Python."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Facts(version, importlib.machinery.EXTENSION_SUFFIXES[0], importlib.util.MAGIC_NUMBER.hex())


class Answer(NamedTuple):
    """Word of a far side about itself."""

    is_there: bool
    python: Facts | None


def script(serve: Sequence[str], directory: str | None, *, bring: bool, name: str = "") -> str:
    """Return the script, in one line of sh(1), that runs `execsrv` with the words `serve` in a directory.

    It looks for execsrv in the PATH, and where pip puts it for one user: a shell that nobody logs in to seldom has that
    in its PATH. With `bring` it looks for a Python next, for one of our version first. A server with a `name` has its
    folder by that, and what was brought there is found again.
    """
    said = SAID.decode()
    words = shlex.join(serve)
    parts = []
    if directory is not None:
        place = f'"$HOME"/{shlex.quote(directory[2:])}' if directory.startswith("~/") else shlex.quote(directory)
        parts.append(f"cd -- {place} || exit")
    parts.append(
        'for p in execsrv "$HOME/.local/bin/execsrv"; do if command -v "$p" >/dev/null 2>&1; then'
        f' echo; echo "{said}there"; exec "$p" {words}; fi; done'
    )
    if bring:
        code = f"exec({_double_quoted(_BOOTSTRAP)})"
        parts.append(
            f"for p in python{own_facts().version} python3; do"
            ' if command -v "$p" >/dev/null 2>&1; then'
            f' echo; exec "$p" -I -c {shlex.quote(code)} {shlex.quote(said)} {shlex.quote(name)} {words}; fi; done'
        )
    parts.append(f'echo; echo "{said}nothing"; exit 127')
    return "; ".join(parts)


def _double_quoted(text: str) -> str:
    """Return a Python string in double quotes: single ones would be quoted again and again by the shells."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def parse_answer(line: bytes) -> Answer | None:
    """Return what a line says of the far side, None for a line that is not the script's."""
    if not line.startswith(SAID):
        return None
    match line.removeprefix(SAID).decode(errors="replace").split():
        case ["there"]:
            return Answer(True, None)
        case ["python", version, extensions, magic]:
            return Answer(False, Facts(version, extensions, magic))
        case _:
            return Answer(False, None)


def why_not_brought(there: Facts, here: Facts) -> str | None:
    """Return the reason why execsrv cannot be brought along to a Python, None where it can."""
    try:
        version = tuple(map(int, there.version.split(".")))
    except ValueError:
        version = ()
    if version < LOWEST_PYTHON:
        return f"it has Python {there.version}, and execsrv needs 3.11 or later"
    if there != here:
        mine, its = (f"Python {facts.version} ({facts.extensions.strip('.')})" for facts in (here, there))
        return f"it has {its}, and what could be brought along is for the one here, {mine}"
    return None


_HINTS = (
    (
        "Host key verification failed",
        "its host key is not known here: connect once with `ssh` yourself",
    ),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed"),
    ("Permission denied", "it takes none of our keys, and nothing here can ask for a password"),
    ("Too many authentication failures", "it takes none of our keys, and nothing here can ask for a password"),
    ("Could not resolve hostname", "its name cannot be resolved"),
    ("Connection refused", "it refuses the connection"),
    ("Connection timed out", "it does not answer"),
    ("No route to host", "there is no way to it"),
    ("No such container", "there is no such container"),
    ("is not running", "the container does not run"),
    ("(NotFound)", "it is not there"),
    ("(Forbidden)", "it is not allowed"),
)


def why_no_way(program: str, code: int | None, said: str) -> str:
    """Return the reason why a program led nowhere, from its exit code and from what it said on stderr."""
    for words, hint in _HINTS:
        if words in said:
            return hint
    if code == 127 and ("executable file not found" in said or "not found" in said):
        return "there is no shell, or no such command"
    if code is None:
        return f"`{program}` did not get there in time"
    if code < 0:
        return f"`{program}` died of signal {-code}"
    ended = f"`{program}` ended with exit code {code}"
    return f"{ended} (it could not connect)" if (program, code) == ("ssh", 255) else ended
