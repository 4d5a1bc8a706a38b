"""Run commands for other programs: start them, stream their output, feed their input, and leave nothing behind.

    import execsrv, trio

    async def main():
        async with execsrv.connect_in_process() as client:
            result = await client.run(["make", "-j8"], cwd="/src", timeout=600)
            print(result.exit_code, result.stdout)

    trio.run(main)

`connect_websocket`, `connect_unix`, `connect_stdio` and `launch` give the same client for a server elsewhere; `serve`
is the daemon. `execsrv.sync` and `execsrv.asyncio` are the same for plain code and asyncio. Every setting is in
`execsrv.limits`, the wire in `execsrv.protocol`.
"""

import sys

if sys.platform != "linux":
    raise ImportError(f"execsrv runs on Linux only, and this is {sys.platform}")

from execsrv._version import __version__ as __version__

TYPE_CHECKING = False  # as type checkers know it; `typing` would take as long as all else here
if TYPE_CHECKING:
    from pexpect import EOF as EOF
    from pexpect import TIMEOUT as TIMEOUT

    from execsrv import agents as agents
    from execsrv import asyncio as asyncio
    from execsrv import processes as processes
    from execsrv import record as record
    from execsrv import sync as sync
    from execsrv._api import *  # noqa: F403
    from execsrv._api import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        """Return a public name or module. The first brings in all of them: the command line does without most."""
        if not name.startswith("_") or name == "__all__":
            from importlib import import_module

            if name in ("agents", "asyncio", "processes", "record", "sync"):
                return import_module(f"execsrv.{name}")
            if name in ("EOF", "TIMEOUT"):  # which a program without a dialogue does not load
                return getattr(import_module("pexpect"), name)
            api = import_module("execsrv._api")  # `from execsrv import _api` would ask for it here
            globals().update({public: getattr(api, public) for public in [*api.__all__, "__all__"]})
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module 'execsrv' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
