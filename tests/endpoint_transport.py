"""Endpoints behind an HTTP client: requests of real clients become events of the gateway, without a socket."""

import re
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import httpx2

from pilotlight.api.http import Response, StreamedResponse
from pilotlight.api.request_context import RequestContext
from pilotlight.api.router import Router, Routes


class FakeGenerationService:
    """Opens one model, whatever reference is asked for; the references stay in `references`."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - a language model, real or not
        self.model = model
        self.references: list[str] = []

    def answer(self, reference: object, context: object, caller: object, answer: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - of any endpoint
        self.references.append(str(reference))
        opened = SimpleNamespace(
            language_model=self.model, generate=self.model.generate, key=(self.model.name, 1), manifest=None
        )
        return answer(opened)


class ByteStream(httpx2.SyncByteStream):
    """Chunks of an answer; whether the client has closed them is known."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks

    def close(self) -> None:
        self.chunks.close()  # type: ignore[attr-defined]  # each is a generator


def build_transport(routes: Routes, **options: Any) -> httpx2.MockTransport:  # noqa: ANN401 - the router's
    """Build a transport that routes requests as the gateway does."""
    router = Router(routes, **options)

    def handle(request: httpx2.Request) -> httpx2.Response:
        resource, parameters = match_route(routes, request.url.path)
        event = {
            "resource": resource,
            "httpMethod": request.method,
            "pathParameters": parameters,
            "headers": dict(request.headers),
            "body": request.read().decode(),
            "requestContext": {"requestId": "r"},
        }
        answer: Response | StreamedResponse = router.dispatch(event, RequestContext())
        if isinstance(answer, StreamedResponse):
            return httpx2.Response(answer.status, headers=dict(answer.headers), stream=ByteStream(answer.chunks))
        return httpx2.Response(answer.status, headers=dict(answer.headers), content=answer.body)

    return httpx2.MockTransport(handle)


def match_route(routes: Routes, path: str) -> tuple[str, Mapping[str, str]]:
    """Find the route of a path, and its parameters; an unknown path is its own route."""
    for resource in routes:
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", resource), path)
        if found is not None:
            return resource, found.groupdict()
    return path, {}
