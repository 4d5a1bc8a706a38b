"""The pool: many servers as one. Use it through `execsrv.Pool`."""

from execsrv.pool.lease import Lease
from execsrv.pool.pool import Pool

__all__ = ["Lease", "Pool"]
