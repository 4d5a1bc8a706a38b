"""What a client asks for its connection when it greets: a name, to be kept, or one that was kept before."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

from msgspec import UNSET

from execsrv._wire.codecs import decode_params
from execsrv.client.parameters import seconds, string
from execsrv.errors import InvalidParamsError
from execsrv.protocol import Initialize, Initialized, Keep, Response, SizePolicy
from execsrv.protocol.messages import MSGPACK

Kept = float | Literal["untilIdle"] | None


class Wishes(NamedTuple):
    """The parts of the greeting that are a client's own choice."""

    client_name: str = "execsrv"
    name: str | None = None
    keep: Keep | None = None
    resume: str | None = None
    size_policy: SizePolicy = "owner"

    def hello(self, token: str | None) -> Initialize:
        """Return the first greeting."""
        return Initialize(self.client_name, self.resume, token, self.name, self.keep, self.size_policy)

    def hello_again(self, id: str, token: str | None) -> Initialize:
        """Return the greeting that takes the connection of that id up again."""
        return Initialize(self.client_name, id, token)

    def let_end(self, greeted: Initialized) -> bool:
        """Return whether a connection that would wait for its client is to end with it: nobody wanted to come back."""
        return self.keep is None and self.resume is None and greeted.resume_grace_ms is not UNSET


def names_msgpack(answer: Response) -> bool:
    """Tell whether an answer to a greeting says that all behind it is msgpack."""
    try:
        return decode_params(answer.result, Initialized).encoding == MSGPACK
    except InvalidParamsError:  # which is for who has asked
        return False


WISHES = Wishes()
"""Nothing is asked for."""


def wishes(name: str | None, keep: Kept, resume: str | None, size_policy: SizePolicy) -> Wishes:
    """Return the wishes of a user. Raises `InvalidParamsError` and `TypeError`."""
    if name is not None:
        string("name", name)
    if resume is not None:
        if name is not None:
            raise InvalidParamsError("resume: a connection that is taken up again has its name", field="resume")
        string("resume", resume)
    if size_policy not in get_args(SizePolicy):
        expected = ", ".join(f'"{policy}"' for policy in get_args(SizePolicy))
        raise InvalidParamsError(f"size_policy must be one of {expected}, got {size_policy!r}", field="size_policy")
    if isinstance(keep, str):
        if keep != "untilIdle":
            raise InvalidParamsError(f'keep must be a number of seconds or "untilIdle", got {keep!r}', field="keep")
        return Wishes(name=name, keep=keep, resume=resume, size_policy=size_policy)
    if keep is None:
        return Wishes(name=name, resume=resume, size_policy=size_policy)
    if seconds("keep", keep) == math.inf:
        raise InvalidParamsError('keep must be a number of seconds or "untilIdle", got inf', field="keep")
    return Wishes(name=name, keep=math.ceil(keep), resume=resume, size_policy=size_policy)
