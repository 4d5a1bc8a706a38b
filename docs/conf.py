"""Sphinx: `python -m sphinx -W -n -b html docs OUT`."""

from execsrv import __version__

project = "execsrv"
author = "the execsrv authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"execsrv {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
default_role = "code"  # single backquotes in docstrings

nitpicky = True
# Names of other packages, of the standard library, and of our modules that are no part of the reference.
nitpick_ignore_regex = [
    (r"py:.*", r"(trio|msgspec|collections|contextlib|typing|os|builtins)\..*"),
    (r"py:.*", r"execsrv\.(protocol|_output|client|_transports)\..*"),
    (r"py:.*", r"(Any|ClassVar|Callable|Awaitable|Sequence|Mapping|AsyncIterator|PathLike|Struct|TaskStatus)"),
]
