"""The facts of a process that its client knows, without asking anybody."""

from __future__ import annotations

from execsrv._log.entries import Closed
from execsrv.client.mirror import Mirror
from execsrv.protocol import Reason
from execsrv.protocol.sandbox import Denial


class Facts:
    """A process as far as it is known."""

    def __init__(self, mirror: Mirror, argv: list[str], pid: int | None) -> None:
        self._mirror = mirror
        self._argv = argv
        self._pid = pid

    def __repr__(self) -> str:
        state = "closed" if self.closed else "exited" if self._mirror.exited else "running"
        return f"<Process {self.id} {state} pid={self.pid}>"

    @property
    def id(self) -> str:
        """Name of the process in `process/*`."""
        return self._mirror.id

    @property
    def argv(self) -> list[str]:
        """Command as it was started."""
        return list(self._argv)

    @property
    def pid(self) -> int | None:
        """Pid of the leader, on the server's machine. None if the server does not report it."""
        return self._pid

    @property
    def exit_code(self) -> int | None:
        """Exit code of the leader, 128+N after its death by signal N. None while it runs."""
        return self._mirror.exited.exit_code if self._mirror.exited else None

    @property
    def denial(self) -> Denial | None:
        """Why its failure is put down to its confinement. None if it is not, and while it runs."""
        return self._mirror.exited.denial if self._mirror.exited else None

    @property
    def returncode(self) -> int | None:
        """Exit code of the leader as `subprocess` has it: -N after its death by signal N. None while it runs."""
        exited = self._mirror.exited
        return None if exited is None else 128 - exited.exit_code if exited.signal else exited.exit_code

    @property
    def signal(self) -> str | None:
        """Name of the signal that the leader died of, such as "SIGKILL". None if it did not, and while it runs."""
        return self._mirror.exited.signal if self._mirror.exited else None

    @property
    def reason(self) -> Reason | None:
        """Cause of the leader's end: "exited", "signaled", or why the server ended it. None while it runs."""
        return self._mirror.exited.reason if self._mirror.exited else None

    @property
    def closed(self) -> Closed | None:
        """End of everything: how much each stream carried and what lives on. None before."""
        return self._mirror.closed
