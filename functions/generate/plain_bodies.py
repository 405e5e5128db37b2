"""Bodies without their content encoding, which callers choose by a header as on the routes of predictions."""

from collections.abc import Mapping

from msgspec.structs import replace

from pilotlight.api import compression
from pilotlight.api.http import ENCODING_HEADER, Request
from pilotlight.api.router import Answer, Endpoint

MAX_BODY_BYTES = 6_000_000  # once decompressed; about what the gateway lets through as it is, since texts take time


def read_plain_bodies(verbs: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """Let the endpoints of a route get bodies that are decompressed."""
    return {verb: with_plain_body(endpoint) for verb, endpoint in verbs.items()}


def with_plain_body(endpoint: Endpoint) -> Endpoint:
    """Let an endpoint get a body that is decompressed; the router answers for one that cannot be."""

    def answer(request: Request) -> Answer:
        encoding = request.headers.get(ENCODING_HEADER)
        if not encoding:
            return endpoint(request)
        return endpoint(replace(request, body=compression.decompress_body(request.body, encoding, MAX_BODY_BYTES)))

    return answer
