"""The system calls of containment that this machine refuses to this process, for the log and for `execsrv doctor`."""

from __future__ import annotations

import errno

from execsrv._processes import pidfd, rlimit_mark, subreaper


def refusals() -> dict[str, str]:
    """Return the calls that are refused here, each with the name of its error. They are tried on this process.

    Without `pidfd_open` nobody can say whether `pidfd_send_signal` is.
    """
    tried = {
        "pidfd_open": pidfd.open_refusal(),
        "pidfd_send_signal": 0 if pidfd.open_refusal() else pidfd.send_refusal(),
        "prlimit64": rlimit_mark.refusal(),
        "prctl(PR_SET_CHILD_SUBREAPER)": subreaper.refusal(),
    }
    return {call: errno.errorcode.get(number, f"errno {number}") for call, number in tried.items() if number}
