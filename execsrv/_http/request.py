"""Rules for one HTTP request: how it goes out, through which proxy, and what a redirect makes of it. No I/O.

`prepare` decides everything about the request before anything is sent, with the refusals that Codex clients know;
`redirected` decides the next one. The rules are the Codex exec-server's, but for two: values from the server's
environment follow no redirect to another origin, and fields stay in the order in which they came.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from execsrv.errors import HttpFailedError, InvalidParamsError
from execsrv.protocol import HttpField, HttpHeader, HttpRequest

MAX_REDIRECTS = 10

PROTECTED_VARIABLES = frozenset(
    """
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AZURE_CLIENT_SECRET AZURE_FEDERATED_TOKEN_FILE
    CODEX_ACCESS_TOKEN CODEX_API_KEY CODEX_CONNECTORS_TOKEN CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN
    GOOGLE_APPLICATION_CREDENTIALS OPENAI_API_KEY OPENAI_FEDERATION_RULE_ID OPENAI_IDENTITY_TOKEN_FILE
    OPENAI_WORKLOAD_IDENTITY_CONTEXT
    """.split()
)
"""Variables that `valueEnvVar` may not name, in any case. A peer that may make requests must not read them."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BAD_HOST = re.compile(r"[\x00-\x20\x7f<>^|%/?#@\\\[\]]")
_PATH_SAFE = "!$%&'()*+,-./:;=@[\\]^_|~"
_QUERY_SAFE = "!$%&()*+,-./:;=?@[\\]^_`{|}~"
_MOST_HOST_LETTERS = 255
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OF_BODY = frozenset((b"content-type", b"content-encoding", b"content-length", b"transfer-encoding"))
_OF_ORIGIN = frozenset((b"authorization", b"cookie", b"cookie2", b"host", b"proxy-authorization", b"www-authenticate"))


class Target(Struct, frozen=True):
    """Destination of a request. `port` is None for the scheme's default.

    `url`, which has neither user nor fragment, is shown to people, and relative redirects start from it.
    """

    scheme: str
    host: str
    port: int | None
    path: bytes
    url: str

    @property
    def authority(self) -> str:
        """Value of the `host` field: the host, with the port unless that is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host + (f":{self.port}" if self.port is not None else "")

    @property
    def origin(self) -> str:
        """Scheme and authority, as in `https://example.org:8443`."""
        return f"{self.scheme}://{self.authority}"


class PreparedRequest(Struct, frozen=True):
    """A request with nothing left to decide. `secret` names the fields that hold values of the environment."""

    method: bytes
    target: Target
    fields: tuple[tuple[bytes, bytes], ...]
    secret: frozenset[bytes]
    body: bytes

    def header(self) -> list[tuple[bytes, bytes]]:
        """Return all fields in the order in which they are sent: the client's, then those that it left out."""
        names = {name for name, _ in self.fields}
        fields = list(self.fields)
        if b"accept" not in names:
            fields.append((b"accept", b"*/*"))
        if b"host" not in names:
            fields.append((b"host", self.target.authority.encode()))
        if self.body and not names & {b"content-length", b"transfer-encoding"}:
            fields.append((b"content-length", str(len(self.body)).encode()))
        return fields


def prepare(params: HttpRequest, environ: Mapping[str, str], sendable: Sequence[str]) -> PreparedRequest:
    """Return the request as it is to be sent. `sendable` are patterns of the variables that it may use.

    Raises `InvalidParamsError`, naming what is wrong.
    """
    method = params.method.encode(errors="replace")
    if not _TOKEN.fullmatch(method):
        raise InvalidParamsError("http/request method is invalid: invalid HTTP method", field="method")
    try:
        target, user = _target(params.url)
        fields = [_field(header, environ, sendable) for header in params.headers]
    except UnicodeEncodeError:
        raise InvalidParamsError("http/request holds a lone surrogate, which has no encoding") from None
    if user is not None and not any(name == b"authorization" for name, _ in fields):
        fields.append((b"authorization", user))
    secret = frozenset(header.name.lower().encode() for header in params.headers if header.value_env_var is not None)
    return PreparedRequest(method, target, tuple(fields), secret, params.body_base64 or b"")


def redirected(exchange: PreparedRequest, status: int, response: Sequence[HttpField]) -> PreparedRequest | None:
    """Return the request that follows a response, or None when that is no redirect or has no usable `location`.

    Raises `HttpFailedError` for a redirect to a scheme other than HTTP.
    """
    if status not in (301, 302, 303, 307, 308):
        return None
    location = next((field.value for field in response if field.name == "location"), None)
    if location is None:
        return None
    try:
        url = urljoin(exchange.target.url, location)
        scheme = url.partition(":")[0].lower()
        if scheme not in _DEFAULT_PORTS:
            raise HttpFailedError(f"http/request failed: redirect target uses unsupported URL scheme: {scheme}")
        target, user = _target(url)
    except (ValueError, InvalidParamsError):
        return None
    before = exchange.target
    fields, method, body = list(exchange.fields), exchange.method, exchange.body
    if (status == 303 and method != b"HEAD") or (status in (301, 302) and method == b"POST"):
        method, body = b"GET", b""
        fields = [field for field in fields if field[0] not in _OF_BODY]
    if target.origin != before.origin:
        kept_back = _OF_ORIGIN | exchange.secret
        fields = [field for field in fields if field[0] not in kept_back]
    if user is not None:
        fields = [*(field for field in fields if field[0] != b"authorization"), (b"authorization", user)]
    fields = [field for field in fields if field[0] != b"referer"]
    if (before.scheme, target.scheme) != ("https", "http"):
        referer = before.url if target.origin == before.origin else before.origin + "/"
        fields.append((b"referer", referer.encode()))
    return replace(exchange, method=method, target=target, fields=tuple(fields), body=body)


def proxy_url(target: Target, environ: Mapping[str, str]) -> str:
    """Return the URL of the proxy that the environment names for a target, or "" for none."""
    if _is_exempt(target, _variable(environ, "no_proxy")):
        return ""
    url = _variable(environ, f"{target.scheme}_proxy") or _variable(environ, "all_proxy")
    return url if "://" in url or not url else f"http://{url}"


def _variable(environ: Mapping[str, str], name: str) -> str:
    """Return a variable in lower case or, where that is not set, in upper case."""
    return environ.get(name, environ.get(name.upper(), ""))


def _is_exempt(target: Target, no_proxy: str) -> bool:
    """Return whether one of the comma-separated names is `*`, the host of a target, or a domain that it is in.

    A name may have a port.
    """
    host = target.host.lower()
    port = target.port or _DEFAULT_PORTS[target.scheme]
    hosts = (host, f"[{host}]", f"{host}:{port}", f"[{host}]:{port}")
    for name in no_proxy.lower().split(","):
        name = name.strip().lstrip(".")
        if name == "*" or (name and any(known == name or known.endswith("." + name) for known in hosts)):
            return True
    return False


def _field(header: HttpHeader, environ: Mapping[str, str], sendable: Sequence[str]) -> tuple[bytes, bytes]:
    name = header.name.encode(errors="replace")
    if not _TOKEN.fullmatch(name):
        raise InvalidParamsError("http/request header name is invalid: invalid HTTP header name", field="headers")
    value, variable = header.value, header.value_env_var
    if variable is not None:
        if variable.upper() in PROTECTED_VARIABLES:
            raise _refused(f"header {header.name} cannot use executor environment variable {variable}")
        if not any(fnmatchcase(variable, pattern) for pattern in sendable):
            why = "http_variables of the server does not name it"
            raise _refused(f"header {header.name} cannot use executor environment variable {variable}: {why}")
        if variable not in environ:
            raise _refused(f"header {header.name} requires executor environment variable {variable}")
        if not environ[variable]:
            raise _refused(f"header {header.name} requires a non-empty executor environment variable {variable}")
        value += environ[variable]
    encoded = value.encode(errors="surrogateescape").strip(b" \t")
    if _BAD_VALUE.search(encoded):
        raise _refused(f"header value is invalid for {header.name}: failed to parse header value")
    return name.lower(), encoded


def _refused(message: str) -> InvalidParamsError:
    return InvalidParamsError(f"http/request {message}", field="headers")


def _target(url: str) -> tuple[Target, bytes | None]:
    """Return the target of a URL, and the `authorization` that a user name in it stands for.

    Raises `InvalidParamsError`.
    """
    url = url.strip("\0\t\n\r ")
    if not _SCHEME.match(url):
        raise _bad_url("relative URL without a base")
    scheme = url.partition(":")[0].lower()
    if scheme not in _DEFAULT_PORTS:
        raise InvalidParamsError(f"http/request only supports http and https URLs, got {scheme}", field="url")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _bad_url("invalid IPv6 address") from None
    try:
        port = parts.port if parts.port != _DEFAULT_PORTS[scheme] else None
        if port == 0:
            raise ValueError
    except ValueError:
        raise _bad_url("invalid port number") from None
    host = _host(parts)
    path = quote(parts.path or "/", safe=_PATH_SAFE)
    if parts.query:
        path += "?" + quote(parts.query, safe=_QUERY_SAFE)
    target = Target(scheme, host, port, path.encode(), "")
    user = None
    if parts.username is not None:
        pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        user = b"Basic " + base64.b64encode(pair)
    return replace(target, url=target.origin + path), user


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host:
        raise _bad_url("empty host")
    try:
        if len(host) > _MOST_HOST_LETTERS:  # to encode them takes longer the more there are
            raise UnicodeError
        host = host if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        raise _bad_url("invalid international domain name") from None
    if _BAD_HOST.search(host):
        raise _bad_url("invalid international domain name")
    return host


def _bad_url(why: str) -> InvalidParamsError:
    return InvalidParamsError(f"http/request url is invalid: {why}", field="url")
