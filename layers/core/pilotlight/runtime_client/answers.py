"""What a handler returns, in the two forms in which an answer to an HTTP request is sent.

A handler of a function that streams returns the reply of a proxy integration whose `body` may be an iterator of bytes.
In streaming mode the answer begins with a prelude, its status and headers as JSON, then 8 NUL bytes, then the body.
Source: API Gateway, developer guide, "Set up a Lambda proxy integration with payload response streaming".
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Any

HTTP_STREAM = "application/vnd.awslambda.http-integration-response"
PRELUDE_END = b"\x00" * 8
PRELUDE_KEYS = ("statusCode", "headers", "multiValueHeaders", "cookies")


def is_stream(result: Any) -> bool:  # noqa: ANN401 - whatever a handler returns
    """Return whether a handler's result is a reply whose body is made while it is sent."""
    return isinstance(result, dict) and isinstance(result.get("body"), Iterator)


def is_reply(result: Any) -> bool:  # noqa: ANN401 - whatever a handler returns
    """Return whether a handler's result is the reply of a proxy integration."""
    return isinstance(result, dict) and isinstance(result.get("statusCode"), int)


def build_prelude(reply: Mapping[str, Any]) -> bytes:
    """Build what a streamed answer begins with."""
    found = {key: reply[key] for key in PRELUDE_KEYS if reply.get(key) is not None}
    return json.dumps(found, ensure_ascii=False).encode() + PRELUDE_END


def iterate_body(reply: Mapping[str, Any]) -> Iterator[bytes]:
    """Return the chunks of a reply's body: as they are made, or one for a body that is there already."""
    body = reply.get("body")
    if isinstance(body, Iterator):
        return body
    if body is None:
        return iter(())
    return iter((b64decode(body) if reply.get("isBase64Encoded") else str(body).encode(),))


def join_body(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reply with its body in one piece, as a text if it is one, else in base64."""
    data = b"".join(iterate_body(reply))
    try:
        return {**reply, "body": data.decode(), "isBase64Encoded": False}
    except UnicodeDecodeError:
        return {**reply, "body": b64encode(data).decode(), "isBase64Encoded": True}


def close_body(body: object) -> None:
    """Tell what makes the chunks of a body that nobody takes more of them."""
    close = getattr(body, "close", None)
    if close is not None:
        close()
