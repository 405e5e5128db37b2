"""A plain HTTP client for the tests: one request, or several over one connection."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 60


@dataclass(frozen=True)
class Reply:
    """An HTTP response, read in full."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  # JSON may hold anything
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of an error that the gateway made, as the fixture's template words it."""
        (message,) = self.json.values()
        assert self.json == {"message": message}
        return str(message)


class Connection:
    """A kept-alive connection."""

    def __init__(self, url: str) -> None:
        self.http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        self.http.request(method, path, body, dict(headers or {}))
        response = self.http.getresponse()
        return Reply(response.status, response.headers, response.read())


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    connection = Connection(url)
    with closing(connection.http):
        yield connection


def ask(
    url: str, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """One request over a connection of its own."""
    with connected(url) as connection:
        return connection.ask(method, path, body, headers)


def get(url: str, path: str) -> Reply:
    return ask(url, "GET", path)
