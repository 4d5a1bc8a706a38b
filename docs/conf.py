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
autodoc_mock_imports = ["ray"]  # of an adapter: it is large, and not needed to read this
add_module_names = False
default_role = "code"  # single backquotes in docstrings

nitpicky = True
# Names of other packages and of the standard library, which have their pages elsewhere.
nitpick_ignore_regex = [(r"py:.*", r"(trio|collections|msgspec|nox|os|re)\..*")]
# Keywords and parts that are explained where they are used.
nitpick_ignore = [
    ("py:class", "Offered"),
    ("py:class", "Kind"),
    ("py:class", "Path"),
    ("py:class", "Policy"),
    ("py:class", "ProcessLimits"),
    ("py:class", "Recording"),
    ("py:class", "Side"),
    ("py:class", "AbstractAsyncContextManager"),
    ("py:class", "execsrv.agents.bookkeeping.Book"),
    ("py:class", "execsrv.client.keywords.MapKeywords"),
    ("py:class", "execsrv.client.keywords.RunKeywords"),
    ("py:class", "execsrv.client.keywords.StartKeywords"),
    ("py:class", "execsrv.client.result.Said"),
    ("py:class", "execsrv.conformance.case.Stage"),
    ("py:class", "execsrv.errors.request._OfSystem"),
    ("py:class", "execsrv.client.streams.Input"),
    ("py:class", "execsrv.client.streams.Output"),
    ("py:class", "execsrv.protocol.host.EnvironmentInfo"),
    ("py:class", "execsrv.protocol.host.Shell"),
]
