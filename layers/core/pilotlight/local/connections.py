"""The gateway's HTTP connections: how long a client may take, how much it may hold, and how many there may be.

Uvicorn's own protocol waits for ever for the rest of a head or a body, and takes heads of any size and any number of
connections. This one closes what is too slow or too large, and the longest waiting connection where a new one has no
room, so that half-sent requests lock nobody out. A connection whose request is being answered is never closed for
another. The module knows neither routes nor environments.
"""

import asyncio
import contextlib
import json
import logging
import resource
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pilotlight.local.gateway_errors import (
    CONNECTIONS_USED_UP,
    HEAD_TOO_LARGE,
    MALFORMED,
    STOPPING,
    THROTTLED,
    TOO_SLOW,
    GatewayErrorKind,
)
from pilotlight.local.signed_uploads import is_upload_target

FILES_PER_ENVIRONMENT = 5  # its Runtime API's listener and connection, a pipe, a process, and one to spare
FILES_OF_THE_GATEWAY = 64  # listeners, libraries, the event loop's own
LINGER_S = 2.0  # how long a refused client may take to read why
CUT = "pilotlight.cut"  # the ASGI extension by which an application breaks an answer off
UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings"})  # of an offer to go on in another protocol

log = logging.getLogger("pilotlight.local")


@dataclass(frozen=True)
class ConnectionLimits:
    """The limits of connections: sizes in bytes, times in seconds. `head_bytes` is API Gateway's."""

    count: int = 1024
    head_bytes: int = 10_240  # request line and headers
    head_s: float = 10.0  # from the first byte, or from the connection, to the end of the headers
    body_s: float = 10.0  # for a body, and for reading an answer, beside what `least_rate` allows
    least_rate: float = 10_240.0  # bytes per second, of a body or of reading an answer
    idle_s: float = 600.0  # between two requests: long, since closing a connection races with its next request
    unread_bytes: int = 20 * 1024 * 1024  # of one body; a refused one is read on, so that its client sees the answer
    held_bytes: int = 256 * 1024 * 1024  # of the bodies of all requests that are not answered
    pipelined: int = 64  # requests that one connection may send ahead of their answers

    @property
    def sweep_s(self) -> float:
        """How often connections are checked."""
        return min(1.0, self.head_s / 4, self.body_s / 4, self.idle_s / 4)


def count_connections(limits: ConnectionLimits, environments: int) -> int:
    """Count the connections for which there are open files enough beside those of so many environments."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.count
    left = soft - FILES_OF_THE_GATEWAY - FILES_PER_ENVIRONMENT * environments
    return max(1, min(limits.count, max(left, soft // 4)))


class ConnectionTable:
    """All open connections of a gateway; `count` is how many there may be."""

    def __init__(self, limits: ConnectionLimits, count: int) -> None:
        self.limits = limits
        self.count = count
        self.held = 0  # bytes of bodies whose requests are not answered
        self.is_draining = False
        self._open: set[HttpConnection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: "HttpConnection") -> bool:
        """Take a new connection, in place of the longest waiting one if there is no room; False if there is none."""
        if len(self._open) >= self.count:
            waiting = [each for each in self._open if each.is_waiting]
            if not waiting:
                return False
            min(waiting, key=lambda each: each.since).abort()
        self._open.add(connection)
        return True

    def discard(self, connection: "HttpConnection") -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)

    async def watch(self) -> None:
        """Close what is too slow, until cancelled."""
        while True:
            await asyncio.sleep(self.limits.sweep_s)
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                connection.check_time(now)

    def start_draining(self) -> None:
        """Close idle connections, and each other one with its next answer; a new request gets a 503."""
        self.is_draining = True
        for connection in list(self._open):
            connection.shutdown()

    def abort_all(self) -> None:
        """Close every connection, whether or not its client has read the answer."""
        for connection in list(self._open):
            connection.abort()


class HttpConnection(HttpToolsProtocol):
    """One connection: uvicorn's, with limits."""

    def __init__(self, table: ConnectionTable, **options: Any) -> None:  # noqa: ANN401  # uvicorn's own options
        super().__init__(**options)
        self._table = table
        self._limits = table.limits
        self._reading: Literal["", "head", "body"] = ""
        self._head_bytes = 0  # of chunks that ended within the head
        self._body_bytes = 0
        self._held = 0
        self._unsent = 0  # bytes that the client had not read when an answer was complete
        self._unsent_since = 0.0  # s, the loop's clock
        self._is_ahead = False  # whether the request was sent before the one before it was answered
        self._is_refused = False
        self._offers_upgrade = False  # whether the head is to be parsed again, without its offer
        self._answered_cycle: RequestResponseCycle | None = None
        self.since = 0.0  # s, the loop's clock, at which it began to wait for what it waits for now

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its client, not for the answer to a request."""
        return bool(self._reading) or self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Take the connection, or say that there are too many."""
        super().connection_made(transport)
        self.since = self.loop.time()
        if not self._table.admit(self):
            text = f"Service unavailable: all {self._table.count} connections are in use."
            transport.write(format_refusal(CONNECTIONS_USED_UP, text))
            self._is_refused = True
            transport.close()  # not to be waited for, or refused ones would take what is used up

    def eof_received(self) -> None:
        """Note that the client is gone: the transport is closed from here on, before the connection counts as lost."""
        self._note_gone_client()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._note_gone_client()
        self._table.discard(self)
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; a head that is too large ends the connection before it is complete."""
        if self._is_refused:
            return
        was_head = self._reading == "head"
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError as exc:
            self._refuse_malformed(exc)
        if was_head and self._reading == "head":
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse_head()

    def on_message_begin(self) -> None:
        """Start to read a head."""
        self._is_ahead = self.cycle is not None and not self.cycle.response_complete
        self._offers_upgrade = False
        super().on_message_begin()
        self._reading, self._head_bytes, self.since = "head", 0, self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; one after the body would change the request after it was checked, and is dropped."""
        if self._reading == "head":
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Start the request, if its head is not too large; one that offers an upgrade is parsed again without it."""
        if self._is_refused:
            return
        self._offers_upgrade = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._offers_upgrade:
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)  # ": " and a line's end
        if size > self._limits.head_bytes:
            self._refuse_head()
            return
        if len(self.pipeline) >= self._limits.pipelined:
            self.abort()
            return
        self._reading, self._body_bytes, self.since = "body", 0, self.loop.time()
        self.url = normalise_target(self.url)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body, while there is memory for it."""
        if self._is_refused:
            return
        self._body_bytes += len(body)
        is_streamed = is_upload_target(self.url) and not self.cycle.response_complete  # to a file, not to memory
        if self._body_bytes > self._limits.unread_bytes and not is_streamed:
            self.abort()
        elif not self.cycle.response_complete and not is_streamed:
            self._hold(len(body))
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop reading: from here on the client waits."""
        if self._offers_upgrade:
            return  # the body is still to come, which the parser takes for another protocol's
        self._reading, self.since = "", self.loop.time()
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Release the body, and wait for the next request."""
        self._release()
        now = self.loop.time()
        self._unsent, self._unsent_since = self.transport.get_write_buffer_size(), now
        self.since = self.since if self._reading else now
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close an idle connection, or one with its answer; a head on its way may still come, and gets a 503."""
        if self._reading != "head":
            super().shutdown()

    def abort(self) -> None:
        """Close at once, without an answer."""
        self._is_refused = True
        self._table.discard(self)  # at once, since the transport says so only in the loop's next round
        self.transport.abort()

    def cut(self) -> None:
        """End an answer that is under way so that its client sees that it is not complete: without the last chunk."""
        self._note_gone_client()
        self._is_refused, self.since = True, self.loop.time()
        self.transport.close()  # behind what is still to be sent, which the client has a moment to read

    def check_time(self, now: float) -> None:
        """Close the connection if its client takes too long."""
        waited, limits = now - self.since, self._limits
        if self._is_refused:
            if waited > LINGER_S:
                self.abort()
        elif self._is_unread(now):
            self.abort()
        elif self._reading == "head" or (self.cycle is None and not self._reading):
            if waited > limits.head_s:
                self._refuse_slow(f"the headers did not arrive within {limits.head_s:g} s")
        elif self._reading == "body":
            if waited > limits.body_s + self._body_bytes / limits.least_rate and not self.flow.read_paused:
                self._refuse_slow(f"only {self._body_bytes} bytes of the body arrived within {waited:.1f} s")
        elif self.is_waiting and waited > limits.idle_s:
            self.abort()

    def _parse(self, data: bytes) -> None:
        """Parse what has arrived; an offer to upgrade is ignored, as RFC 9110, 7.8 allows, and its request is not.

        The parser stops behind the head of such a request. So another one gets the head without the offer, then the
        rest. Java's client offers h2c with its first request, as does `curl --http2`.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                if not self._offers_upgrade or self._is_refused:
                    return  # CONNECT, whose request is answered and whose connection then ends
                version = self.parser.get_http_version().encode()
                head = format_head(self.parser.get_method(), self.url, version, drop_upgrade(self.headers))
                data = head + data[exc.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            else:
                return

    def _note_gone_client(self) -> None:
        """Let no answer be written; uvicorn's `cycle` is the last request that was sent, not the one being answered."""
        for cycle in (self.cycle, self._answered_cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _is_unread(self, now: float) -> bool:
        """Return whether the client is reading an answer too slowly, on which a next one may be waiting."""
        if not self._unsent or not self.transport.get_write_buffer_size():
            self._unsent = 0
            return False
        return now - self._unsent_since > self._limits.body_s + self._unsent / self._limits.least_rate

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401  # uvicorn's type
        self._answered_cycle = cycle
        cycle.scope["extensions"] = {CUT: {"cut": self.cut}}
        super()._start_asgi_task(cycle, cast("Any", answer_unavailable) if self._table.is_draining else app)

    def _hold(self, size: int) -> None:
        """Count bytes that are kept; refuse the request if all of them are too many."""
        self._held += size
        self._table.held += size
        if self._table.held > self._limits.held_bytes:
            self._refuse(THROTTLED, "Too Many Requests: the bodies of other requests take all memory for bodies.")

    def _release(self) -> None:
        self._table.held -= self._held
        self._held = 0

    def _refuse_head(self) -> None:
        limit = self._limits.head_bytes
        self._refuse(HEAD_TOO_LARGE, f"HTTP header is larger than {limit} bytes, the request line among them.")

    def _refuse_malformed(self, exc: httptools.HttpParserError) -> None:
        """Answer what is no HTTP/1.1; the parser reads nothing more of this connection."""
        reason = " ".join(str(exc.__context__ or exc).split())
        self._refuse(MALFORMED, f"Bad Request: this is not HTTP/1.1 as it must be ({reason or 'it does not parse'}).")

    def _refuse_slow(self, what: str) -> None:
        if self._reading:
            self._refuse(TOO_SLOW, f"Request timed out: {what}.")
        else:
            self.abort()  # not a byte has come, so there is no request to answer

    def _refuse(self, kind: GatewayErrorKind, text: str) -> None:
        """Answer with an error, and read on until the client has seen it.

        There is no answer if another one is on its way, or is still to come: it would be taken for that one. Closing at
        once would reset the connection, and with it the answer, if the client is still sending.
        """
        log.info("%s", text)
        self._is_refused, self.since = True, self.loop.time()
        self._release()
        is_answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._is_ahead or is_answering or self.transport.is_closing():
            self.abort()
            return
        self.transport.write(format_refusal(kind, text))
        with contextlib.suppress(OSError):  # the client is gone already, as the transport is about to say
            self.transport.write_eof()
        self.flow.resume_reading()


def drop_upgrade(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Drop an offer to upgrade from headers: its own, and their names among those of the connection."""
    kept = []
    for name, value in headers:
        if name == b"connection":
            options = [option.strip() for option in value.split(b",")]
            value = b", ".join(option for option in options if option.lower() not in UPGRADE_HEADERS)
        if name not in UPGRADE_HEADERS and (value or name != b"connection"):
            kept.append((name, value))
    return kept


def format_head(method: bytes, target: bytes, version: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Format the head of a request."""
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version, lines)


def normalise_target(target: bytes) -> bytes:
    """Return a request's target with a path, which one to a proxy may lack."""
    scheme, separator, rest = target.partition(b"://")
    if target.startswith(b"/") or not separator or b"/" in rest:
        return target
    host, question, query = rest.partition(b"?")
    return b"%b://%b/%b%b" % (scheme, host, question, query)


def format_refusal(kind: GatewayErrorKind, text: str) -> bytes:
    """Format an error in API Gateway's own form, with which the connection ends."""
    headers, body = build_refusal(kind, text)
    lines = b"".join(b"%s: %s\r\n" % each for each in headers.items())
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (kind.status, HTTPStatus(kind.status).phrase.encode(), lines, body)


def build_refusal(kind: GatewayErrorKind, text: str) -> tuple[dict[bytes, bytes], bytes]:
    """Build the headers and the body of such an error."""
    body = json.dumps({"message": text}).encode()
    headers = {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(body),
        b"x-amzn-errortype": kind.error_type.encode(),
    }
    return headers | dict(kind.headers) | {b"connection": b"close"}, body


async def answer_unavailable(scope: object, receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Answer a request that came after the gateway began to stop; an ASGI application."""
    headers, body = build_refusal(STOPPING, "Service unavailable: the gateway is stopping.")
    await send({"type": "http.response.start", "status": STOPPING.status, "headers": list(headers.items())})
    await send({"type": "http.response.body", "body": body})
