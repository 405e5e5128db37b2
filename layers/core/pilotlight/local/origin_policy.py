"""Which names the gateway answers to, and from which other sites' pages.

A gateway on a laptop is reached by every page that its user's browser shows: a page sends a request of a simple form
without asking first, and a name of its author's may resolve to 127.0.0.1, which makes the gateway a part of his site.
So a request must name this gateway as its Host, and a page must come from the gateway itself or from an origin that
was named. Programs send neither Origin nor Sec-Fetch-Site. Sources: RFC 9110, 7.2 and 15.5.20; the Fetch standard,
Origin header and CORS protocol; Fetch Metadata, Sec-Fetch-Site.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from pilotlight.errors import InvalidInputError
from pilotlight.local.gateway_errors import BAD_HOST, FOREIGN_PAGE, MISDIRECTED, GatewayError
from pilotlight.local.proxy_events import HttpResponse

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OWN_SITES = frozenset({b"same-origin", b"none"})  # of Sec-Fetch-Site; none is the user himself
PREFLIGHT_S = b"600"  # how long a browser may remember what it may send
LONGEST = 100  # characters of a refused value that are repeated

Scope = Mapping[str, Any]
HeaderList = list[tuple[bytes, bytes]]


class OriginPolicy:
    """The hosts and the origins of one gateway.

    One that listens on every address of the machine also answers to any address in numbers: a page can only be led to
    it by a name.
    """

    def __init__(self, host: str, allowed_hosts: Iterable[str] = (), allowed_origins: Iterable[str] = ()) -> None:
        self._hosts = LOOPBACK_NAMES | {host.lower()} | {_normalise_host(name) for name in allowed_hosts}
        self._takes_addresses = not is_loopback(host)
        self._origins = frozenset(map(parse_origin, allowed_origins))

    def check_request(self, scope: Scope) -> None:
        """Check a request's Host, and where the page that sent it comes from; `GatewayError` says what is wrong."""
        hosts, origin, site, mode = [], None, None, None
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"sec-fetch-mode":
                mode = value
        self._check_host(hosts, scope["http_version"])
        if origin is not None:
            self._check_origin(origin, hosts)
        elif site is not None and site not in OWN_SITES and not (mode == b"navigate" and scope["method"] == "GET"):
            raise GatewayError(FOREIGN_PAGE, _format_refused_page("of another site"))

    def answer_preflight(self, scope: Scope) -> HttpResponse | None:
        """Answer the question of a browser whether a page may send a request; None for any other request."""
        asked = dict(scope["headers"]) if scope["method"] == "OPTIONS" else {}
        method = asked.get(b"access-control-request-method")
        if method is None or not self._is_named(asked.get(b"origin")):
            return None
        wanted = asked.get(b"access-control-request-headers", b"")
        headers = [(b"access-control-allow-methods", method), (b"access-control-max-age", PREFLIGHT_S)]
        return HttpResponse(204, headers + ([(b"access-control-allow-headers", wanted)] if wanted else []), b"")

    def build_cors_headers(self, scope: Scope) -> HeaderList:
        """Build the headers that let a page of a named origin read the answer."""
        if not self._origins:
            return []
        origin = dict(scope["headers"]).get(b"origin")
        allowed = [(b"access-control-allow-origin", origin)] if origin is not None and self._is_named(origin) else []
        return [*allowed, (b"vary", b"origin")]

    def _check_host(self, hosts: Sequence[bytes], http_version: str) -> None:
        if len(hosts) != 1:
            if hosts or http_version == "1.1":
                raise GatewayError(BAD_HOST, f"A request has one Host header; this one has {len(hosts)}.")
            return
        name = _parse_host(hosts[0])
        if name not in self._hosts and not (self._takes_addresses and _is_address(name)):
            text = f"{hosts[0].decode('latin-1')[:LONGEST]!r} is no name of this gateway"
            raise GatewayError(MISDIRECTED, f"{text}; if it should be one, serve with --allow-host NAME.")

    def _check_origin(self, origin: bytes, hosts: Sequence[bytes]) -> None:
        is_own = bool(hosts) and origin.partition(b"://")[2].lower() == hosts[0].lower()
        if not is_own and not self._is_named(origin):
            raise GatewayError(FOREIGN_PAGE, _format_refused_page(f"of {origin.decode('latin-1')[:LONGEST]!r}"))

    def _is_named(self, origin: bytes | None) -> bool:
        return origin is not None and origin.decode("latin-1").lower() in self._origins


def parse_origin(text: str) -> str:
    """Parse `https://name:port` to the form in which browsers send it; `InvalidInputError` for anything else."""
    try:
        url = urlsplit(text.strip().lower())
        port = url.port
    except ValueError as exc:
        raise InvalidInputError(f"{text!r} is no origin: {exc}.") from exc
    has_more = url.path not in {"", "/"} or url.query or url.fragment or url.username
    if url.scheme not in {"http", "https"} or not url.hostname or has_more:
        raise InvalidInputError(f"{text!r} is no origin; write --allow-origin https://app.example.com.")
    name = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    is_usual = port is None or port == {"http": 80, "https": 443}[url.scheme]
    return f"{url.scheme}://{name}" if is_usual else f"{url.scheme}://{name}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone."""
    return host in LOOPBACK_NAMES or (_is_address(host) and ip_address(host).is_loopback)


def _normalise_host(name: str) -> str:
    host = _parse_host(name.strip().encode("latin-1", errors="replace"))
    if not host or any(sign in name for sign in "/*@ "):
        raise InvalidInputError(f"{name!r} is no name of a host; write --allow-host models.example.com.")
    return host


def _parse_host(value: bytes) -> str:
    """Parse `name:port` or `[::1]:port` to the name, without the full stop of the root."""
    text = value.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _format_refused_page(what: str) -> str:
    return f"A page {what} may not call this gateway; serve with --allow-origin URL if it should."
