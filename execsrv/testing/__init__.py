"""Help for the tests of programs that start processes.

In pytest: `pytest_plugins = ["execsrv.testing.pytest_plugin"]`.
"""

from execsrv.testing.no_strays import assert_no_strays

__all__ = ["assert_no_strays"]
