"""Hints of `execsrv serve` on a terminal, once it listens: what can be done with it, from another one."""

from __future__ import annotations

import os
import shlex

from execsrv._cli.register.common import DEFAULT_URL, URL_VARIABLE
from execsrv._wire.owners import default_socket
from execsrv._wire.urls import page_url

STDIO = (
    "execsrv: speaking with whoever writes JSON to stdin; to listen for clients: execsrv serve --listen unix://"
    " (Ctrl-D ends this)"
)


def next_steps(url: str, *, has_page: bool = False) -> list[str]:
    """Return lines for people about a server that listens there."""
    page = [("open its page", page_url(url))] if has_page else []
    meant = "" if _is_meant_without_a_word(url) else f" --url {shlex.quote(url)}"
    return [
        f"  {what + ':':16}{line}"
        for what, line in (
            ("run a command", f"execsrv run{meant or f' --url {DEFAULT_URL}'} -- COMMAND"),
            ("be at a shell", f"execsrv shell{meant}"),
            ("see what runs", f"execsrv ps{meant}"),
            *page,
            ("end it", "Ctrl-C"),
        )
    ]


def _is_meant_without_a_word(url: str) -> bool:
    named = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    return url == named or (named == DEFAULT_URL and url == f"unix://{default_socket()}")
