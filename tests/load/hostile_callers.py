"""Callers who mean harm, at a running gateway: hostile bodies, half-sent requests, closed halves, wrong keys, noise."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from tests.load.hostile import SentRequest, shape_binary, shape_invocations, shape_json
from tests.load.hostile_bodies import EVENT_BYTES, build_bodies

HALVES = 100  # half-sent requests that are held open at a time
BODY_CALLERS = 2
LONGEST = 8  # bodies that are named
REST_S = 0.05  # between two requests of one caller, so that the good ones find a processor too
HALF_SENT = (
    b"",
    b"POST /v2/mod",
    b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{",
    b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n{",
)
NOISE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example.com\r\n\r\n",
    b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500,
)
WRONG_KEYS = (
    {"Authorization": "Bearer not-a-key"},
    {"x-api-key": "not-a-key"},
    {"Authorization": "AWS4-HMAC-SHA256 x"},
    {"Authorization": "Bearer " + "x" * 9000},
)
GUARDED = (
    "/v2/models/digits/infer",
    "/2015-03-31/functions/PromoteFunction/invocations",
    f"/{'0' * 32}/2015-03-31/functions/PromoteFunction/invocations",
)


class HostileCallers:
    """Threads that are active between `come` and `go`, and end with `leave`."""

    def __init__(self, url: str, seed: int = 1) -> None:
        self._address = urlsplit(url)
        self._requests = list_requests()
        self._is_active, self._is_over = threading.Event(), threading.Event()
        self.counts: Counter[str] = Counter()
        self.ms: Counter[str] = Counter()  # for which each hostile body was waited for, in all
        works: list[Callable[[random.Random], None]] = [
            *[self._send_body] * BODY_CALLERS, self._hold_halves, self._close_half, self._try_key, self._make_noise,
        ]  # fmt: skip
        self._threads = [
            threading.Thread(target=self._repeat, args=(work, random.Random(seed + number)), daemon=True)  # noqa: S311
            for number, work in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    def come(self) -> None:
        """Begin."""
        self._is_active.set()

    def go(self) -> None:
        """Pause, once each has ended what it is doing."""
        self._is_active.clear()

    def leave(self) -> None:
        """End."""
        self._is_over.set()
        self._is_active.set()
        for thread in self._threads:
            thread.join(120)

    def describe(self) -> dict[str, Any]:
        """Describe what was sent, what came of it, and which bodies were waited for longest."""
        ms = {body: round(spent) for body, spent in self.ms.most_common(LONGEST)}
        return dict(sorted(self.counts.items())) | {"ms": ms}

    def _repeat(self, work: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self._is_over.is_set():
            self._is_active.wait()
            with suppress(OSError, HTTPException):
                work(chance)
            time.sleep(REST_S)

    def _connect(self) -> socket.socket:
        return socket.create_connection((self._address.hostname, self._address.port), timeout=60)

    def _post(self, request: SentRequest) -> int:
        connection = HTTPConnection(self._address.netloc, timeout=60)
        try:
            connection.request("POST", request.path, request.body, request.headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def _send_body(self, chance: random.Random) -> None:
        self.counts["bodies"] += 1
        name, request = chance.choice(self._requests)
        began = time.perf_counter()
        self.counts[f"bodies answered {self._post(request)}"] += 1
        self.ms[name] += int((time.perf_counter() - began) * 1000)

    def _hold_halves(self, chance: random.Random) -> None:
        """Open many half-sent requests, and send a byte to some of them now and then."""
        halves = [self._connect() for _ in range(HALVES)]
        self.counts["half-sent requests"] += len(halves)
        try:
            for half in halves:
                half.sendall(chance.choice(HALF_SENT))
            until = time.monotonic() + 15
            while self._is_active.is_set() and time.monotonic() < until:
                with suppress(OSError):  # it was closed, as it should be
                    chance.choice(halves).sendall(b"x")
                time.sleep(0.1)
        finally:
            for half in halves:
                half.close()

    def _close_half(self, chance: random.Random) -> None:
        with self._connect() as connection:
            self.counts["closed halves"] += 1
            connection.sendall(chance.choice(HALF_SENT))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)

    def _try_key(self, chance: random.Random) -> None:
        self.counts["wrong keys"] += 1
        self._post(SentRequest(chance.choice(GUARDED), b"{}", chance.choice(WRONG_KEYS)))

    def _make_noise(self, chance: random.Random) -> None:
        with self._connect() as connection:
            self.counts["noise"] += 1
            connection.sendall(chance.choice(NOISE))
            connection.settimeout(0.2)
            connection.recv(1000)


def list_requests() -> list[tuple[str, SentRequest]]:
    """List the requests of all hostile bodies that the gateway would pass on, with the names of the bodies."""
    found = []
    for body in build_bodies():
        shaped = (shape_json(body), shape_binary(body), shape_invocations(body))
        found += [(body.name, each) for each in shaped if each and len(each.body) * 4 // 3 <= EVENT_BYTES]
    return found
