"""An object store on loopback for measures: GET and HEAD with ranges as S3 answers them, over TLS, at a given rate.

    python -m tests.benchmarks.objects FOLDER CERTIFICATE [BYTES_PER_SECOND]

CERTIFICATE is a PEM file with the private key and the chain. Connections share the rate, as those of a Lambda sandbox
share its network. Signatures are not checked. It prints its port and runs until it is killed.
"""

import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import botocore
import trustme

SLICE = 256 << 10  # bytes; at 78 MB/s one lasts 3 ms
BURST_S = 0.05  # of unused time that is made up for, as the buffers on a real way do


class Link:
    """What all connections share: bytes per second, 0 for as many as there are."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, size: int) -> None:
        """Return when `size` more bytes are through."""
        if not self._rate:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() - BURST_S) + size / self._rate
            until = self._free_at
        time.sleep(max(until - time.monotonic(), 0))


class Objects(BaseHTTPRequestHandler):
    """One connection; the path is /bucket/key and the file lies at bucket/key below the folder."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path
    link: Link

    def do_HEAD(self) -> None:
        """What is there, without its bytes."""
        self._answer(with_body=False)

    def do_GET(self) -> None:
        """The object or a range of it."""
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if not path.is_file():
            self._missing()
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, end = self._range(size)
            self._head(size, start, end)
            if with_body:
                self._send(file.fileno(), start, end)

    def _range(self, size: int) -> tuple[int, int]:
        """The first byte and the one behind the last."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return 0, size
        return int(asked[1]), min(int(asked[2] or size) + 1, size)

    def _head(self, size: int, start: int, end: int) -> None:
        partial = "Range" in self.headers
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        for name, value in {
            "Content-Length": str(end - start),
            "Content-Type": "binary/octet-stream",
            "Accept-Ranges": "bytes",
            "ETag": f'"{size:x}"',
            "Last-Modified": formatdate(0, usegmt=True),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def _send(self, source: int, start: int, end: int) -> None:
        while start < end:
            size = min(SLICE, end - start)
            self.link.wait(size)
            self.connection.sendall(os.pread(source, size, start))
            start += size

    def _missing(self) -> None:
        body = b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class TlsServer(ThreadingHTTPServer):
    """Answers each connection in a thread of its own, the TLS handshake included."""

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), Objects)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)


@contextmanager
def serve_objects(folder: Path, rate: float = 0) -> Iterator[dict[str, str]]:
    """Run a server over `folder` in a process of its own; give the variables by which AWS's clients and ours reach it.

    The bundle of trusted certificates holds the public authorities too, since to load them is part of a cold start.
    """
    with TemporaryDirectory() as name:
        certificate, bundle = Path(name) / "server.pem", Path(name) / "authorities.pem"
        authority = trustme.CA()
        certificate.write_bytes(authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())
        public = (Path(botocore.__file__).parent / "cacert.pem").read_bytes()
        bundle.write_bytes(public + authority.cert_pem.bytes())
        command = [sys.executable, "-m", "tests.benchmarks.objects", str(folder), str(certificate), str(rate)]
        with Popen(command, stdout=PIPE, text=True) as process:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            try:
                yield {
                    "AWS_ENDPOINT_URL": f"https://127.0.0.1:{port}",
                    "AWS_CA_BUNDLE": str(bundle),  # boto3's
                    "SSL_CERT_FILE": str(bundle),  # obstore's
                }
            finally:
                process.kill()


def main(folder: str, certificate: str, rate: str = "0") -> None:
    """Serve until killed."""
    Objects.folder, Objects.link = Path(folder), Link(float(rate))
    with TlsServer(Path(certificate)) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
