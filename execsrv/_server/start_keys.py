"""The keys of starts: the same key with the same request is the same process.

A key is known as long as its process can be asked for. Nothing of the request is kept but a digest.
"""

from __future__ import annotations

from execsrv._server.session import Session
from execsrv._server.sessions import Sessions
from execsrv._server.start_options import Key
from execsrv._server.starting import Starting
from execsrv._wire.quoting import quoted
from execsrv.errors import KeyConflictError

_MOST_STALE = 1024


class Keys:
    """The keys of the starts of one connection, each with the id of its process."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._by_key: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Keys {len(self._by_key)}>"

    def find(self, key: Key) -> Session | Starting | None:
        """Return the process that was started with this key. Raises `KeyConflictError` where it was another start."""
        process = self._process(key.text)
        if process is None or process.key is None:
            return None
        if process.key.digest != key.digest:
            text = f"key {quoted(key.text)} is that of process {process.id}, which was started by another request"
            raise KeyConflictError(text, processId=process.id)
        return process

    def enter(self, key: Key, id: str) -> None:
        """Note the process of a key."""
        self._by_key[key.text] = id
        if len(self._by_key) > len(self._sessions) + _MOST_STALE:
            self._by_key = {text: id for text, id in self._by_key.items() if self._process(text) is not None}

    def _process(self, text: str) -> Session | Starting | None:
        id = self._by_key.get(text, "")
        process = self._sessions.find(id) or self._sessions.starting(id)
        return process if process is not None and process.key is not None and process.key.text == text else None
