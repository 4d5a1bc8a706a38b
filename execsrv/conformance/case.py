"""One case: a sentence about what a server does, and the conversation that shows whether it is so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import trio
from msgspec import Struct

from execsrv.conformance.reaching import open_texts
from execsrv.conformance.talk import Talk

Kind = Literal["ok", "differs", "absent", "no answer"]


class Stage:
    """The place of one case: the server, and the connections that the case opens."""

    def __init__(self, url: str, token: str | None, nursery: trio.Nursery) -> None:
        self.url = url
        self._token = token
        self._nursery = nursery

    @property
    def listens(self) -> bool:
        """True where one may connect to the same server again."""
        return not self.url.startswith("exec:")

    async def connect(self) -> Talk:
        """Open a connection, before its handshake."""
        talk: Talk = await self._nursery.start(self._speak)
        return talk

    async def _speak(self, *, task_status: trio.TaskStatus[Talk]) -> None:
        async with open_texts(self.url, self._token) as texts:
            talk = Talk(texts)
            task_status.started(talk)
            await talk.listen()

    async def talk(self) -> Talk:
        """Open a connection that is ready for calls."""
        talk = await self.connect()
        await talk.greet()
        return talk


Conversation = Callable[[Stage], Awaitable[None]]


class Case(Struct, frozen=True):
    """A sentence about a server, in one of the suites."""

    suite: str
    name: str
    title: str
    conversation: Conversation


class Verdict(Struct, frozen=True):
    """The stand of a server to one case. `why` says what it did instead, or what it lacks."""

    case: Case
    kind: Kind
    why: str = ""


class Suite:
    """The cases about one part of the protocol."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: list[Case] = []

    def __call__(self, conversation: Conversation) -> Conversation:
        """Take in a case. The first line of its docstring is the sentence."""
        title = (conversation.__doc__ or "").partition("\n")[0].rstrip(".")
        name = getattr(conversation, "__name__", "")
        self.cases.append(Case(self.name, name, title, conversation))
        return conversation
