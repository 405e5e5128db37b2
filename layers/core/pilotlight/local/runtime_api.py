"""The Lambda Runtime API of one environment: next invocation, its answer, its error, a failed init.

A bare asyncio protocol instead of ASGI: these are two of the three HTTP exchanges of each request, a long poll may last
indefinitely here, and nothing of it outlives the environment. Each environment has its own port, since
AWS_LAMBDA_RUNTIME_API contains only host and port. This module knows no processes, pools or public requests.
"""

import asyncio
import json
import select
import socket
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import httptools

from pilotlight.local.gateway_errors import FAILED, GatewayError
from pilotlight.local.streamed_answers import HTTP_STREAM, StreamedAnswer

ERROR_CHARACTERS = 2000  # of an error's text; stderr has all of it
PREFIX = b"/2018-06-01/runtime/"
MODE_HEADER = b"lambda-runtime-function-response-mode"
ERROR_TYPE_TRAILER, ERROR_BODY_TRAILER = b"lambda-runtime-function-error-type", b"lambda-runtime-function-error-body"
STREAM_BYTES = 200 * 1024 * 1024  # Lambda's limit of a streamed answer


@dataclass(slots=True, eq=False)
class Invocation:
    """One event on its way to a handler; `outcome` becomes its JSON, a streamed answer or a `GatewayError`."""

    request_id: str
    trace_id: str
    event: bytes
    outcome: "asyncio.Future[bytes | StreamedAnswer]"
    is_abandoned: Callable[[], bool]  # whether no caller waits for the outcome any more
    cold_ms: float | None = None  # init time of the environment, if this was its first invocation

    def finish(self, payload: bytes | StreamedAnswer) -> None:
        """Set the answer, unless the outcome is set already; then nobody waits for a streamed one."""
        if not self.outcome.done():
            self.outcome.set_result(payload)
        elif isinstance(payload, StreamedAnswer):
            payload.cancel()

    def fail(self, error: GatewayError) -> None:
        """Set the error, unless the outcome is set already; a streamed answer that is under way is cut."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
        elif not self.outcome.cancelled() and self.outcome.exception() is None:
            answer = self.outcome.result()
            if isinstance(answer, StreamedAnswer):
                answer.fail(str(error))


class RuntimeObserver(Protocol):
    """Receives what a runtime client does."""

    def on_next(self) -> None:
        """Handle a request for work: the client's init is over, and so is its last invocation."""

    def on_done(self) -> None:
        """Handle the answer to an invocation; the client will ask for the next one."""

    def on_init_error(self, text: str) -> None:
        """Handle a failed import of the handler; the client is about to exit."""


class RuntimeApi:
    """The Runtime API's state for one environment."""

    def __init__(
        self,
        function: str,
        arn: str,
        timeout_s: float,
        answer_bytes: int,
        owner: RuntimeObserver,
        is_own_connection: Callable[[int], bool] = lambda port: True,
        stream_bytes: int = STREAM_BYTES,
    ) -> None:
        """Create the state; `is_own_connection` tells whether the environment's process connects from a port.

        `answer_bytes` is the limit of answers in one piece, `stream_bytes` that of streamed ones.
        """
        self._function = function
        self._arn = arn
        self._timeout_s = timeout_s
        self._limit = answer_bytes
        self._stream_bytes = stream_bytes
        self._owner = owner
        self._is_own_connection = is_own_connection
        self._waiting_transport: asyncio.Transport | None = None
        self.invocation: Invocation | None = None
        self.is_delivered = False  # whether the runtime client has received `invocation`

    def create_connection(self) -> asyncio.Protocol:
        """Create a protocol for a new connection of the runtime client."""
        return _Connection(self, self._limit)

    def is_own_connection(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether a connection is the environment's own, not that of another program or of a web page."""
        return self._is_own_connection(transport.get_extra_info("peername")[1])

    def assign_invocation(self, invocation: Invocation) -> None:
        """Answer the client's long poll with this invocation, now or as soon as it asks."""
        self.invocation, self.is_delivered = invocation, False
        if self._waiting_transport is not None:
            self._deliver(self._waiting_transport, invocation)

    def drop_connection(self, transport: asyncio.BaseTransport | None) -> None:
        """Forget a connection that has closed; it receives no more work."""
        if self._waiting_transport is transport:
            self._waiting_transport = None

    def start_stream(self, call: "RuntimeCall") -> StreamedAnswer | None:
        """Take the head of a streamed answer; None if the call is none, or for another invocation."""
        path = call.path.removeprefix(PREFIX).split(b"/")
        if call.headers.get(MODE_HEADER) != b"streaming" or path[:1] + path[2:] != [b"invocation", b"response"]:
            return None
        invocation = call.invocation = self._get_invocation(path[1])
        if invocation is None:
            return None
        if call.headers.get(b"content-type") != HTTP_STREAM:
            text = f"malformed Lambda proxy response: a stream of the type {call.headers.get(b'content-type')!r}"
            invocation.fail(GatewayError(FAILED, f"Internal server error: {text}, not {HTTP_STREAM!r}."))
        return StreamedAnswer(call.transport, self._stream_bytes, invocation.finish)

    def feed_stream(self, call: "RuntimeCall", data: bytes) -> bytes:
        """Pass on bytes of a streamed answer; return a refusal if that is not possible, and none else."""
        if call.stream is None:
            return b""
        try:
            call.stream.add_bytes(data)
        except GatewayError as error:
            if call.invocation is not None:
                call.invocation.fail(error)
            return _format_refusal(413, "RequestEntityTooLarge", str(error))
        return b""

    def _finish_stream(self, call: "RuntimeCall", stream: StreamedAnswer) -> bytes:
        """Handle the end of a streamed answer: a good one, or the error in its trailers."""
        call.transport.write(ACCEPTED)
        error = self._read_trailers(call.headers)
        try:
            if error is None:
                stream.finish()
        except GatewayError as malformed:
            error = malformed
        if error is not None and call.invocation is not None:
            stream.fail(str(error))
            call.invocation.fail(error)
        self._forget_stream(call)
        self._owner.on_done()
        return b""

    def _read_trailers(self, headers: Mapping[bytes, bytes]) -> GatewayError | None:
        """Read the error behind a streamed answer, if there is one."""
        error_type = headers.get(ERROR_TYPE_TRAILER)
        if error_type is None:
            return None
        report = _format_error_trailers(error_type, headers.get(ERROR_BODY_TRAILER, b""))
        return GatewayError(FAILED, f"Internal server error: {self._function} failed with {report}.")

    def break_stream_off(self, call: "RuntimeCall") -> None:
        """Cut a streamed answer whose connection has ended before it was complete."""
        if call.stream is not None and call.invocation is not None:
            call.stream.fail("its function's environment has broken it off")
            call.invocation.fail(GatewayError(FAILED, f"Internal server error: {self._function} broke its answer off."))
            self._forget_stream(call)

    def _forget_stream(self, call: "RuntimeCall") -> None:
        if self.invocation is call.invocation:
            self.invocation = None
        call.stream = call.invocation = None

    def handle_call(self, call: "RuntimeCall") -> bytes:
        """Handle one call of the client and return the answer, empty for a long poll."""
        if call.stream is not None:
            return self._finish_stream(call, call.stream)
        path = call.path.removeprefix(PREFIX).split(b"/")
        match call.method, path:
            case b"GET", [b"invocation", b"next"]:
                return self._handle_next(call.transport)
            case b"POST", [b"invocation", request_id, b"response"]:
                return self._handle_response(request_id, call)
            case b"POST", [b"invocation", request_id, b"error"]:
                return self._handle_error(request_id, call)
            case b"POST", [b"init", b"error"]:
                self._owner.on_init_error(_format_error_report(call))
                return ACCEPTED
        return _format_refusal(404, "NotFound", f"the Runtime API has no {call.method.decode()} {call.path.decode()}")

    def _handle_next(self, transport: asyncio.Transport) -> bytes:
        self._waiting_transport = transport
        self._owner.on_next()
        if self._waiting_transport is transport and self.invocation is not None and not self.is_delivered:
            self._deliver(transport, self.invocation)
        return b""

    def _deliver(self, transport: asyncio.Transport, invocation: Invocation) -> None:
        """Send the invocation, unless the client has just died: then it is left for another environment."""
        self._waiting_transport = None
        if has_hung_up(transport):
            return
        self.is_delivered = True
        deadline_ms = int((time.time() + self._timeout_s) * 1000)
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {invocation.request_id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {deadline_ms}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {self._arn}\r\n"
            f"Lambda-Runtime-Trace-Id: {invocation.trace_id}\r\n"
            f"Content-Length: {len(invocation.event)}\r\n\r\n"
        )
        transport.writelines((head.encode(), invocation.event))

    def _get_invocation(self, request_id: bytes) -> Invocation | None:
        """Return the invocation of this id, if it is the one that the client received."""
        invocation = self.invocation
        if invocation is None or not self.is_delivered or invocation.request_id.encode() != request_id:
            return None
        return invocation

    def _take_invocation(self, request_id: bytes) -> Invocation | None:
        """Take the invocation of this id, so that no other answer can come for it."""
        invocation = self._get_invocation(request_id)
        if invocation is not None:
            self.invocation = None
        return invocation

    def _handle_response(self, request_id: bytes, call: "RuntimeCall") -> bytes:
        invocation = self._take_invocation(request_id)
        if invocation is None:
            return STALE
        if call.size > self._limit:
            text = f"the answer of {self._function} is {call.size} bytes, and Lambda takes {self._limit} at most"
            invocation.fail(GatewayError(FAILED, f"Internal server error: {text}. Answer with less, or in parts."))
            return _format_refusal(
                413, "RequestEntityTooLarge", text
            )  # AWS's client exits now, and its environment with it
        call.transport.write(ACCEPTED)  # first, since the client is waiting, and the rest takes longer
        invocation.finish(call.join_body())
        self._owner.on_done()
        return b""

    def _handle_error(self, request_id: bytes, call: "RuntimeCall") -> bytes:
        invocation = self._take_invocation(request_id)
        if invocation is None:
            return STALE
        text = f"Internal server error: {self._function} failed with {_format_error_report(call)}."
        invocation.fail(GatewayError(FAILED, text, _format_error_report(call).partition(": ")[2]))
        self._owner.on_done()
        return ACCEPTED


@dataclass(slots=True)
class RuntimeCall:
    """One request of the runtime client; `size` counts its body even if that was too large to be kept.

    `headers` have their names in lower case, and at the end of a stream its trailers too.
    """

    transport: asyncio.Transport
    method: bytes = b""
    path: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    stream: StreamedAnswer | None = None  # whose body is passed on, not kept
    invocation: Invocation | None = None  # to which the stream is the answer
    size: int = 0
    chunks: list[bytes] = field(default_factory=list)

    def join_body(self) -> bytes:
        """Return the whole body."""
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)


class _Connection(asyncio.Protocol):
    """One connection of a runtime client; it sends one request at a time."""

    def __init__(self, api: RuntimeApi, limit: int) -> None:
        self._api = api
        self._limit = limit
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # create_server makes no other kind
        self._call = RuntimeCall(self._transport)
        if not self._api.is_own_connection(transport):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._api.drop_connection(self._transport)
        self._api.break_stream_off(self._call)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._call = RuntimeCall(self._transport)

    def on_url(self, url: bytes) -> None:
        self._call.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._call.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._call.method = self._parser.get_method()
        self._call.stream = self._api.start_stream(self._call)

    def on_body(self, body: bytes) -> None:
        self._call.size += len(body)
        if self._call.stream is not None:
            if refusal := self._api.feed_stream(self._call, body):
                self._transport.write(refusal)
                self._transport.close()
        elif self._call.size <= self._limit:
            self._call.chunks.append(body)

    def on_message_complete(self) -> None:
        answer = self._api.handle_call(self._call)
        if answer:
            self._transport.write(answer)


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Return whether the connection has ended, which the event loop may be about to tell.

    A client that waits for work sends nothing, so its connection can be read only at its end.
    """
    if transport.is_closing():
        return True
    connection: socket.socket = transport.get_extra_info("socket")
    if not _is_readable(connection.fileno()):
        return False
    with connection.dup() as copy:  # a transport gives no more than the socket's number, and a copy of it
        try:
            return copy.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:  # it was reset
            return True


def _is_readable(descriptor: int) -> bool:
    """Return whether reading would not block; poll takes descriptors beyond 1023, and Windows has none."""
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _format_error_report(call: RuntimeCall) -> str:
    """Format the report that a client posts as `ValueError: what was wrong`."""
    try:
        report = json.loads(call.join_body())
        return f"{report['errorType']}: {report['errorMessage']}"[:ERROR_CHARACTERS]
    except (ValueError, KeyError, TypeError):
        return f"a report that cannot be read: {call.join_body()[:200]!r}"


def _format_error_trailers(error_type: bytes, body: bytes) -> str:
    """Format an error that came behind a part of an answer as `ValueError: what was wrong`."""
    try:
        message = json.loads(b64decode(body))["errorMessage"]
    except (ValueError, KeyError, TypeError):
        message = "a report that cannot be read"
    return f"{error_type.decode('latin-1')}: {message}"[:ERROR_CHARACTERS]


def _format_response(status: str, document: dict[str, str]) -> bytes:
    body = json.dumps(document)
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def _format_refusal(status: int, error_type: str, message: str) -> bytes:
    return _format_response(f"{status} Refused", {"errorMessage": message, "errorType": error_type})


ACCEPTED = _format_response("202 Accepted", {"status": "OK"})
STALE = _format_refusal(400, "InvalidRequestID", "this is not the request that the environment was given")
