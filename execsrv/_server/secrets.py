"""Variables by reference: a start names a file, or a secret of the server, and the server puts its value in.

A client then needs not know the value. It is read for one start, into that command's environment, and kept nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from execsrv._processes.command import MOST_STRING_BYTES
from execsrv._processes.environment import check_names
from execsrv._wire.paths import path_from_wire
from execsrv._wire.quoting import shown
from execsrv.errors import FileError, InvalidParamsError
from execsrv.limits import ServerConfig


def secret_environment(references: Mapping[str, str], config: ServerConfig) -> dict[str, str]:
    """Return the variables with their values, each without the newline at its end. Blocks; for a thread.

    Raises `InvalidParamsError` for what cannot be read, with the reference and never a value.
    """
    check_names(references, "secretEnv")
    return {name: _value(f"secretEnv[{name!r}]", reference, config) for name, reference in references.items()}


def _value(field: str, reference: str, config: ServerConfig) -> str:
    if reference.startswith(("/", "file:")):
        if not config.allow_files:
            raise _wrong(f"{field}: the file methods are switched off on this server")
        return _content(field, config.file_roots, path_from_wire(reference, "secretEnv"), reference)
    if not config.secrets_directory:
        raise _wrong(f"{field}: this server has no secrets by name: secrets_directory is not set")
    if not reference or reference.startswith(".") or "/" in reference or "\0" in reference:
        raise _wrong(f"{field}: {reference!r} is no name of a secret, and no absolute path or file: URI")
    directory = os.path.abspath(config.secrets_directory)
    return _content(field, (directory,), os.path.join(directory, reference), reference)


def _content(field: str, roots: Sequence[str], path: str, reference: str) -> str:
    from execsrv._files.contents import read_file  # most starts have no secrets
    from execsrv._files.roots import Roots

    try:
        with Roots(roots).at(path) as place:
            content = read_file(place, MOST_STRING_BYTES)
    except FileError as error:
        raise _wrong(f"{field}: cannot read `{shown(reference)}`: {error}") from None
    except OSError as error:
        why = f"{error.strerror or error} (os error {error.errno or 0})"
        raise _wrong(f"{field}: cannot read `{shown(reference)}`: {why}") from None
    if content is None:
        raise _wrong(f"{field}: `{shown(reference)}` has more than {MOST_STRING_BYTES} bytes, and no variable can")
    if b"\0" in content:
        raise _wrong(f"{field}: `{shown(reference)}` holds a NUL, and no variable can")
    return os.fsdecode(content.removesuffix(b"\n"))


def _wrong(message: str) -> InvalidParamsError:
    return InvalidParamsError(message, field="secretEnv")
