"""A server of this protocol, looked at from outside: what it does as it is described, what otherwise, what it has not.

    for verdict in trio.run(check, "ws://127.0.0.1:8765"):
        print(verdict.kind, verdict.case.title, verdict.why)

It speaks to the server with nothing of execsrv in between: its own sockets, and the text of JSON. `execsrv conformance`
prints the verdicts. What is expected is what docs/protocol.md and docs/files.md say.
"""

from execsrv.conformance.case import Case, Verdict
from execsrv.conformance.checking import cases, check

__all__ = ["Case", "Verdict", "cases", "check"]
