"""`python -m execsrv` is `execsrv`."""

from execsrv._cli.app import main

main()
