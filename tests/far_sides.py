"""Places that `connect` reaches by another program: a real OpenSSH server on loopback, and stand-ins for the others.

The stand-ins are no containers. They take the command lines of `docker exec`, `podman exec` and `kubectl exec`, refuse
every other one in the words of the real programs, and run the command on this machine, with an environment of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:" + os.environ["PATH"])
SSH = shutil.which("ssh")  # found once: a test puts another one in front of it
ROOT = Path(__file__).parent.parent
CONTAINERS = {"docker": "docker://box", "podman": "podman://box", "kubectl": "kubectl://space/box/part"}

_CONTAINER = """\
#!/bin/sh
[ "$1 $2" = "exec -i" ] || { echo "unknown flag: $*" >&2; exit 125; }
[ "$3" = box ] || { echo "Error response from daemon: No such container: $3" >&2; exit 1; }
shift 3
"""
_POD = """\
#!/bin/sh
[ "$1 $2 $3 $4" = "exec -i --namespace=space --container=part" ] || { echo "error: unknown flag: $*" >&2; exit 1; }
[ "$5 $6" = "box --" ] || { echo "Error from server (NotFound): pods \\"$5\\" not found" >&2; exit 1; }
shift 6
"""


class FarSide:
    """A place with a PATH of its own, which holds what a test puts there, and a folder for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "far programs"
        self.temporary = folder / "temporary"
        self.near = folder / "near"
        for made in (self.programs, self.temporary, self.near):
            made.mkdir()
        (self.programs / "sh").symlink_to("/bin/sh")
        for name in ("sleep", "bash", "setsid", "cat"):
            (self.programs / name).symlink_to(str(shutil.which(name)))
        self.environment = {"PATH": str(self.programs), "TMPDIR": str(self.temporary), "HOME": str(folder)}
        self.environment["EXECSRV_ALLOW_DEBUGGING"] = "true"  # who is not root looks into the servers' processes

    def has(self, name: str, script: str, where: Path | None = None) -> None:
        """Put a script into the far PATH, or elsewhere."""
        path = (where or self.programs) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def has_execsrv(self, where: Path | None = None) -> None:
        """Install execsrv there."""
        line = f'PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m execsrv "$@"'
        self.has("execsrv", line, where)

    def has_python(self) -> None:
        """Install this Python there, with its standard library alone."""
        self.has("python3", f'exec {shlex.quote(sys.executable)} -S "$@"')

    def stand_in(self, program: str) -> str:
        """Put a stand-in for a program into the near PATH. Return the URL of the place that it leads to."""
        self._lead(program, _POD if program == "kubectl" else _CONTAINER, '"$@"')
        return CONTAINERS[program]

    def stand_in_for_ssh(self) -> str:
        """Put one for ssh there, which hands its last word to a shell as one text. Return the URL of the host."""
        self._lead("ssh", "#!/bin/bash\n", 'bash -c "${@: -1}"')
        return "ssh://host"

    def _lead(self, program: str, check: str, words: str) -> None:
        environment = shlex.join(["env", "-i", *(f"{name}={value}" for name, value in self.environment.items())])
        path = self.near / program
        path.write_text(f"{check}exec {environment} {words}\n")
        path.chmod(0o755)


class SshServer:
    """A real OpenSSH server on a port of loopback, with keys of its own, and an `ssh` that knows them."""

    def __init__(self, far: FarSide) -> None:
        assert SSHD is not None
        self.far = far
        self.port = 0
        self._folder = folder = far.folder / "ssh"
        folder.mkdir(mode=0o700)
        for name in ("host", "user", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        settings = " ".join(f'"{name}={value}"' for name, value in far.environment.items())
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPidFile none\n"
            f"PasswordAuthentication no\nSetEnv {settings}\nBanner {folder}/banner\n"
        )
        (folder / "banner").write_text("Welcome, whoever you are.\n")
        self.knows("host")
        self.uses("user")

    def knows(self, key: str | None) -> None:
        """Let the client know the server by a key."""
        line = "" if key is None else "far " + " ".join((self._folder / f"{key}.pub").read_text().split()[:2])
        (self._folder / "known").write_text(f"{line}\n")

    def uses(self, key: str) -> None:
        """Let the client be known by a key."""
        config = self._folder / "ssh_config"
        config.write_text(
            f"HostKeyAlias far\nUserKnownHostsFile {self._folder}/known\nGlobalKnownHostsFile /dev/null\n"
            f"IdentityFile {self._folder}/{key}\nIdentitiesOnly yes\nIdentityAgent none\n"
        )
        self.far.has("ssh", f'exec {SSH} -F {shlex.quote(str(config))} "$@"', self.far.near)

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve ssh: each connection has a process of its own, which ends with it."""
        if os.getuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # or it refuses to run
        with trio.socket.socket() as listener:
            await listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.port = listener.getsockname()[1]
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    connection, _ = await listener.accept()
                    nursery.start_soon(self._serve_one, connection)

    async def _serve_one(self, connection: trio.socket.SocketType) -> None:
        assert SSHD is not None
        with connection:
            process = await trio.lowlevel.open_process(
                [SSHD, "-i", "-f", str(self._folder / "sshd_config"), "-E", str(self._folder / "log")],
                stdin=connection.fileno(),
                stdout=connection.fileno(),
                stderr=subprocess.DEVNULL,
            )
        try:
            await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.terminate()
                await process.wait()

    @property
    def url(self) -> str:
        """The URL of the far side."""
        return f"ssh://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """All that the server has said."""
        return (self._folder / "log").read_text()


needs_sshd = pytest.mark.skipif(SSHD is None, reason="no OpenSSH server here (`apt-get install openssh-server`)")
