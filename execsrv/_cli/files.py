"""`execsrv files`: what a server's files are, printed, and changed in an editor of this machine."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence

import trio

from execsrv._cli.interrupts import left_to_another
from execsrv._cli.manners import Manners, print_json, print_text, size
from execsrv._cli.reach import Reach, path_there
from execsrv._cli.streams import say
from execsrv._wire.quoting import in_utf8
from execsrv._wire.writing import write_all
from execsrv.client import Client, FileInfo
from execsrv.client.file_paths import is_missing
from execsrv.errors import ExecsrvError, FileError, NotFoundError

_READ_BYTES = 1024 * 1024


def ls(*, paths: Sequence[str], long: bool, hidden: bool, reach: Reach, manners: Manners) -> int:
    """List directories and files."""
    return trio.run(_list, paths or ("",), long, hidden, reach, manners)


def cat(*, paths: Sequence[str], reach: Reach, manners: Manners) -> int:
    """Write files to stdout."""
    return trio.run(_cat, paths, reach, manners)


def edit(*, path: str, force: bool, reach: Reach, manners: Manners) -> int:
    """Edit a file here, and put it back. Nobody holds a connection while he thinks."""
    editor = _editor()
    there, info, before = trio.run(_fetched, path, reach)
    if info is None:
        manners.note(f"`{path}` is new")
    folder = tempfile.mkdtemp(prefix="execsrv-")
    here = os.path.join(folder, os.path.basename(there) or "file")
    if info is not None:  # one that is new is there once the editor has saved it
        with open(here, "wb") as file:
            file.write(before)
    with left_to_another():
        status = subprocess.call([*editor, here])
    if status:
        raise ExecsrvError(f"`{shlex.join(editor)}` ended with status {status}; your text is in `{here}`")
    after = None
    if info is not None or os.path.lexists(here):
        with open(here, "rb") as file:
            after = file.read()
    if after is None:
        manners.note(f"nothing was saved, and `{path}` was not made")
    elif after != before or info is None:
        known = None if info is None or force else before
        try:
            trio.run(_put_back, there, after, info, known, force, reach, manners)
        except BaseException:
            say(f"execsrv: your text is in `{here}`")
            raise
        manners.note(f"wrote {size(len(after))} to `{path}`")
    else:
        manners.note(f"`{path}` is as it was")
    shutil.rmtree(folder, ignore_errors=True)  # backups of the editor too
    return 0


def _editor() -> list[str]:
    """Return the argv of the editor that the environment names. Raises `ExecsrvError` where it cannot be started."""
    name = "VISUAL" if os.environ.get("VISUAL") else "EDITOR"
    text = os.environ.get(name, "")
    try:
        argv = shlex.split(text) or ["vi"]
    except ValueError as error:
        raise ExecsrvError(f"{name} is no command line, `{text}`: {error}") from None
    if shutil.which(argv[0]) is None:
        raise ExecsrvError(f"there is no editor `{argv[0]}` here: name one in VISUAL or EDITOR")
    return argv


# -- ls --


async def _list(paths: Sequence[str], long: bool, hidden: bool, reach: Reach, manners: Manners) -> int:
    found: list[tuple[str, bool, list[FileInfo]]] = []
    async with reach.connect() as client:
        for path in paths:
            there = path_there(client, path)
            info = await client.files.stat(there, follow=False)
            if info.is_symlink and not long:
                info = await _followed(client, info)
            entries = await client.files.list(there) if info.is_directory else [info]
            if info.is_directory and not hidden:
                entries = [entry for entry in entries if not entry.name.startswith(".")]
            found.append((path, info.is_directory, entries))
    if manners.as_json:
        print_json([_facts(entry) for _, _, entries in found for entry in entries])
        return 0
    for number, (path, is_directory, entries) in enumerate(found):
        if len(found) > 1 and is_directory:
            print_text(f"{'' if number == 0 else chr(10)}{_shown(path or '.')}:\n")
        names = [entry.name if is_directory else path for entry in entries]
        print_text(_long(entries, names) if long else "".join(f"{_shown(name)}\n" for name in names))
    return 0


async def _followed(client: Client, info: FileInfo) -> FileInfo:
    try:
        return await client.files.stat(info.path)
    except FileError as error:
        if not is_missing(error):
            raise
        return info


def _facts(info: FileInfo) -> dict[str, object]:
    return {
        "path": in_utf8(info.path),
        "kind": info.kind,
        "size": info.size,
        "mode": f"{info.mode:04o}",
        "modified": info.modified,
        "userId": info.user_id,
        "groupId": info.group_id,
        "target": None if info.target is None else in_utf8(info.target),
    }


_LETTERS = {
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "character-device": stat.S_IFCHR,
    "block-device": stat.S_IFBLK,
}


def _long(entries: Sequence[FileInfo], names: Sequence[str]) -> str:
    sizes = [size(entry.size) for entry in entries]
    width = max(map(len, sizes), default=0)
    lines = []
    for entry, name, shown_size in zip(entries, names, sizes, strict=True):
        mode = stat.filemode(_LETTERS.get(entry.kind, stat.S_IFREG) | entry.mode)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.modified))
        target = f" -> {_shown(entry.target)}" if entry.target is not None else ""
        lines.append(f"{mode}  {shown_size:>{width}}  {when}  {_shown(name)}{target}\n")
    return "".join(lines)


def _shown(name: str) -> str:
    """Return a name as it is, for a program; on a terminal with nothing in it that could move the cursor."""
    if name.isprintable() or not os.isatty(1):
        return name
    return "".join(letter if letter.isprintable() else "?" for letter in name)


# -- cat --


async def _cat(paths: Sequence[str], reach: Reach, manners: Manners) -> int:
    thread = trio.CapacityLimiter(1)
    async with reach.connect() as client:
        for path in paths:
            async with client.files.open(path_there(client, path)) as file:
                while data := await file.read(_READ_BYTES):
                    await trio.to_thread.run_sync(write_all, 1, data, limiter=thread, abandon_on_cancel=True)
    return 0


# -- edit --


async def _fetched(path: str, reach: Reach) -> tuple[str, FileInfo | None, bytes]:
    """Return a path, and the facts and the content of what is there."""
    async with reach.connect() as client:
        there = path_there(client, path)
        try:
            return there, await client.files.stat(there), await client.files.read(there)
        except NotFoundError:
            return there, None, b""


async def _put_back(
    there: str,
    after: bytes,
    info: FileInfo | None,
    before: bytes | None,
    force: bool,
    reach: Reach,
    manners: Manners,
) -> None:
    """Write a file as a whole, unless it was changed in the meantime. Raises `ExecsrvError` then."""
    async with reach.connect() as client:
        try:
            now: bytes | None = await client.files.read(there)
        except NotFoundError:
            now = None
        if now != before and not force:
            raise ExecsrvError(f"`{there}` was changed in the meantime; --force overwrites it")
        try:
            await client.files.write(there, after)
        except FileError as error:
            # One that is a mount, as /etc/hosts in a container, cannot be replaced, and some directories take no other.
            if info is None or error.errno not in (errno.EBUSY, errno.EACCES, errno.EPERM):
                raise
            await client.files.write(there, after, atomic=False)
        if info is not None and (await client.files.stat(there)).mode != info.mode:
            try:
                await client.files.change(there, mode=info.mode)
            except FileError as error:  # what was edited is written
                manners.note(f"the mode was {info.mode:04o}: {error}")
