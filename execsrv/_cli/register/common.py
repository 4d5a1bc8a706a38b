"""The options that many commands have: which server, and how to say things."""

from __future__ import annotations

from collections.abc import Iterable

from execsrv._cli.register.kinds import FILE, NUMBER, PERCENT, SIZE, SOME_TIME, SPAN, Option, named

PREFIX = "EXECSRV_"

URL_VARIABLE = PREFIX + "URL"
"""Names the server, where no option does."""

TOKEN_VARIABLE = PREFIX + "TOKEN"
TOKEN_FILE_VARIABLE = PREFIX + "TOKEN_FILE"
"""Give clients their token, or name the file that has it."""

CLIENT_VARIABLES = {
    name: f"{PREFIX}{name.upper()}"
    for name in ("ca_file", "client_certificate_file", "client_key_file", "client_allow_plain_network")
}
"""Say what protects a client on its way, where no option does: the files for TLS, or that there needs to be none."""

DEFAULT_URL = "unix://"
"""The server that is meant where none is named: that of `execsrv serve --listen unix://`."""

_FORMS = "ws://HOST:PORT, unix://PATH, ssh://[USER@]HOST, docker://CONTAINER, kubectl://POD and so on."


def url_option(default: str) -> Option:
    """Return the option that names the server."""
    return Option(
        ("--url", "-u"),
        f"The server: {_FORMS} Default: {URL_VARIABLE}, else {default}.",
        named("URL"),
        variable=URL_VARIABLE,
        title="Server",
    )


REACHING = (
    Option(
        ("--token-file",),
        f"The token that the server takes, in a file. Default: that in {TOKEN_VARIABLE}, or in the file that"
        f" {TOKEN_FILE_VARIABLE} names.",
        FILE,
        title="Server",
    ),
    Option(
        ("--reconnect",),
        "Try for that time to take a lost connection up again. A server of ws:// or unix:// needs a --resume-grace.",
        SPAN,
        default=0,
        title="Server",
    ),
    Option(
        ("--ca-file",),
        "The authorities whose servers are trusted by wss://, in PEM. Default: the machine's.",
        FILE,
        variable=CLIENT_VARIABLES["ca_file"],
        title="Server",
    ),
    Option(
        ("--certificate-file",),
        "The certificate that is shown to a server of wss:// that asks for one, in PEM.",
        FILE,
        variable=CLIENT_VARIABLES["client_certificate_file"],
        title="Server",
    ),
    Option(
        ("--key-file",),
        "Its private key. Default: it is in the certificate's file.",
        FILE,
        variable=CLIENT_VARIABLES["client_key_file"],
        title="Server",
    ),
    Option(
        ("--server-uid",),
        "Trust servers of this user too, on a unix socket and on the loopback, beside yours and root's. Repeatable.",
        named("UID", NUMBER),
        many=True,
        title="Server",
    ),
    Option(
        ("--allow-plain-network",),
        "Send the token to another machine by ws:// too: without TLS, anyone on the way can read and change it all.",
        variable=CLIENT_VARIABLES["client_allow_plain_network"],
        title="Server",
    ),
    Option(("--no-bring",), "Bring no execsrv along to a place that has none.", title="Server"),
)
"""The options of reaching a server, beside its URL."""

SERVER = (url_option("the socket of this user, as for `execsrv serve --listen unix://`"), *REACHING)
"""The options of a command that asks a server."""

POOL_OPTION = Option(
    ("--pool",),
    "The servers: a file that they have joined (`serve --join FILE`), their URLs with commas between, or"
    " ray://NAME, dns://HOST:PORT, kubernetes://NAMESPACE/SELECTOR. Takes precedence over --url.",
    named("POOL", complete="files"),
    title="Server",
)

LABEL_OPTION = Option(
    ("--label", "-l"),
    "Only on servers of the pool with that label. Repeatable.",
    named("NAME=VALUE"),
    many=True,
    title="Server",
)


def coming_back(options: Iterable[Option], text: str, seconds: float) -> tuple[Option, ...]:
    """Return options of reaching a server for a command that by default tries for that time to come back."""
    return tuple(
        Option(option.names, text, option.kind, default=seconds, title=option.title)
        if option.key == "reconnect"
        else option
        for option in options
    )


CONFINING = (
    Option(
        ("--sandbox",),
        "Let it write no files (`read-only`), or only in DIR, by default its directory, and in temporary ones"
        " (`workspace-write`). The network stays open without --no-network.",
        named("read-only|workspace-write[:DIR]"),
        title="Confinement",
    ),
    Option(("--read-only",), "As --sandbox read-only.", title="Confinement"),
    Option(("--no-network",), "Take the network away, and every socket to another program.", title="Confinement"),
    Option(("--hide",), "Hide a file or a folder. Repeatable.", FILE, many=True, title="Confinement"),
    Option(
        ("--or-landlock",),
        "Accept less on a machine without namespaces: what Landlock alone can enforce. A server has to permit that"
        " (--allow-landlock-only).",
        title="Confinement",
    ),
)
"""The options of what commands may do."""

LIMITING = (
    Option(("--limit-memory",), "Memory and swap of all its processes. More gets one killed.", SIZE, title="Limits"),
    Option(("--limit-processes",), "Processes and threads at a time, all together.", NUMBER, title="Limits"),
    Option(
        ("--limit-cpu",),
        "Share of the processors for all its processes: 100% is one. More makes them wait.",
        PERCENT,
        title="Limits",
    ),
    Option(
        ("--limit-cpu-time",),
        "Processor time of each of its processes, in whole seconds. SIGXCPU then, and a kill a second later.",
        SOME_TIME,
        title="Limits",
    ),
    Option(("--limit-file-size",), "Length of the files that it writes. Beyond: SIGXFSZ.", SIZE, title="Limits"),
    Option(("--limit-open-files",), "Open descriptors of each of its processes.", NUMBER, title="Limits"),
    Option(("--limit-core",), "Length of the core file that a crash leaves. 0: none.", SIZE, title="Limits"),
    Option(("--limit-address-space",), "Addresses of each of its processes.", SIZE, title="Limits"),
)
"""The options of how much a command may take."""

MANNERS = (
    Option(("--json",), "Print JSON.", dest="as_json", value=True, title="Output"),
    Option(("--quiet", "-q"), "Say nothing but errors.", title="Output"),
    Option(("--verbose", "-v"), "Say more about what is done, and about errors.", title="Output"),
)
"""The options of how a command says things."""
