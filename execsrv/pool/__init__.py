"""The pool: many servers as one. Use it through `execsrv.Pool`.

`asking` asks the directory, `members` keeps up with what it says, and a `member` is one server. `scheduler` chooses the
server of a command, and `retrying` tries another where it did not start, as a `lease` does for itself; `refusals` knows
who had no room.
"""

from execsrv.pool.lease import Lease
from execsrv.pool.pool import Pool

__all__ = ["Lease", "Pool"]
