import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.errors import DeniedError
from pilotlight.storage import download as transfer
from pilotlight.storage import wire
from pilotlight.storage.download import download_object
from pilotlight.storage.object_store import open_store
from pilotlight.storage.wire import UnexpectedError, Wire, ranged

CONTENT = bytes(range(256)) * 20


class Plain(BaseHTTPRequestHandler):
    """Ranges of CONTENT; what has a signature in its query, as our sockets send it, is answered by `fault` if any."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        ours = "X-Amz-Signature" in self.path or urlsplit(self.path).query == "ours"
        if ours and self.server.fault is not None:
            self.server.faults += 1
            self.wfile.write(self.server.fault)
            self.close_connection = True
            return
        if self.server.denies:
            self._send(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
            return
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        data = CONTENT[int(first) : int(last) + 1]
        self._send(206, data, f"bytes {first}-{int(first) + len(data) - 1}/{len(CONTENT)}")

    def do_HEAD(self) -> None:
        """Asked for only where a GET failed."""
        self._send(403, b"")

    def _send(self, status: int, data: bytes, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Not on the screen."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    fault: bytes | None = None
    faults = 0
    denies = False
    connections = 0

    def get_request(self) -> tuple[socket.socket, object]:
        self.connections += 1
        return super().get_request()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/file?ours"


@contextmanager
def serving() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Plain) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Callable[[], int]]:
    with (tmp_path / "target").open("w+b") as file:
        yield file.fileno


def there(fd: int) -> bytes:
    return os.pread(fd, 1 << 20, 0)


def test_copies_ranges_to_their_places_over_one_connection(server: Server, target: Callable[[], int]) -> None:
    with Wire() as line:
        for start in range(0, len(CONTENT), 1000):
            end = start + 1000
            assert line.copy(server.url, target(), start, end) == (min(end, len(CONTENT)), len(CONTENT))
    assert there(target()) == CONTENT
    assert server.connections == 1


HEAD = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-999/5120\r\nContent-Length: 1000\r\n{}\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + CONTENT[:1000],
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        HEAD.format("Transfer-Encoding: chunked\r\n").encode() + CONTENT[:1000],
        HEAD.format("Content-Encoding: gzip\r\n").encode() + CONTENT[:1000],
        HEAD.format("").replace("bytes 0-", "bytes 1-").encode() + CONTENT[:1000],
        HEAD.format("").replace("0-999", "0-998").encode() + CONTENT[:1000],
        HEAD.format("").replace("Length: 1000", "Length: 1001").encode() + CONTENT[:1001],
        HEAD.format("").replace("5120", "*").encode() + CONTENT[:1000],
        HEAD.format("").encode() + CONTENT[:1001],
        b"HTTP/1.1 206 Partial Content\r\n" + b"x: y\r\n" * 20_000,
        b"\x16\x03\x01\r\n\r\n",
    ],
)
def test_gives_up_on_any_other_answer_with_nothing_written(
    server: Server, target: Callable[[], int], answer: bytes
) -> None:
    server.fault = answer
    with Wire() as line:
        reached, size = line.copy(server.url, target(), 0, 1000)
    assert reached == 0
    assert reached < min(1000, size)
    assert there(target()) == b""


def test_tells_how_far_a_body_came_that_ends_early(server: Server, target: Callable[[], int]) -> None:
    server.fault = HEAD.format("").encode() + CONTENT[:700]
    with Wire() as line:
        assert line.copy(server.url, target(), 0, 1000) == (700, 5120)
    assert there(target()) == CONTENT[:700]


def test_gives_up_on_a_silent_server(target: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, Wire() as line:
        assert line.copy(f"http://127.0.0.1:{silent.getsockname()[1]}/x", target(), 0, 10) == (0, 10)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://127.0.0.1:99999/x", "http://[/x", "http:///x"])
def test_gives_up_where_there_is_no_server(target: Callable[[], int], url: str) -> None:
    with Wire() as line:
        assert line.copy(url, target(), 3, 10) == (3, 10)


@given(head=st.binary(max_size=200), start=st.integers(0, 10), end=st.integers(11, 20))
def test_any_head_is_a_range_or_unexpected(head: bytes, start: int, end: int) -> None:
    with suppress(UnexpectedError):
        assert ranged(b"HTTP/1.1 206 \r\n" + head, start, end)


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setattr(transfer, "PART_BYTES", 1000)
    return f"s3://models?endpoint=http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    "fault",
    [None, b"", b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n", HEAD.format("").encode() + CONTENT[:700]],
)
def test_obstore_reads_what_the_sockets_do_not(
    server: Server, bucket: str, tmp_path: Path, fault: bytes | None
) -> None:
    server.fault = fault
    with (tmp_path / "target").open("w+b") as file:
        found = download_object(open_store(bucket), "file", file, len(CONTENT))
    assert found == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert bool(server.faults) == (fault is not None)


def test_what_obstore_cannot_read_either_is_told_in_its_words(server: Server, bucket: str, tmp_path: Path) -> None:
    server.denies = True
    with (tmp_path / "target").open("w+b") as file, pytest.raises(DeniedError, match="403"):
        download_object(open_store(bucket), "file", file, len(CONTENT))


def test_goes_by_a_proxy_where_there_is_one(
    server: Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # obstore heeds that one too
    server.fault = b""
    with (tmp_path / "target").open("w+b") as file:
        download_object(open_store(bucket), "file", file, len(CONTENT))
    assert server.faults == 0
