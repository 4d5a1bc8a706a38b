"""The variables of `--env` and `--env-file`, as one list of `NAME=VALUE`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from execsrv.errors import ExecsrvError

_MOST_FILE_BYTES = 1024 * 1024


def variables(files: Sequence[str], settings: Sequence[str]) -> list[str]:
    """Return what files and options set, in this order. A NAME alone has our value, and nothing where we have none.

    Raises `ExecsrvError` and `OSError`.
    """
    found: list[str] = []
    for path in files:
        found += _of_file(path)
    for setting in settings:
        if not setting.partition("=")[0]:
            raise ExecsrvError(f"invalid --env `{setting}`; expected `NAME=VALUE` or `NAME`")
        found += _with_value(setting)
    return found


def _of_file(path: str) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            text = file.read(_MOST_FILE_BYTES + 1)
    except OSError as error:
        raise ExecsrvError(f"cannot read --env-file `{path}`: {error.strerror}") from None
    if len(text) > _MOST_FILE_BYTES:
        raise ExecsrvError(f"cannot read --env-file `{path}`: it has more than 1 MiB")
    for number, line in enumerate(text.split("\n"), 1):
        setting = line.rstrip("\r").lstrip()
        if not setting or setting.startswith("#"):
            continue
        name = setting.partition("=")[0]
        if not name or name != name.strip() or " " in name or "\0" in setting:
            raise ExecsrvError(f"invalid line {number} of `{path}`: expected `NAME=VALUE` or `NAME`")
        yield from _with_value(setting)


def _with_value(setting: str) -> Iterator[str]:
    name, equals, _ = setting.partition("=")
    if equals:
        yield setting
    elif name in os.environ:
        yield f"{name}={os.environ[name]}"
