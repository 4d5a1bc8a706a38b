"""What a contributor runs: `nox` for everything that must pass, `nox -s tests -- -k word` for some of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, with the package installed as its users install it."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


CODEX = "@openai/codex@0.171.0"


@nox.session
def interop(session: nox.Session) -> None:
    """The stock Codex CLI with execsrv as its exec-server. Takes the CLI from `EXECSRV_CODEX`, the PATH or npm."""
    session.install(".[test]")
    env = {}
    if "EXECSRV_CODEX" not in os.environ and shutil.which("codex") is None:
        if shutil.which("npm") is None:
            session.skip("no Codex CLI and no npm to get it: set EXECSRV_CODEX, or have `codex` or `npm` on the PATH")
        folder = session.create_tmp()
        session.run("npm", "install", "--no-save", "--no-fund", "--no-audit", "--prefix", folder, CODEX, external=True)
        # The program itself: what npm puts on the PATH is a script that needs node.
        [program] = Path(folder).glob("node_modules/@openai/codex-*/vendor/*/bin/codex")
        env["EXECSRV_CODEX"] = str(program.absolute())
    session.run("pytest", "tests/interop", *session.posargs, env=env)


@nox.session
def survivors(session: nox.Session) -> None:
    """Every escape with every ending, in every placement: as root, without control groups, as an ordinary user."""
    session.install(".[test]")
    session.run("pytest", "--all-survivors", "tests/test_survivors.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Branch coverage of what runs in the tests' own process."""
    session.install("-e", ".[test]")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "report", "--show-missing", "--skip-covered")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, imports and likely mistakes."""
    session.install("ruff>=0.15")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, on the package and on its tests."""
    session.install("mypy>=1.15", "nox", "-e", ".[test]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, in which every warning is an error."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "-n", "-q", "-b", "html", "docs", "docs/_build/html")


@nox.session
def bench(session: nox.Session) -> None:
    """The figures that we claim: `nox -s bench -- --help`."""
    session.install(".")
    session.run("python", "tests/benchmarks/bench.py", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Faults of the machine, of the network and of peers, each with a neighbour who must not notice anything."""
    session.install(".[test]")
    session.run("pytest", "tests/faults", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Mixed sessions for ten minutes, or `-- --minutes N`, and what a server has grown by."""
    session.install(".[test]")
    session.run("python", "-m", "tests.faults.soak", *session.posargs)
