"""The places that `connect` reaches by another program, and the command line of that program. Pure: nothing is run.

`ssh://[USER@]HOST[:PORT][/DIRECTORY]`, `docker://CONTAINER`, `podman://CONTAINER`,
`kubectl://[NAMESPACE/]POD[/CONTAINER]` and `exec:COMMAND`. Every part is checked before anything starts, so that no
name can be taken for an option, and nothing of a name for a word of a shell.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from dataclasses import dataclass
from urllib.parse import unquote

from execsrv.errors import InvalidListenURLError

_FORMS = {
    "ssh": "ssh://[USER@]HOST[:PORT][/DIRECTORY]",
    "docker": "docker://CONTAINER",
    "podman": "podman://CONTAINER",
    "kubectl": "kubectl://[NAMESPACE/]POD[/CONTAINER]",
    "exec": "exec:COMMAND",
}
FORMS = tuple(_FORMS.values())
"""The URLs that are understood here, for people."""

_SSH_OPTIONS = (
    # No terminal, since the protocol is no text to be typed.
    "-T",
    # Nobody can answer: ssh has no terminal of ours.
    "-oBatchMode=yes",
    # Those of the configuration are for sessions that people open.
    "-oClearAllForwardings=yes",
    "-oRemoteCommand=none",
)

_SSH = re.compile(r"(?:(?P<user>[^@/]*)@)?(?P<host>\[[^\]/]*\]|[^:/@\[\]]*)(?::(?P<port>[^/]*))?(?P<path>/.*)?", re.S)
_USER = re.compile(r"[\w.][\w.@+$\\-]*", re.A)
_HOST = re.compile(r"\w[\w.-]*", re.A)
_CONTAINER = re.compile(r"[a-zA-Z0-9][\w.-]*", re.A)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_POD = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_CONTROL = re.compile(r"[\0-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class FarShell:
    """A shell on another machine, or in a container. `words` are the command line that runs what follows it.

    ssh hands the `login_shell` there one text, the others pass words. `directory` is where the server is to run, None
    for where one gets there; below the home directory it begins with `~/`.
    """

    url: str
    program: str
    words: tuple[str, ...]
    login_shell: bool = False
    directory: str | None = None

    def command(self, script: str) -> list[str]:
        """Return the command line that runs a script of sh(1) there. The script is one line."""
        if self.login_shell:
            return [*self.words, f"exec sh -c {shlex.quote(script)}"]
        return [*self.words, "sh", "-c", script]


def is_reached(url: str) -> bool:
    """Return True for a URL of a place that another program leads to."""
    return url.startswith(tuple(f"{scheme}:" for scheme in _FORMS))


def parse_exec(url: str) -> list[str] | None:
    """Return the words of `exec:COMMAND`, None for another URL. Raises `InvalidListenURLError`."""
    if not url.startswith("exec:"):
        return None
    try:
        words = shlex.split(url.removeprefix("exec:"))
    except ValueError as error:
        raise _invalid(url, "exec", str(error).lower()) from None
    if not words:
        raise _invalid(url, "exec", "there is no command")
    return words


def parse_shell(url: str) -> FarShell:
    """Return the place of a URL for which `is_reached`, but for `exec:`. Raises `InvalidListenURLError`."""
    scheme, colon, rest = url.partition("://")
    if not colon:
        scheme = url.partition(":")[0]
        raise _invalid(url, scheme, "there is no `//`")
    if _CONTROL.search(unquote(url)):
        raise _invalid(url, scheme, "it has a control character")
    if "?" in rest or "#" in rest:
        raise _invalid(url, scheme, "`?` and `#` are written `%3F` and `%23`")
    if scheme == "ssh":
        return _ssh(url, rest)
    if scheme == "kubectl":
        return _kubectl(url, rest)
    if not _CONTAINER.fullmatch(rest):
        raise _invalid(url, scheme, "that is no name of a container")
    return FarShell(url, scheme, (scheme, "exec", "-i", rest))


def _ssh(url: str, rest: str) -> FarShell:
    found = _SSH.fullmatch(rest)
    if found is None or (found["port"] or "").count(":"):
        raise _invalid(url, "ssh", "an IPv6 address needs brackets" if rest.count(":") > 1 else "")
    user, host, port = found["user"], unquote(found["host"]), found["port"]
    options = list(_SSH_OPTIONS)
    if user is not None:
        if ":" in user:
            raise _invalid(url, "ssh", "a password in it is not used: ssh takes keys and agents")
        user = unquote(user)
        if not _USER.fullmatch(user):
            raise _invalid(url, "ssh", "that is no name of a user")
        options += ["-l", user]
    if host.startswith("["):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _invalid(url, "ssh", "that is no IPv6 address") from None
        if not re.fullmatch(r"[\w.:%-]+", host, re.A):
            raise _invalid(url, "ssh", "that is no IPv6 address")
    elif not _HOST.fullmatch(host):
        raise _invalid(url, "ssh", "that is no name of a host" if host else "there is no host")
    if port is not None:
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise _invalid(url, "ssh", "a port is a number from 1 to 65535")
        options += ["-p", port]
    path = unquote(found["path"] or "/")
    if path == "/~":
        path = "/~/"
    directory = None if path == "/" else path.removeprefix("/") if path.startswith("/~/") else path
    return FarShell(url, "ssh", ("ssh", *options, "--", host), login_shell=True, directory=directory)


def _kubectl(url: str, rest: str) -> FarShell:
    parts = rest.split("/")
    namespace, pod, container = {
        1: ("", rest, ""),
        2: (parts[0], parts[-1], ""),
        3: (parts[0], parts[1 % len(parts)], parts[-1]),
    }.get(len(parts), ("", "", ""))
    if len(parts) == 2 and not namespace:
        raise _invalid(url, "kubectl", "there is no namespace")
    if not _POD.fullmatch(pod):
        raise _invalid(url, "kubectl", "that is no name of a pod")
    options = []
    for option, name in (("namespace", namespace), ("container", container)):
        if name and not _LABEL.fullmatch(name):
            raise _invalid(url, "kubectl", f"that is no name of a {option}")
        options += [f"--{option}={name}"] if name else []
    if len(parts) == 3 and not container:
        raise _invalid(url, "kubectl", "there is no container")
    return FarShell(url, "kubectl", ("kubectl", "exec", "-i", *options, pod, "--"))


def _invalid(url: str, scheme: str, why: str) -> InvalidListenURLError:
    text = f"invalid {scheme} --url `{url}`; expected `{_FORMS[scheme]}`"
    return InvalidListenURLError(f"{text}: {why}" if why else text)
