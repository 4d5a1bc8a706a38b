"""The archive of execsrv and of what it needs, made of what is installed here, for a Python that has none of it."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import io
import marshal
import re
import zipfile
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from execsrv.errors import ConnectionFailedError

_ROOT = Path(__file__).parent.parent
_NAME = re.compile(r"[\w.-]+", re.A)
_LEFT_HERE = {"typer"}
"""Needed by commands that nobody runs there, and as large as all the rest."""

_FLAGS = (1).to_bytes(4, "little") + bytes(8)
"""Bytecode that belongs to a source which is not there (PEP 552)."""


@cache
def archive() -> bytes:
    """Return a zip file of bytecode and extension modules. Raises `ConnectionFailedError`.

    It takes a moment; it is made once.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for place, path in sorted(_modules()):
            if path.suffix == ".py":
                name = place.removesuffix(".py").replace("/", ".")
                code = importlib.machinery.SourceFileLoader(name, str(path)).get_code(name)
                zipped.writestr(f"{place}c", MAGIC_NUMBER + _FLAGS + marshal.dumps(code))
            else:
                zipped.write(path, place)
    return file.getvalue()


def _modules() -> set[tuple[str, Path]]:
    """Return every module, with its path in the archive."""
    found = {(f"execsrv/{path.relative_to(_ROOT)}", path) for path in _ROOT.rglob("*.py")}
    for name in _needed("execsrv"):
        for file in importlib.metadata.files(name) or ():
            if file.suffix in (".py", ".so") and ".." not in file.parts and not {"tests", "_tests"} & set(file.parts):
                found.add((file.as_posix(), Path(str(file.locate()))))
    return found


def _needed(root: str) -> set[str]:
    """Return the names of the distributions that one needs, without its extras."""
    needed: set[str] = set()
    waiting = [root]
    while waiting:
        try:
            requirements = importlib.metadata.requires(waiting.pop()) or ()
        except importlib.metadata.PackageNotFoundError as error:
            if not needed:
                raise ConnectionFailedError("cannot bring execsrv along: it is not installed here") from error
            needed.discard(str(error.name))  # one for other systems
            continue
        for requirement in requirements:
            found = _NAME.match(requirement)
            if found is not None and "extra ==" not in requirement and found[0] not in needed | _LEFT_HERE:
                needed.add(found[0])
                waiting.append(found[0])
    return needed
