"""The four shapes of message, as JSON-RPC 2.0 has them, and the base of everything that travels in them.

A struct's Python names become camelCase in JSON, `bytes` become base64, and unknown fields are ignored, so that newer
peers can say more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from execsrv.protocol.bounds import Id as Id

PROTOCOL_VERSION = "exec-server.v0"

MSGPACK = "msgpack"
"""The encoding of messages that both sides may agree on, instead of JSON."""


MessageId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Id
"""The pair of an answer and its request: a signed 64-bit integer or a string, echoed with its type.

A whole number that is written with a point counts as that integer. A call with any other id is answered with an error
whose id is null.
"""


if TYPE_CHECKING:
    _W = TypeVar("_W")
    Told = Annotated[_W, "the words of today"]
else:

    class Told:
        """One of some words that a server tells. A newer one may have more of them: who is told takes any text."""

        def __class_getitem__(cls, words: Any) -> Any:
            return Annotated[str, Meta(examples=list(get_args(words)))]


class Request(Struct, frozen=True, omit_defaults=True):
    """A call. `params` is raw JSON when it came off a wire, and a struct or plain values in memory."""

    id: MessageId
    method: str
    params: Any = None


class Notification(Struct, frozen=True, omit_defaults=True):
    """Something told without an answer."""

    method: str
    params: Any = None


class Response(Struct, frozen=True):
    """The answer to the request with this id."""

    id: MessageId
    result: Any


class ErrorObject(Struct, frozen=True, omit_defaults=True):
    """JSON-RPC 2.0 section 5.1; `data.kind` is a stable word."""

    code: int
    message: str
    data: Any = None


class Failure(Struct, frozen=True):
    """The refusal of the request with this id, or of the connection itself when the id is null."""

    id: MessageId | None
    error: ErrorObject


Message = Request | Notification | Response | Failure


class RawError(Struct, frozen=True):
    """An `ErrorObject` as it came off a wire."""

    code: int
    message: str
    data: msgspec.Raw | UnsetType = UNSET


class Envelope(Struct, frozen=True):
    """Any message before it is known which: the first of the two decoding steps."""

    jsonrpc: msgspec.Raw | UnsetType = UNSET
    id: MessageId | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: msgspec.Raw | UnsetType = UNSET
    result: msgspec.Raw | UnsetType = UNSET
    error: RawError | UnsetType = UNSET


class Wire(Struct, frozen=True, rename="camel"):
    """The base of all parameters and results."""


class Nothing(Wire, frozen=True):
    """An empty object: no parameters, or a result that says no more than that it was done."""
