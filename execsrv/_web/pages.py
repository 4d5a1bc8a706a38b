"""The files of the page, each as an HTTP response. Of a request nothing but its path gets here.

The policy lets the page run its own scripts and reach its own server, and nothing else. A browser keeps no copy:
who has the port next is not to be taken for us.
"""

from __future__ import annotations

import secrets
from functools import cache, partial
from importlib import resources

import trio

from execsrv._threads import run_in_thread

_HTML, _SCRIPT, _STYLE = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"
_SCRIPTS = ("app", "list", "pane", "playing", "policy", "screen", "wire")

_FILES = {
    "/": ("_web/page/index.html", _HTML),
    "/web/style.css": ("_web/page/style.css", _STYLE),
    **{f"/web/{name}.js": (f"_web/page/{name}.js", _SCRIPT) for name in _SCRIPTS},
    "/web/xterm.js": ("_web/xterm/xterm.mjs", _SCRIPT),
    "/web/addon-fit.js": ("_web/xterm/addon-fit.mjs", _SCRIPT),
    "/web/xterm.css": ("_web/xterm/xterm.css", _STYLE),
    "/web/player.js": ("record/player/asciinema-player.min.js", _SCRIPT),
    "/web/player.css": ("record/player/asciinema-player.css", _STYLE),
}
"""Each path with its file below the package, and its type."""

PATHS = frozenset(path.encode() for path in _FILES)

_NONCE = "{{nonce}}"
"""In the page, the place of the word by which the terminal's own style sheets are known."""

_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'nonce-{nonce}'; connect-src 'self';"
    " img-src 'self' data:; font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nContent-Length: {length}\r\nConnection: close\r\n"
    "Cache-Control: no-store\r\nContent-Security-Policy: {policy}\r\nX-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\nCross-Origin-Opener-Policy: same-origin\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n\r\n"
)

_PIECE = 64 * 1024

_readers = trio.CapacityLimiter(2)


async def response(path: bytes) -> list[bytes | memoryview]:
    """Return the response to a request for one of `PATHS`, in pieces. Raises `BusyError`."""
    name, kind = _FILES[path.decode()]
    body = await run_in_thread(partial(_read, name), _readers)
    nonce = secrets.token_urlsafe(16)
    if kind == _HTML:
        body = body.replace(_NONCE.encode(), nonce.encode())
    head = _HEAD.format(type=kind, length=len(body), policy=_POLICY.format(nonce=nonce)).encode()
    return [head, *(memoryview(body)[at : at + _PIECE] for at in range(0, len(body), _PIECE))]


@cache
def _read(name: str) -> bytes:
    """Return a file of the package: once, so that many who ask and read slowly hold the same bytes."""
    return (resources.files("execsrv") / name).read_bytes()
