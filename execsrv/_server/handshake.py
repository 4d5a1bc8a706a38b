"""The order in which a channel's messages are allowed, as a table over three states. Pure: no I/O.

    NEW --initialize--> GREETED --initialized--> READY

Only a successful `initialize` moves on, so a refused one may be tried again. A call is refused with an error of its
own; a notification that is not allowed, and an answer to a question that was never asked, are protocol errors.
"""

from __future__ import annotations

from enum import Enum
from typing import assert_never

from execsrv._wire.quoting import quoted
from execsrv.errors import NotReadyError, ProtocolError
from execsrv.protocol import Failure, Message, Method, Notification, Request, Response


class State(Enum):
    """The progress of a channel's handshake. The value is the step that is missing."""

    NEW = "call initialize"
    GREETED = "send initialized"
    READY = ""


class Handshake:
    """The server's side of the handshake on one channel."""

    def __init__(self) -> None:
        self.state = State.NEW

    def check_request(self, method: Method) -> None:
        """Raise `NotReadyError` unless this call is allowed now."""
        if method.family is None:
            if self.state is not State.NEW:
                raise NotReadyError("initialize may only be sent once per connection")
        elif self.state is not State.READY:
            raise NotReadyError(f"client must {self.state.value} before using {method.family} methods")

    def greeted(self) -> None:
        """Move on: `initialize` was answered."""
        self.state = State.GREETED

    def check_other(self, message: Message) -> None:
        """Take what is not a request: `initialized`, once more if it likes, and what begins with `$/`.

        Raises `ProtocolError` for the rest.
        """
        match message:
            case Notification(method) if method.startswith("$/"):
                pass  # what a peer may say without asking whether it is understood, as in the Language Server Protocol
            case Notification("initialized"):
                if self.state is State.NEW:
                    raise ProtocolError("received initialized before initialize")
                self.state = State.READY
            case Notification(method):
                raise ProtocolError(f"unexpected notification {quoted(method)}: a client may only notify `initialized`")
            case Response(id) | Failure(id):
                raise ProtocolError(f"unexpected answer to a request {id!r} that was never sent")
            case Request(id, method):
                raise ProtocolError(f"request {id!r} for {quoted(method)} is not a notification")
            case _:
                assert_never(message)
