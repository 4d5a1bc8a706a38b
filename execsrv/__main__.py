"""`python -m execsrv` is `execsrv`."""

from execsrv.cli import main

main()
