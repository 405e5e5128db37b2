"""An S3 on loopback that serves what a registry holds, takes writes, and fails as networks and stores do."""

import hashlib
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

from pilotlight.storage.object_store import ObjectStore
from tests.threaded_server import serve_in_thread

BUCKET = "models"
DRIP_S = 0.05  # between two bytes of a slow answer


class FaultyS3(ThreadingHTTPServer):
    """Objects by key; `fault` holds for the keys that contain `where`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.objects: dict[str, bytes] = {}
        self.fault, self.where = "", ""
        self.share = 1.0  # of the requests that the fault hits
        self.count = inf  # requests that it hits at most
        self.before: dict[str, bytes] = {}  # what a stale read gives
        self.asked_at: list[float] = []  # s, monotonic, of each request
        self.late_s = 5.0
        self.connections: set[socket.socket] = set()
        self._chance = random.Random(1)  # noqa: S311 - a repeatable run, not a secret
        self._lock = threading.Lock()  # of the conditional writes
        self.stopped = threading.Event()  # lets go of the answers that hang
        self.failures = 0

    @property
    def url(self) -> str:
        """The store's URL for `open_store`."""
        return f"s3://{BUCKET}?endpoint=http://127.0.0.1:{self.server_port}"

    def close_connections(self) -> None:
        """Close every connection that is kept alive, as a load balancer does with idle ones."""
        for connection in list(self.connections):
            with suppress(OSError):  # closed by the client
                connection.shutdown(socket.SHUT_RDWR)

    def copy(self, store: ObjectStore) -> None:
        """Serve what is in that store now."""
        self.objects = {path: store.get(path).data for path in store.list_paths("")}

    def fail(self, fault: str, where: str, share: float = 1.0, count: float = inf) -> None:
        """From now on, a share of the requests, and so many of them."""
        self.fault, self.where, self.failures, self.share, self.count = fault, where, 0, share, count
        self.before = dict(self.objects)

    def choose_fault(self, key: str) -> str:
        """The fault of a request; empty for none."""
        self.asked_at.append(time.monotonic())
        is_hit = self.fault and self.where in key and self.failures < self.count
        if not is_hit or self._chance.random() >= self.share:
            return ""
        self.failures += 1
        return self.fault

    def write(self, key: str, data: bytes, expected: str, *, is_new: bool) -> bool:
        """Write an object if the condition holds, as S3 does: at once or not at all."""
        with self._lock:
            existing = self.objects.get(key)
            if (is_new and existing is not None) or (expected and (existing is None or expected != e_tag(existing))):
                return False
            self.objects[key] = data
            return True

    def heal(self) -> None:
        """From now on, answer rightly; what hangs ends."""
        self.fault = ""
        self.stopped.set()
        self.stopped = threading.Event()


def e_tag(data: bytes) -> str:
    """The e_tag of these bytes."""
    return hashlib.sha256(data).hexdigest()[:32]


class Answer(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def setup(self) -> None:
        """Note the connection."""
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        """Forget the connection."""
        self.server.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        """An object, or a listing."""
        place = urlsplit(self.path)
        key = unquote(place.path).removeprefix(f"/{BUCKET}").lstrip("/")
        if not key:
            self._send(200, self._listing(parse_qs(place.query)))
            return
        data = self.server.objects.get(key)
        if data is None:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        fault = self.server.choose_fault(key)
        if fault == "stale":
            data, fault = self.server.before.get(key, data), ""
        getattr(self, f"_{fault or 'whole'}")(data)

    def do_HEAD(self) -> None:
        """The size of an object."""
        data = self.server.objects.get(unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/"))
        self._head(200 if data is not None else 404, data or b"")

    def do_PUT(self) -> None:
        """A write, perhaps under a condition; a fault comes before it, or behind it where the answer is lost."""
        key = unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")
        length = int(self.headers.get("Content-Length", "0"))
        data = self.rfile.read(length)
        if len(data) < length:  # the client went away
            self.close_connection = True
            return
        fault = self.server.choose_fault(key)
        if fault in ("slow_down", "403", "500", "late", "expired"):
            getattr(self, f"_{fault}")(data)
            if fault != "late":
                return
        expected, is_new = self.headers.get("If-Match", ""), self.headers.get("If-None-Match") == "*"
        if not self.server.write(key, data, expected.strip('"'), is_new=is_new):
            self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        elif fault == "truncated":  # written, and the answer does not come
            self.close_connection = True
        elif fault != "late":
            self._head(200, b"", data)

    def do_DELETE(self) -> None:
        """A deletion."""
        self.server.objects.pop(unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/"), None)
        self._head(204, b"")

    def do_POST(self) -> None:
        """A deletion of several, as obstore sends it for one too; its faults are those where `delete` is."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        keys = [unescape(key) for key in re.findall(r"<Key>(.*?)</Key>", body)]
        fault = self.server.choose_fault(f"delete {keys}")
        if fault:
            getattr(self, f"_{fault}")(b"")
            return
        for key in keys:
            self.server.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._send(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _whole(self, data: bytes) -> None:
        self.wfile.write(self._begin(data))

    def _begin(self, data: bytes) -> bytes:
        """Send the head for an object, or for the range of it that is asked for; gives the body."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            self._head(200, data)
            return data
        start, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        part = data[start : end + 1]
        self._head(206, part, data, f"bytes {start}-{end}/{len(data)}")
        return part

    def _timeout(self, data: bytes) -> None:
        self.server.stopped.wait(60)
        self.close_connection = True

    def _slow_down(self, data: bytes) -> None:
        self._send(503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")

    def _late(self, data: bytes) -> None:
        self.server.stopped.wait(self.server.late_s)
        self._whole(data) if self.command == "GET" else self._head(200, b"", data)

    def _500(self, data: bytes) -> None:
        self._send(500, b"<Error><Code>InternalError</Code></Error>")

    def _expired(self, data: bytes) -> None:
        self._send(400, b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>")

    def _403(self, data: bytes) -> None:
        self._send(403, b"<Error><Code>AccessDenied</Code></Error>")

    def _truncated(self, data: bytes) -> None:
        body = self._begin(data)
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def _flipped(self, data: bytes) -> None:
        self._whole(data[:-1] + bytes([data[-1] ^ 1]))

    def _drip(self, data: bytes) -> None:
        body, stopped = self._begin(data), self.server.stopped
        for at in range(len(body)):
            self.wfile.write(body[at : at + 1])
            if stopped.wait(DRIP_S):
                break
        self.close_connection = True

    def _send(self, status: int, data: bytes) -> None:
        self._head(status, data)
        self.wfile.write(data)

    def _head(self, status: int, data: bytes, stored: bytes | None = None, content_range: str = "") -> None:
        self.send_response(status)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{e_tag(data if stored is None else stored)}"')
        self.send_header("Last-Modified", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(0)))
        self.end_headers()

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        if delimiter:
            below = (key.removeprefix(prefix) for key in list(self.server.objects) if key.startswith(prefix))
            folders = sorted({name.split("/")[0] for name in below if "/" in name})
            found = "".join(
                f"<CommonPrefixes><Prefix>{escape(prefix + folder)}/</Prefix></CommonPrefixes>" for folder in folders
            )
            return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>x</ETag>"
            "<LastModified>2026-11-23T00:00:00.000Z</LastModified></Contents>"
            for key, data in sorted(self.server.objects.copy().items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()

    def log_message(self, *_: object) -> None:
        """Not on the screen."""


@contextmanager
def serving() -> Iterator[FaultyS3]:
    """A server of its own, until the context ends."""
    server = FaultyS3()
    with serve_in_thread(server):
        yield server
        server.heal()
