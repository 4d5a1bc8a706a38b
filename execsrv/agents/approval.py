"""The operator's word on what a model may have done, where its calls come from outside: ask the user, or refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from execsrv.errors import ForbiddenError

_SHOWN_CHARACTERS = 2000
"""The most of a command that a question shows. A longer one is refused: nobody can approve what he does not see."""


class Approval(Struct, frozen=True, kw_only=True):
    """The calls that are done. With `ask` the user is asked before each, and before something is typed.

    With `only`, nothing runs but these programs, as words that no shell sees, and with no variables of the model's.
    """

    ask: bool = False
    only: tuple[str, ...] = ()

    @staticmethod
    def refusal(why: str) -> ForbiddenError:
        """Return the error that says so."""
        return ForbiddenError(f"refused: {why}")

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Raise `ForbiddenError` for a call that is not allowed, whoever approves of it."""
        if name != "exec_command" or not self.only:
            return
        command, allowed = arguments["cmd"], ", ".join(self.only)
        if isinstance(command, str):
            raise self.refusal(f"cmd must be a list of words here, of which the first is one of {allowed}")
        if not command or command[0] not in self.only:
            raise self.refusal(f"only these programs may be run: {allowed}")
        if arguments.get("env"):
            raise self.refusal("env may not be set here")

    def question(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        """Return what the user is to be asked before a call, None for nothing. Raises `ForbiddenError`."""
        if not self.ask or name not in ("exec_command", "write_stdin"):
            return None
        if name == "write_stdin" and not arguments.get("chars"):
            return None
        shown = arguments["cmd"] if name == "exec_command" else arguments["chars"]
        rest = {key: value for key, value in arguments.items() if key not in ("cmd", "chars") and value}
        text = json.dumps(shown, ensure_ascii=True)
        asked = f"Run {text}" if name == "exec_command" else f"Type {text}"
        asked += f" with {json.dumps(rest, ensure_ascii=True)}?" if rest else "?"
        if len(asked) > _SHOWN_CHARACTERS:
            raise self.refusal("the user is to be asked, and it is too long to be shown")
        return asked

    def check_approved(self, is_approved: bool) -> None:
        """Raise `ForbiddenError` where the user has not approved."""
        if not is_approved:
            raise self.refusal("the user does not want it")
