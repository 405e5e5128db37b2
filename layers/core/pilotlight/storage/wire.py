"""Ranges of objects over sockets of our own: HTTP/1.1 without TLS, from the socket into a file by one buffer.

obstore takes twice the CPU for each byte (infra/decisions/0017). It stays the one that reads and writes everything but
large files, that signs, and that mends: whatever here is not the plain answer to a plain question ends the copy where
it is, and obstore reads the rest, with its retries and its words for errors. Not for TLS, which python reads by records
of 16 kB and takes the interpreter's lock for each. Sockets know URLs that are signed already.
"""

import os
import re
import socket
import struct
from types import TracebackType
from urllib.parse import SplitResult, urlsplit

SILENCE_S = 3.0  # of a server, after which obstore asks again
CHUNK_BYTES = 1 << 20  # of the buffer: smaller ones take the interpreter's lock more often, larger ones the same CPU
MOST_HEAD_BYTES = 64 << 10  # before the body begins
END = b"\r\n\r\n"  # of the head


class UnexpectedError(Exception):
    """An answer that is not simply the bytes that were asked for."""


class Wire:
    """Connections to one server, each for one copy at a time, until the context ends."""

    def __init__(self) -> None:
        self._idle: list[Connection] = []

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            self._idle.pop().close()

    def copy(self, url: str, fd: int, start: int, end: int) -> tuple[int, int]:
        """Copy bytes `start` to before `end` of what is at `url` to the same place in an open file; safe for threads.

        Gives how far it came, and the size of the object. It is a failure if it came less far than both.
        """
        size, connection = end, None
        try:
            connection = self._connection(url)
            size, last, got = connection.ask(url, start, end)
            start += os.pwrite(fd, got, start)
            while start < last:
                start += os.pwrite(fd, connection.read(last - start), start)
            if connection.lasts:
                self._idle.append(connection)
                connection = None
        except (OSError, UnexpectedError, ValueError):  # ValueError: a header or a URL that is none
            pass
        finally:
            if connection is not None:
                connection.close()
        return start, size

    def _connection(self, url: str) -> "Connection":
        try:
            return self._idle.pop()
        except IndexError:
            return Connection(urlsplit(url))


class Connection:
    """A socket to a server, and a buffer."""

    def __init__(self, place: SplitResult) -> None:
        self._socket = socket.create_connection((place.hostname or "", place.port or 80), timeout=SILENCE_S)
        # The kernel's own limit: python's would make the socket one that returns with whatever has come.
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(SILENCE_S))
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        self.lasts = True  # for another request

    def ask(self, url: str, start: int, end: int) -> tuple[int, int, memoryview]:
        """Ask for a range; gives the object's size, where the answer ends, and the first of its bytes.

        `UnexpectedError` for any other answer.
        """
        place = urlsplit(url)
        target = f"{place.path}?{place.query}" if place.query else place.path
        self._socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {place.netloc}\r\nRange: bytes={start}-{end - 1}\r\n\r\n".encode("ascii")
        )
        head, got = self._head()
        self.lasts = not re.search(rb"(?i)\r\nconnection:\s*close", head)
        size, last = ranged(head, start, end)
        if len(got) > last - start:
            raise UnexpectedError("There is more than was asked for.")
        return size, last, got

    def read(self, size: int) -> memoryview:
        """The next bytes of the body, at most `size`, until the next call.

        A whole buffer at once: to get the interpreter's lock back may take 0.5 ms while something else is imported.
        """
        got = self._socket.recv_into(self._buffer, min(size, CHUNK_BYTES), socket.MSG_WAITALL)
        if not got:
            raise UnexpectedError("The body ends early.")
        return self._buffer[:got]

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def _head(self) -> tuple[bytes, memoryview]:
        """The head of an answer, and what came of the body with it."""
        filled = 0
        while filled < MOST_HEAD_BYTES:
            got = self._socket.recv_into(self._buffer[filled:MOST_HEAD_BYTES])
            filled += got
            head, end, _ = bytes(self._buffer[:filled]).partition(END)
            if end:
                return head, self._buffer[len(head) + len(END) : filled]
            if not got:
                break
        raise UnexpectedError("The head does not end.")


def ranged(head: bytes, start: int, end: int) -> tuple[int, int]:
    """The object's size and the place behind the last byte of an answer, which must be the range, as it is stored."""
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    found = re.fullmatch(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})", headers.get("content-range", ""))
    if not re.match(r"HTTP/1\.1 206\b", status) or found is None:
        raise UnexpectedError(f"{status} has no range.")
    first, last, size = (int(number) for number in found.groups())
    as_stored = not headers.keys() & {"transfer-encoding", "content-encoding"}
    whole = (first, last + 1) == (start, min(end, size)) and headers.get("content-length") == str(last + 1 - first)
    if not as_stored or not whole:
        raise UnexpectedError("It is not the range that was asked for, or not as it is stored.")
    return size, last + 1


def timeval(seconds: float) -> bytes:
    """C's struct timeval."""
    whole, part = divmod(seconds, 1)
    return struct.pack("ll", int(whole), int(part * 1e6))
