"""What our runtime client sends, byte by byte, to a Runtime API of the test's own."""

import socket
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing

import pytest

from pilotlight.runtime_client.answers import HTTP_STREAM
from pilotlight.runtime_client.runtime_connection import (
    MAX_TRAILER_BYTES,
    ReaderGoneError,
    RuntimeApiError,
    RuntimeConnection,
    format_trailers,
)

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"
REPORT = {"errorType": "ValueError", "errorMessage": "the tensor is flat", "stackTrace": ["line"]}


class FakeRuntimeApi:
    """Takes one connection, which the test reads and answers."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.client = RuntimeConnection(f"127.0.0.1:{self.listener.getsockname()[1]}")

    def accept(self) -> socket.socket:
        self.listener.settimeout(60)
        connection, _ = self.listener.accept()
        connection.settimeout(60)
        return connection


@pytest.fixture
def api() -> Iterator[FakeRuntimeApi]:
    fake = FakeRuntimeApi()
    with closing(fake.listener), closing(fake.client):
        yield fake


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        received = connection.recv(65_536)
        assert received, f"the connection ended behind {data!r}"
        data += received
    return data


def answer_in_background(
    connection: socket.socket, end: bytes, answer: bytes
) -> "tuple[threading.Thread, list[bytes]]":
    """Read up to `end`, then answer; the list gets what was read."""
    received: list[bytes] = []

    def answer_it() -> None:
        received.append(read_until(connection, end))
        connection.sendall(answer)

    thread = threading.Thread(target=answer_it)
    thread.start()
    return thread, received


def test_a_stream_is_sent_as_the_runtime_api_wants_it(api: FakeRuntimeApi) -> None:
    stream = api.client.open_stream("id-1", HTTP_STREAM)
    stream.write(b'{"statusCode":200}' + bytes(8))
    with closing(api.accept()) as connection:
        head, _, first = read_until(connection, bytes(8) + b"\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\n")
        for line in (
            b"Lambda-Runtime-Function-Response-Mode: streaming",
            b"Transfer-Encoding: chunked",
            b"Content-Type: application/vnd.awslambda.http-integration-response",
            b"Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
        ):
            assert line in head.split(b"\r\n")
        assert first == b'1a\r\n{"statusCode":200}' + bytes(8) + b"\r\n"
        stream.write(b"")  # which would be the end in chunked encoding
        stream.write(b"token")
        thread, received = answer_in_background(connection, b"0\r\n\r\n", ACCEPTED)
        stream.finish()
        thread.join()
        assert received == [b"5\r\ntoken\r\n0\r\n\r\n"]


def test_an_error_is_sent_as_trailers(api: FakeRuntimeApi) -> None:
    stream = api.client.open_stream("id-1", HTTP_STREAM)
    stream.write(b"x")
    with closing(api.accept()) as connection:
        read_until(connection, b"1\r\nx\r\n")
        thread, received = answer_in_background(connection, b"\r\n\r\n", ACCEPTED)
        stream.finish(REPORT)
        thread.join()
    end, error_type, error_body = received[0].strip().split(b"\r\n")
    assert (end, error_type) == (b"0", b"Lambda-Runtime-Function-Error-Type: ValueError")
    name, _, body = error_body.partition(b": ")
    assert name == b"Lambda-Runtime-Function-Error-Body"
    assert b"the tensor is flat" in b64decode(body)


def test_a_long_error_fits_into_a_trailer() -> None:
    trailers = format_trailers({**REPORT, "stackTrace": ["x" * MAX_TRAILER_BYTES]})
    assert len(trailers) < MAX_TRAILER_BYTES
    assert b"the tensor is flat" in b64decode(trailers.strip().rpartition(b" ")[2])
    assert len(format_trailers({**REPORT, "errorMessage": "x" * MAX_TRAILER_BYTES})) < MAX_TRAILER_BYTES + 200


def test_a_closed_connection_is_noticed_with_the_next_chunk_and_opened_again(api: FakeRuntimeApi) -> None:
    stream = api.client.open_stream("id-1", HTTP_STREAM)
    stream.write(b"x")
    with closing(api.accept()) as connection:
        read_until(connection, b"1\r\nx\r\n")
    with pytest.raises(ReaderGoneError):
        stream.write(b"")
    posted = threading.Thread(target=api.client.post, args=("invocation/id-2/response", b"{}"))
    posted.start()
    with closing(api.accept()) as connection:
        assert read_until(connection, b"{}").startswith(b"POST /2018-06-01/runtime/invocation/id-2/response")
        connection.sendall(ACCEPTED)
    posted.join()


def test_an_early_answer_ends_the_stream(api: FakeRuntimeApi) -> None:
    stream = api.client.open_stream("id-1", HTTP_STREAM)
    stream.write(b"x")
    with closing(api.accept()) as connection:
        read_until(connection, b"1\r\nx\r\n")
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(ReaderGoneError, match="answered already"):
            stream.write(b"y")


def test_a_refusal_at_the_end_is_no_good_end(api: FakeRuntimeApi) -> None:
    stream = api.client.open_stream("id-1", HTTP_STREAM)
    stream.write(b"x")
    with closing(api.accept()) as connection:
        read_until(connection, b"1\r\nx\r\n")
        thread, _ = answer_in_background(connection, b"0\r\n\r\n", b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(ReaderGoneError, match="400"):
            stream.finish()
        thread.join()


def test_a_refused_request_for_work_is_told(api: FakeRuntimeApi) -> None:
    caught: list[RuntimeApiError] = []

    def ask() -> None:
        try:
            api.client.next_event()
        except RuntimeApiError as exc:
            caught.append(exc)

    asking = threading.Thread(target=ask)
    asking.start()
    with closing(api.accept()) as connection:
        assert read_until(connection, b"\r\n\r\n").startswith(b"GET /2018-06-01/runtime/invocation/next")
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\ncontainer")
        asking.join()
    assert [str(exc) for exc in caught] == ["The Runtime API answered 500 to invocation/next: container"]
