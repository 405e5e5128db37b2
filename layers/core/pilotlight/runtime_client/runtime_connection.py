"""One connection to the Runtime API: the next event, the answer in one piece or as a stream, errors."""

import http.client
import json
import select
from base64 import b64encode

from pilotlight.runtime_client.error_reports import ERROR_BODY, ERROR_TYPE, ErrorReport

PREFIX = "/2018-06-01/runtime"
STREAM_HEADERS = {
    "Lambda-Runtime-Function-Response-Mode": "streaming",
    "Transfer-Encoding": "chunked",
    "Trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
}
MAX_TRAILER_BYTES = 16_000  # of an error's report in base64; the log has all of it


class RuntimeApiError(Exception):
    """The Runtime API refused what it was sent; the client can only exit."""


class ReaderGoneError(Exception):
    """Nobody takes the rest of a streamed answer: the Runtime API has closed its connection, or answered early."""


class RuntimeConnection:
    """One connection to the Runtime API at `address`, host:port; it opens again if it was closed."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._connection.close()

    def next_event(self) -> tuple[bytes, http.client.HTTPMessage]:
        """Return the next event and the headers that describe it; wait as long as there is none.

        `RuntimeApiError` if the Runtime API has none to give: by its documentation, the client should then exit.
        """
        self._connection.request("GET", f"{PREFIX}/invocation/next")
        return self._read_answer("invocation/next", http.client.OK)

    def wait_for_restore(self) -> None:
        """Say that the environment may be kept as a snapshot, and wait until it is restored from it."""
        self._connection.request("GET", f"{PREFIX}/restore/next")
        self._read_answer("restore/next", http.client.OK)

    def post(self, path: str, body: bytes) -> None:
        """Post JSON to the Runtime API; `RuntimeApiError` if it does not accept the body."""
        self._post(path, body, {})

    def post_error(self, path: str, report: ErrorReport, error_type: str = "") -> None:
        """Post an error's report."""
        self._post(path, json.dumps(report).encode(), {ERROR_TYPE: error_type or report["errorType"]})

    def open_stream(self, request_id: str, content_type: str) -> "ResponseStream":
        """Begin the streamed answer to an invocation."""
        self._connection.putrequest("POST", f"{PREFIX}/invocation/{request_id}/response")
        for name, value in {**STREAM_HEADERS, "Content-Type": content_type}.items():
            self._connection.putheader(name, value)
        return ResponseStream(self._connection)

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        content = {"Content-Type": "application/json", **headers}
        self._connection.request("POST", f"{PREFIX}/{path}", body, content)
        self._read_answer(path, http.client.ACCEPTED)

    def _read_answer(self, path: str, expected: int) -> tuple[bytes, http.client.HTTPMessage]:
        response = self._connection.getresponse()
        data = response.read()
        if response.status != expected:
            text = data.decode(errors="replace")
            raise RuntimeApiError(f"The Runtime API answered {response.status} to {path}: {text}")
        return data, response.headers


class ResponseStream:
    """A streamed answer on its way. After an error, the connection is closed; the next call opens another."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._has_begun = False

    def write(self, data: bytes) -> None:
        """Send a chunk; an empty one only checks that somebody reads. Raise `ReaderGoneError` if nobody does."""
        try:
            self._begin()
            self._check_reader()
            if data:
                self._connection.send(b"%x\r\n%b\r\n" % (len(data), data))
        except OSError as exc:
            self._connection.close()
            raise ReaderGoneError(f"The Runtime API takes no more of the answer: {exc}") from exc

    def finish(self, report: ErrorReport | None = None) -> None:
        """End the answer, or cut it: with an error's report, the caller's connection does not end well."""
        try:
            self._begin()
            self._connection.send(b"0\r\n%b\r\n" % format_trailers(report))
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise ReaderGoneError(f"The Runtime API took not all of the answer: {exc}") from exc
        if response.status != http.client.ACCEPTED:
            self._connection.close()
            raise ReaderGoneError(f"The Runtime API answered {response.status} to a stream")

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._connection.endheaders()

    def _check_reader(self) -> None:
        """Raise an `OSError` if the connection can be read: what comes before our end is an early answer or its end."""
        poll = select.poll()
        poll.register(self._connection.sock, select.POLLIN)
        if poll.poll(0):
            raise ConnectionResetError("it has answered already, or closed the connection")


def format_trailers(report: ErrorReport | None) -> bytes:
    """Format the trailers of an error, as AWS's client for Rust does: the report in base64."""
    if report is None:
        return b""
    body = b64encode(json.dumps(report).encode())
    if len(body) > MAX_TRAILER_BYTES:
        body = b64encode(json.dumps({**report, "stackTrace": []}).encode())[:MAX_TRAILER_BYTES]
    error_type = str(report["errorType"]).encode("latin-1", "replace")
    return b"%b: %b\r\n%b: %b\r\n" % (ERROR_TYPE.encode(), error_type, ERROR_BODY.encode(), body)
