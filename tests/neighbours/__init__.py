"""Suites of the frameworks that execsrv has adapters for, run where they are installed: `nox -s neighbours`."""
