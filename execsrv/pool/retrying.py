"""One command on its way: to a server that has room, elsewhere where that did not start it, and not too often."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from msgspec import structs

from execsrv.client.parameters import Path, words
from execsrv.client.result import Result
from execsrv.errors import BadAnswerError, CommandError, ConnectionLostError, RequestError, Unknown
from execsrv.pool.labels import labels_of
from execsrv.pool.member import Member
from execsrv.pool.members import Members
from execsrv.pool.refusals import Refusals, had_no_room


class Sending:
    """A command that is to be run `runs` times at most: again where its end is unknown."""

    def __init__(self, members: Members, labels: Mapping[str, str] | None, share: Hashable, runs: int) -> None:
        self._members = members
        self._labels = labels_of(labels)
        self._share = share
        self._runs = runs
        self._refusals = Refusals(members.patience)

    async def run(self, argv: Sequence[Path], options: dict[str, Any]) -> Result[Any]:
        """Return the result. Raises as `Pool.run` does."""
        command = words(argv)  # once: an iterator has no second time
        is_back = False
        while True:
            member = await self._members.take(self._labels, self._share, first=is_back)
            is_back = True
            try:
                line = member.line
                if line is None:
                    continue  # it was lost since
                try:
                    result = await line.run(command, **options)
                except ConnectionLostError as lost:
                    why = member.has_lost(line, str(lost))
                    self._may_have_run(command, member, lost, f"was lost: {why}")
                except BadAnswerError as wrong:
                    member.had_no_room(str(wrong))
                    self._may_have_run(command, member, wrong, f"is not understood: {wrong}")
                    self._refusals.add(wrong)
                except RequestError as error:
                    if not had_no_room(error):
                        error.server = str(member)
                        raise
                    member.had_no_room(str(error))
                    self._refusals.add(error)
                except CommandError as error:
                    error.server = str(member)
                    raise
                else:
                    member.has_run()
                    return structs.replace(result, server=str(member))
            finally:
                member.give()

    def _may_have_run(
        self, command: list[str], member: Member, error: ConnectionLostError | BadAnswerError, why: str
    ) -> None:
        """Count a run whose end is not known. Raises `Unknown` where it was the last."""
        if error.process is None:
            return
        self._runs -= 1
        if not self._runs:
            raise Unknown(
                command, server=str(member), process=error.process, why=why, stdout=error.stdout, stderr=error.stderr
            ) from error
