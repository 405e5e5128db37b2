"""Clients that are slow, or send too much, or are too many: over real sockets, with the functions of `stack/`."""

import base64
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pilotlight.local.connections import ConnectionLimits, count_connections
from pilotlight.local.gateway import Gateway
from tests.core.local.conftest import STACK
from tests.core.local.http_client import ask, get
from tests.fakes import eventually

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
HASTE = ConnectionLimits(head_s=0.2, body_s=0.2, least_rate=1e6, idle_s=0.4)


@contextmanager
def gateway(stack: Path, limits: ConnectionLimits) -> Iterator[str]:
    with Gateway(stack, port=0, workers=1, connections=limits).serve_in_background() as url:
        yield url


@pytest.fixture(scope="module")
def hasty() -> Iterator[str]:
    """A gateway whose clients have a fifth of a second."""
    with gateway(STACK, HASTE) as url:
        yield url


@pytest.fixture(scope="module")
def usual() -> Iterator[str]:
    """A gateway with the limits that it has by default."""
    with gateway(STACK, ConnectionLimits()) as url:
        yield url


def connect(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the gateway closes the connection."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        return found
    return found


def parse_refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    return int(head.split()[1]), json.loads(body)["message"]


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", ""),
        (b"\r\n\r\n", ""),
        (b"GE", "the headers did not arrive within 0.2 s"),
        (HEAD, "the headers did not arrive within 0.2 s"),
        (HEAD + b"X-Half: ", "the headers did not arrive within 0.2 s"),
        (HEAD + b"Content-Length: 100\r\n\r\n", "only 0 bytes of the body arrived within"),
        (HEAD + b"Content-Length: 100\r\n\r\nhalf", "only 4 bytes of the body arrived within"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "only 4 bytes of the body arrived within"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ", "only 0 bytes of the body arrived within"),
    ],
)
def test_request_that_stops_in_the_middle_is_a_408(hasty: str, sent: bytes, says: str) -> None:
    with connect(hasty) as connection:
        connection.sendall(sent)
        answer = read_all(connection)
    if says:
        status, text = parse_refusal(answer)
        assert (status, says in text) == (408, True)
    else:
        assert answer == b""
    assert get(hasty, "/echo").status == 200


def test_stray_line_ends_do_not_keep_an_idle_connection(hasty: str) -> None:
    with connect(hasty) as connection:
        connection.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n")  # uvicorn would wait for ever
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_client_that_does_not_read_its_answer_is_closed(stack: Path) -> None:
    with gateway(stack, ConnectionLimits(body_s=0.2, least_rate=1e8)) as url, connect(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /act/large HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        eventually(lambda: is_reset(connection))


def is_reset(connection: socket.socket) -> bool:
    """Whether the other side has closed the connection, without reading from it."""
    try:
        connection.sendall(b"\r\n")
    except OSError:
        return True
    return False


def test_head_over_10240_bytes_is_a_431(usual: str) -> None:
    for name in (b"A: ", b"A" * 5000 + b": "):
        with connect(usual) as connection:
            connection.sendall(HEAD + name + b"x" * 12_000 + b"\r\n\r\n")
            status, text = parse_refusal(read_all(connection))
            assert status == 431
            assert text.startswith("HTTP header is larger than 10240 bytes")
    assert ask(usual, "GET", "/echo", headers={"A": "x" * 9_900}).status == 200


def test_head_without_an_end_is_refused_before_it_has_one(usual: str) -> None:
    with connect(usual) as connection:
        connection.sendall(HEAD)
        for _ in range(64):  # each in a packet of its own
            connection.sendall(b"A: " + b"x" * 1000 + b"\r\n")
        assert parse_refusal(read_all(connection))[0] == 431


def test_refusal_is_the_last_answer_and_never_that_of_another_request(usual: str) -> None:
    large = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 12_000 + b"\r\n\r\n"
    right = b"GET /act/print-ahead HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(usual) as connection:
        connection.sendall(large + right)
        assert read_all(connection).count(b"HTTP/1.1 ") == 1
    assert "print-ahead" not in get(usual, "/act/pid").json["seen"]
    with connect(usual) as connection:
        connection.sendall(b"GET /act/sleep?s=0.3 HTTP/1.1\r\nHost: localhost\r\n\r\n" + large)
        assert read_all(connection) == b""


def test_client_that_sends_ahead_and_goes_leaves_no_traceback(usual: str, caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn notes only for the last of the requests that nobody reads the answer."""
    with caplog.at_level("ERROR", "uvicorn.error"):
        for _ in range(3):
            with connect(usual) as connection:
                connection.sendall((HEAD + b"Content-Length: 2\r\n\r\n{}") * 2)
        assert get(usual, "/echo").status == 200  # by the same environment, which takes one after the other
    assert "Exception in ASGI application" not in caplog.text


def test_headers_after_the_body_are_dropped(usual: str) -> None:
    with connect(usual) as connection:
        late = b"X-Api-Key: somebody's\r\nHost: elsewhere\r\n"
        connection.sendall(
            HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + late + b"\r\n"
        )
        event = json.loads(read_all(connection).partition(b"\r\n\r\n")[2])["event"]
        assert "x-api-key" not in event["headers"]
        assert event["headers"]["host"] == "localhost"


def test_body_without_an_end_is_read_up_to_a_limit(stack: Path) -> None:
    with gateway(stack, ConnectionLimits(unread_bytes=11_000_000)) as url, connect(url) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        assert send_until_refused(connection, b"f4240\r\n" + bytes(1_000_000) + b"\r\n") < 1000


def send_until_refused(connection: socket.socket, part: bytes) -> int:
    for number in range(1000):
        try:
            connection.sendall(part)
        except OSError:
            return number
    return 1000


def test_bodies_of_all_requests_together_have_a_limit(stack: Path) -> None:
    with gateway(stack, ConnectionLimits(held_bytes=1_000_000)) as url, ExitStack() as open_ones:
        for _ in range(4):
            waiting = open_ones.enter_context(connect(url))
            waiting.sendall(HEAD + b"Content-Length: 300000\r\n\r\n" + bytes(290_000))
        status, text = parse_refusal(read_all(waiting))
        assert status == 429
        assert "memory" in text
        open_ones.close()
        eventually(lambda: fits(url))


def fits(url: str) -> bool:
    return ask(url, "POST", "/echo", bytes(900_000)).status == 200


def test_requests_sent_ahead_have_a_limit(stack: Path) -> None:
    with gateway(stack, ConnectionLimits(pipelined=8)) as url:
        with connect(url) as connection:
            connection.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
            assert read_all(connection).count(b"HTTP/1.1 200 ") < 9
        with connect(url) as connection:
            some = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n" * 7
            connection.sendall(some + b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert read_all(connection).count(b"HTTP/1.1 200 ") == 8


def test_longest_waiting_connection_makes_room_and_a_working_one_does_not(stack: Path) -> None:
    with gateway(stack, ConnectionLimits(count=3)) as url, ExitStack() as open_ones:
        working = open_ones.enter_context(connect(url))
        working.sendall(b"GET /act/sleep?s=0.4 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        halves = [open_ones.enter_context(connect(url)) for _ in range(6)]
        for half in halves:
            with suppress(ConnectionError):  # it has made room already
                half.sendall(HEAD)
        assert get(url, "/echo").status == 200
        assert read_all(halves[0]) == b""
        assert read_all(working).startswith(b"HTTP/1.1 200 ")


def test_new_connection_is_told_when_all_are_working(stack: Path) -> None:
    with gateway(stack, ConnectionLimits(count=2)) as url, ExitStack() as open_ones:
        for _ in range(2):
            working = open_ones.enter_context(connect(url))
            working.sendall(b"GET /act/sleep?s=0.4 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: is_refused(url))


def is_refused(url: str) -> bool:
    with connect(url) as connection:
        answer = read_all_within(connection, 0.1)
        return answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n") and b"retry-after: 1\r\n" in answer


def read_all_within(connection: socket.socket, seconds: float) -> bytes:
    connection.settimeout(seconds)
    try:
        return read_all(connection)
    except TimeoutError:
        return b""


FLOODED = """
import json, resource, socket, sys, threading
from pathlib import Path
from urllib.parse import urlsplit
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from pilotlight.local.gateway import Gateway
Gateway(Path(sys.argv[1]), port=0, workers=1).serve(lambda url: print(url, flush=True))
"""


def test_three_hundred_half_sent_requests_lock_nobody_out(stack: Path) -> None:
    command = [sys.executable, "-c", FLOODED, str(stack)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ExitStack() as open_ones:
        open_ones.callback(process.terminate)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        for number in range(300):
            half = open_ones.enter_context(connect(url))
            half.sendall(HEAD if number % 2 else HEAD + b"Content-Length: 100\r\n\r\nhalf")
            if number % 50 == 0:
                assert get(url, "/echo").status == 200
        assert [get(url, "/echo").status for _ in range(5)] == [200] * 5


def test_as_many_connections_as_there_are_files_for() -> None:
    assert count_connections(ConnectionLimits(count=10), 1) == 10
    assert 1 <= count_connections(ConnectionLimits(count=10**9), 10**6) < 10**9


BODY = b'{"a":1}'
SIZED, CHUNKED = b"Content-Length: 7\r\n\r\n" + BODY, b"Transfer-Encoding: chunked\r\n\r\n"
IN_CHUNKS = CHUNKED + b'3\r\n{"a\r\n4;x=y\r\n":1}\r\n0\r\nX-Trailer: 1\r\n\r\n'
CLOSE = b"Connection: close\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"


@pytest.mark.parametrize("piece", [1, 60, 1_000_000])
@pytest.mark.parametrize(
    "sent",
    [
        HEAD + H2C + SIZED,
        HEAD + H2C + IN_CHUNKS,
        HEAD + b"Connection: close\r\nCONNECTION: upgrade\r\nUpgrade: TLS/1.0, HTTP/2.0\r\n" + SIZED,
        HEAD + b"Upgrade: websocket\r\nConnection: UPGRADE,close\r\n" + SIZED,
        HEAD + b"Upgrade: h2c\r\n" + CLOSE + SIZED,
        HEAD + CLOSE + b"Expect: 100-Continue\r\n" + SIZED,
        HEAD + b"Connection: TE, close\r\nTE: trailers\r\n" + SIZED,
        HEAD + b"Connection: close, keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n" + SIZED,
        HEAD + CLOSE + IN_CHUNKS,
        HEAD + CLOSE + b"X-Empty:\r\nx-empty: \r\ncOnTeNt-lEnGtH: \t 7 \t\r\n\r\n" + BODY,
        b"\r\n\r\n" + HEAD + CLOSE + SIZED,
        b"POST /echo HTTP/1.0\r\n" + SIZED,
        b"POST /%65cho HTTP/1.1\r\nHost: localhost\r\n" + CLOSE + SIZED,
        HEAD.replace(b"/echo", b"http://localhost:80/echo") + CLOSE + SIZED,
        HEAD.replace(b"/echo", b"http://localhost:80/prod/echo?a=/b") + CLOSE + SIZED,
    ],
)
def test_body_arrives_however_old_or_new_its_client_is(usual: str, sent: bytes, piece: int) -> None:
    with connect(usual) as connection:
        for start in range(0, len(sent), piece):
            connection.sendall(sent[start : start + piece])
        answer = read_all(connection).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    event = json.loads(answer.partition(b"\r\n\r\n")[2])["event"]
    assert base64.b64decode(event["body"]) == BODY if event["isBase64Encoded"] else event["body"] == BODY.decode()
    assert event["headers"].keys() & {"http2-settings", "x-trailer"} == set()


def test_requests_go_on_after_an_offer(usual: str) -> None:
    """As Java's client does, which offers once and sends its next requests over the same connection."""
    first = HEAD + H2C.replace(b", close", b"") + SIZED
    with connect(usual) as connection:
        connection.sendall(first + first + HEAD + CLOSE + SIZED)
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (HEAD + CLOSE + b"X-Folded: a\r\n b\r\n" + SIZED, "Unexpected whitespace after header value"),
        (HEAD + CLOSE + b"Content-Length: 8\r\n" + SIZED, "Duplicate Content-Length"),
        (HEAD + CLOSE + b"Transfer-Encoding: chunked\r\n" + SIZED, "Content-Length can't be present"),
        (HEAD + CLOSE + b"Content-Length : 7\r\n\r\n" + BODY, "Invalid header field char"),
        (HEAD.replace(b"\r\n", b"\n") + SIZED, "Expected CRLF"),
        (b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", "invalid url"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "Invalid method"),
    ],
)
def test_what_is_no_http_is_refused_with_a_sentence(usual: str, sent: bytes, says: str) -> None:
    with connect(usual) as connection:
        connection.sendall(sent)
        status, message = parse_refusal(read_all(connection))
    assert status == 400
    assert message.startswith("Bad Request: this is not HTTP/1.1 as it must be (")
    assert says in message


@pytest.mark.parametrize("target", [b"http://localhost", b"http://localhost?a=b", b"*"])
def test_target_without_a_path_is_no_route(usual: str, target: bytes) -> None:
    with connect(usual) as connection:
        connection.sendall(b"OPTIONS %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (target, CLOSE))
        assert read_all(connection).startswith(b"HTTP/1.1 404 Not Found\r\n")
