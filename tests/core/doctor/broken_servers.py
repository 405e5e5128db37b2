"""A proxy before a healthy gateway that bends what goes through it: one fault at a time, as a broken stack has it."""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.threaded_server import serve_in_thread

OF_CONNECTION = {"connection", "content-length", "transfer-encoding", "keep-alive"}


class Asked(NamedTuple):
    """A request; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Told(NamedTuple):
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON may hold anything
        return json.loads(self.body)

    def saying(self, content: object, status: int | None = None) -> "Told":
        return Told(status or self.status, self.headers, json.dumps(content).encode())

    def without(self, *names: str) -> "Told":
        return self._replace(headers={name: value for name, value in self.headers.items() if name not in names})


Next = Callable[[Asked], Told]
Bend = Callable[[Asked, Next], Told]


def straight(asked: Asked, onward: Next) -> Told:
    """No fault at all."""
    return onward(asked)


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server at `target`, through `bend`, and remembers them."""

    def __init__(self, target: str, bend: Bend) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urlsplit(target).netloc
        self.bend = bend
        self.asked: list[Asked] = []

    def onward(self, asked: Asked) -> Told:
        connection = HTTPConnection(self.target, timeout=60)
        connection.request(asked.method, asked.path, asked.body or None, dict(asked.headers))
        answer = connection.getresponse()
        told = Told(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return told


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else each answer waits 40 ms for an acknowledgement
    server: Proxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in OF_CONNECTION}
        asked = Asked(self.command, self.path, headers, body)
        self.server.asked.append(asked)
        told = self.server.bend(asked, self.server.onward)
        self.send_response_only(told.status)
        for name, value in told.headers.items():
            if name not in OF_CONNECTION:
                self.send_header(name, value)
        self.send_header("content-length", str(len(told.body)))
        self.end_headers()
        self.wfile.write(told.body)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server's spelling

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running(target: str, bend: Bend, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, Proxy]]:
    """The address of a proxy, and the proxy."""
    proxy = Proxy(target, bend)
    if tls is not None:
        proxy.socket = tls.wrap_socket(proxy.socket, server_side=True)
    with serve_in_thread(proxy):
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{proxy.server_port}", proxy
