"""An S3 on loopback that serves what a registry holds, and fails as networks and stores do."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from pilotlight.storage.object_store import ObjectStore

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
        self.stopped = threading.Event()  # lets go of the answers that hang
        self.failures = 0

    @property
    def url(self) -> str:
        """The store's URL for `open_store`."""
        return f"s3://{BUCKET}?endpoint=http://127.0.0.1:{self.server_port}"

    def copy(self, store: ObjectStore) -> None:
        """Serve what is in that store now."""
        self.objects = {path: store.get(path).data for path in store.list_paths("")}

    def fail(self, fault: str, where: str) -> None:
        """From now on."""
        self.fault, self.where, self.failures = fault, where, 0

    def heal(self) -> None:
        """From now on, answer rightly; what hangs ends."""
        self.fault = ""
        self.stopped.set()
        self.stopped = threading.Event()


class Answer(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FaultyS3

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
        fault = self.server.fault if self.server.where in key else ""
        if fault:
            self.server.failures += 1
        getattr(self, f"_{fault or 'whole'}")(data)

    def _whole(self, data: bytes) -> None:
        self._send(200, data)

    def _timeout(self, data: bytes) -> None:
        self.server.stopped.wait(60)
        self.close_connection = True

    def _500(self, data: bytes) -> None:
        self._send(500, b"<Error><Code>InternalError</Code></Error>")

    def _403(self, data: bytes) -> None:
        self._send(403, b"<Error><Code>AccessDenied</Code></Error>")

    def _truncated(self, data: bytes) -> None:
        self._head(200, data)
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True

    def _flipped(self, data: bytes) -> None:
        self._send(200, data[:-1] + bytes([data[-1] ^ 1]))

    def _drip(self, data: bytes) -> None:
        self._head(200, data)
        stopped = self.server.stopped
        for at in range(len(data)):
            self.wfile.write(data[at : at + 1])
            if stopped.wait(DRIP_S):
                break
        self.close_connection = True

    def _send(self, status: int, data: bytes) -> None:
        self._head(status, data)
        self.wfile.write(data)

    def _head(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:32]}"')
        self.send_header("Last-Modified", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(0)))
        self.end_headers()

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>x</ETag>"
            "<LastModified>2026-11-23T00:00:00.000Z</LastModified></Contents>"
            for key, data in sorted(self.server.objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()

    def log_message(self, *_: object) -> None:
        """Not on the screen."""


@contextmanager
def serving() -> Iterator[FaultyS3]:
    """A server of its own, until the context ends."""
    with FaultyS3() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.heal()
        server.shutdown()
        thread.join()
