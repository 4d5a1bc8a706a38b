"""The program: `python -m execsrv` is `execsrv`."""

import gc
import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # As any program: an interrupt before somebody listens ends us without a word, wherever we are.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if gc.isenabled():
    # To look again and again at what is being loaded takes a tenth of the start. The command line goes on with it.
    gc.disable()

from execsrv._cli.app import main

if __name__ == "__main__":
    main()
