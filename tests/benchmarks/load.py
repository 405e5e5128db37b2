"""Connections that send one request over and over, as fast as it is answered: requests/s, and each answer's time.

HTTP/1.1 by asyncio's protocols, so that the callers cost little beside the server that is measured.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import partial

END = b"\r\n\r\n"
LENGTH = b"content-length:"


@dataclass(frozen=True)
class Load:
    """What came back in so many seconds."""

    seconds: float
    times: list[float]  # s, of each answer


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, until: float, times: list[float], over: "asyncio.Future[None]") -> None:
        self._request, self._until, self._times, self._over = request, until, times, over
        self._got = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take an answer, or a part of one."""
        self._got += data
        head, end, body = bytes(self._got).partition(END)
        if not end or len(body) < length(head):
            return
        if b" 200 " not in head[:20]:
            self._fail(f"The server answered {bytes(self._got[:500])!r}")
            return
        now = time.perf_counter()
        self._times.append(now - self._sent)
        self._got.clear()
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Closed by us, unless it was too early."""
        if not self._over.done():
            self._over.set_result(None) if time.perf_counter() >= self._until else self._fail("The server hung up.")

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def _fail(self, why: str) -> None:
        self._transport.close()
        if not self._over.done():
            self._over.set_exception(RuntimeError(why))


def length(head: bytes) -> int:
    """The bytes of the body, by its header."""
    lower = head.lower()
    return int(lower.partition(LENGTH)[2].partition(b"\r\n")[0])


def request(port: int, path: str, body: bytes) -> bytes:
    """A POST of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Accept: */*\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def drive(port: int, sent: bytes, connections: int, seconds: float) -> Load:
    """Load a server on loopback; `RuntimeError` when it answers anything but 200."""
    return asyncio.run(_drive(port, sent, connections, seconds))


async def _drive(port: int, sent: bytes, connections: int, seconds: float) -> Load:
    loop, times = asyncio.get_running_loop(), list[float]()
    began = time.perf_counter()
    ends = [loop.create_future() for _ in range(connections)]
    for over in ends:
        await loop.create_connection(partial(Caller, sent, began + seconds, times, over), "127.0.0.1", port)
    await asyncio.gather(*ends)
    return Load(time.perf_counter() - began, times)
