"""The checks of this project: `nox` runs all that must pass, `nox -s tests -- -k word` a part of the tests."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "types", "docs", "wheel"]
nox.options.reuse_existing_virtualenvs = True
# An interpreter that is missing is passed over, in CI too, and none is fetched. The one that runs nox is always there,
# so `nox -s tests` never runs nothing.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"
PYTHONS = list(dict.fromkeys(["3.11", "3.12", "3.13", "3.14", f"{sys.version_info.major}.{sys.version_info.minor}"]))

# Tests start thousands of programs of ours, and each would compile what it imports once more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

BESIDE = ("docs", "inspect", "ray", "swe-rex")
"""Extras that the test suite does without."""

SPREAD = ["-n", "4", "--dist", "worksteal"]
"""Most tests wait for other processes: so four at a time, on two processors."""


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite; a sample of it is measured, and the coverage has a floor."""
    session.install(".[test]")
    if session.posargs:
        session.run("pytest", *session.posargs)
    else:
        _run_measured(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """The test suite, with every test and every process that it starts measured."""
    session.install(".[test]")
    _run_measured(session, "--measure-all", floor=88)


def _run_measured(session: nox.Session, *options: str, floor: int = 73) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # a test may have become another user
        env = {"COVERAGE_FILE": f"{folder}/data"}
        session.run("pytest", "--collect-only", "-q", silent=True)  # compiles the tests once, and not in each process
        session.run("coverage", "run", "-m", "pytest", *SPREAD, *options, env=env)
        session.run("coverage", "combine", "--quiet", env=env)
        session.run("coverage", "report", f"--fail-under={floor}", env=env)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The test suite with the lowest version that pyproject.toml admits of each package."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = [extra for name, extra in project["optional-dependencies"].items() if name not in BESIDE]
    named = [requirement for group in (project["dependencies"], *extras) for requirement in group]
    pinned = [requirement.replace(">=", "==") for requirement in named if not requirement.startswith("execsrv[")]
    session.install(".", *pinned)
    # The text of a schema is another with every msgspec; the schema in docs is the newest one's.
    text_of_a_schema = "tests/test_docs.py::test_the_schema_is_that_of_the_structs"
    session.run("pytest", "--deselect", text_of_a_schema, *(session.posargs or SPREAD))


@nox.session
def slow(session: nox.Session) -> None:
    """The test suite with the tests that take too long for every day."""
    session.install(".[test]")
    session.run("pytest", "--slow", *(session.posargs or SPREAD))


@nox.session
def survivors(session: nox.Session) -> None:
    """Every escape with every ending, in every placement: as root, without control groups, as an ordinary user."""
    session.install(".[test]")
    files = [f"tests/test_{which}survivors.py" for which in ("", "confine_", "runner_")]
    session.run("pytest", "--all-survivors", "--slow", *files, *session.posargs)


@nox.session
def kernel(session: nox.Session) -> None:
    """Limits by control groups of version 2, on a kernel that runs as a program here, where there is `linux.uml`."""
    session.install(".[test]")
    session.run(
        "python", "-m", "tests.uml", "tests/test_process_limits.py", "tests/test_limits_cli.py", *session.posargs
    )


CODEX = "@openai/codex@0.171.0"


@nox.session
def interop(session: nox.Session) -> None:
    """The stock Codex CLI with execsrv as its exec-server. Takes the CLI from `CODEX_CLI`, the PATH or npm."""
    session.install(".[test]")
    env = {}
    if "CODEX_CLI" not in os.environ and shutil.which("codex") is None:
        if shutil.which("npm") is None:
            session.skip("no Codex CLI and no npm to get it: set CODEX_CLI, or have `codex` or `npm` on the PATH")
        folder = session.create_tmp()
        session.run("npm", "install", "--no-save", "--no-fund", "--no-audit", "--prefix", folder, CODEX, external=True)
        # The program itself: what npm puts on the PATH is a script that needs node.
        [program] = Path(folder).glob("node_modules/@openai/codex-*/vendor/*/bin/codex")
        env["CODEX_CLI"] = str(program.absolute())
    session.run("pytest", "tests/interop", *session.posargs, env=env)


SWE_REX = "1.4.0"


@nox.session
def neighbours(session: nox.Session) -> None:
    """The suites of the frameworks that execsrv has adapters for, on asyncio and on trio."""
    session.install(".[inspect,swe-rex]", "pytest", "pytest-timeout")
    ours = ["-c", os.devnull, "--rootdir", ".", "--noconftest"]  # without the settings of our own suite
    session.run("pytest", *ours, "tests/neighbours", *session.posargs)
    if session.posargs:
        return

    # SWE-ReX has its tests in its source archive alone. They get a runtime of ours from a conftest.py of ours.
    folder = Path(session.create_tmp()).absolute()
    named = f"swe_rex-{SWE_REX}"
    given = ["--no-deps", "--no-binary", "swe-rex", "--dest", str(folder), f"swe-rex=={SWE_REX}"]
    session.run("pip", "download", "-q", *given)
    with tarfile.open(folder / f"{named}.tar.gz") as archive:
        archive.extract(f"{named}/tests/test_execution.py", folder, filter="data")
    theirs = folder / named / "tests"
    (theirs / "__init__.py").touch()
    shutil.copy("tests/neighbours/swe_rex_fixtures.py", theirs / "conftest.py")
    alone = ["-c", os.devnull, "--rootdir", str(theirs), "-o", "anyio_mode=auto"]
    session.run("pytest", *alone, str(theirs))


@nox.session(name="ray")
def on_ray(session: nox.Session) -> None:
    """Servers on a real Ray cluster of three nodes on this machine, and on a Dask cluster, and what dies with what."""
    session.install(".[test,ray]", "distributed")
    session.run("pytest", "-o", "filterwarnings=", "tests/ray", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Faults of the machine, of the network and of peers, each with a neighbour who must not notice anything."""
    session.install(".[test]")
    session.run("pytest", "tests/faults", *session.posargs)


@nox.session
def attack(session: nox.Session) -> None:
    """All attacks on a server, and what its neighbours have measured meanwhile."""
    session.install(".[test]")
    session.run("pytest", "--slow", "tests/attack", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Mixed sessions for ten minutes, or `-- --minutes N`, and what a server has grown by."""
    session.install(".[test]")
    session.run("python", "-m", "tests.faults.soak", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Mutated conversations for ten minutes, or `-- --minutes N`, or those of a file again: `-- --replay FILE`."""
    session.install(".[test]")
    if not session.posargs:
        # Where there is a wheel of it: it is built for some versions of Python only.
        session.run("pip", "install", "-q", "--only-binary", ":all:", "atheris", success_codes=[0, 1], silent=True)
        session.run("python", "-m", "tests.fuzz.decoding", "--minutes", "1")
    session.run("python", "-m", "tests.fuzz", *(session.posargs or ["--minutes", "10"]))


@nox.session
def browser(session: nox.Session) -> None:
    """The pages of recordings, played in a real Chromium, which has to be on the PATH."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))):
        session.error("no Chromium on the PATH")
    session.install(".[test]")
    session.run("pytest", "tests/test_record.py", "-k", "browser", *session.posargs)


@nox.session
def reach(session: nox.Session) -> None:
    """Servers by ssh and in containers. OpenSSH's server has to be there; a Docker may be, beside the stand-ins."""
    if shutil.which("sshd", path=f"/usr/sbin:/usr/local/sbin:/sbin:{os.environ['PATH']}") is None:
        session.error("no OpenSSH server (`apt-get install openssh-server`)")
    session.install(".[test]")
    session.run("pytest", "tests/test_reach.py", "tests/test_docker.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The figures that we claim: `nox -s bench -- --help`."""
    session.install(".")
    session.run("python", "tests/benchmarks/bench.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, imports and likely mistakes."""
    session.install("ruff>=0.15")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, on the package and its tests; pyright, strict, on what users of the package write."""
    session.install("mypy>=1.15", "nox", "-e", ".[test]")
    session.run("mypy")
    if Path("tests/typing").is_dir():
        session.install("pyright[nodejs]>=1.1.400")
        session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, in which every warning is an error."""
    from execsrv.testing.nox import server, session_run  # only this session needs execsrv beside nox

    session.install("-e", ".[docs]")
    with server(session) as url:
        build = ["sphinx-build", "-W", "-n", "-q", "-b", "html", "docs", "docs/_build/html"]
        session_run(session, url, *build, timeout=600)


@nox.session
def wheel(session: nox.Session) -> None:
    """The release: its archives are in order, and the wheel alone, in an empty environment, runs a command."""
    session.install("build", "twine")
    folder = Path(session.create_tmp()).absolute()
    dist, empty = folder / "dist", folder / "empty"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist))
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))

    [archive] = dist.glob("*.whl")
    names = zipfile.ZipFile(archive).namelist()
    information = "-".join(archive.name.split("-")[:2]) + ".dist-info"
    manual = information.replace(".dist-info", ".data") + "/data/share/man/man1/execsrv.1"
    foreign = [name for name in names if name.split("/")[0] not in ("execsrv", information) and name != manual]
    missing = {"execsrv/py.typed", f"{information}/licenses/LICENSE", manual} - set(names)
    if foreign or missing:
        session.error(f"the wheel has {foreign} and lacks {missing}")

    session.run("python", "-m", "venv", "--clear", str(empty))
    python = str(empty / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", str(archive), external=True)
    # `-I`: not the checkout, which is the current directory.
    session.run(python, "-I", "-c", "import execsrv", external=True)
    session.run(str(empty / "bin" / "execsrv"), "--version", external=True)
    session.run(str(empty / "bin" / "execsrv"), "run", "--", "true", external=True)
