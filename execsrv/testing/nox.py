"""A server for a session of nox, and commands of the session that run on it, or on one elsewhere.

    import nox
    from execsrv.testing.nox import server, session_run

    @nox.session
    def tests(session):
        session.install("-e", ".[test]")
        with server(session) as url:
            session_run(session, url, "pytest", timeout=600)

What a command leaves behind ends with it, and all else with the server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from execsrv.testing.running_server import ServerFailedError, serving

if TYPE_CHECKING:
    import nox


@contextmanager
def server(session: nox.Session, *options: str, listen: str = "unix://") -> Iterator[str]:
    """Run a server in a block, and give its URL. `options` are those of `execsrv serve`.

    Its commands have the environment of the session, and its programs first in their PATH. What the server says is
    shown when the block fails. `listen` is that of `execsrv.testing.serving`.
    """
    try:
        with serving(listen, *options, env=_environment(session)) as running:
            try:
                yield running.url
            except BaseException:
                if said := running.log.strip():
                    session.warn("the server said:\n%s", said)
                raise
    except ServerFailedError as error:
        session.error(str(error))


def session_run(
    session: nox.Session,
    url: str,
    *args: str | os.PathLike[str],
    env: Mapping[str, str | None] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    junit: str | None = None,
    **options: Any,
) -> Any:
    """Run a command of a session on the server at `url`, by `execsrv run`. Its output and its status come here.

    The variables of the session and those in `env` are set for it. As in `session.run`, what is None in `env` is unset
    (by env(1)), and the programs of the session go before its PATH. `cwd` is a path on the server's machine, and counts
    from where the server runs. `timeout` and `idle_timeout` are seconds; `junit` is the path of a report. Further
    keywords are those of `session.run`.
    """
    given = env or {}
    variables = {name: value for name, value in {**session.env, **given}.items() if value is not None}
    if "PATH" not in given:
        variables.pop("PATH", None)  # that of the server has the programs of the session
    words = [f"--url={url}", *(f"--env={name}" for name in variables)]
    unset = [word for name, value in given.items() if value is None for word in ("-u", name)]
    for name, value in (("cwd", cwd), ("timeout", timeout), ("idle-timeout", idle_timeout), ("junit", junit)):
        if value is not None:
            words.append(f"--{name}={value}")
    options.pop("external", None)  # it always is: `execsrv run`
    if options.pop("log", True):
        session.log(f"{' '.join(str(os.fspath(word)) for word in args)}  (at {url})")
    command = [sys.executable, "-m", "execsrv", "run", *words, "--", *(["env", *unset] if unset else []), *args]
    return session.run(*command, env=variables, external=True, log=False, **options)


def _environment(session: nox.Session) -> dict[str, str]:
    """Return what a command of the session has in its environment."""
    found = dict(os.environ)
    for name, value in session.env.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = value
    found["PATH"] = os.pathsep.join([*map(str, session.bin_paths or ()), found.get("PATH", os.defpath)])
    return found
