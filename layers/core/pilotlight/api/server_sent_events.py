"""Answers as server-sent events: frames of text, each ended by an empty line (WHATWG HTML, 9.2)."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from pilotlight.api.http import StreamedResponse

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
DONE = b"data: [DONE]\n\n"  # OpenAI's last frame
# Characters at which clients that read lines as Python's `splitlines` does, such as httpx, would cut a frame.
LINE_BREAKS = {each.encode(): f"\\u{ord(each):04x}".encode() for each in "\u0085\u2028\u2029"}


def encode_event(content: Any, name: str = "") -> bytes:  # noqa: ANN401 - anything that is encoded as JSON
    """Encode a frame with JSON, which has no line breaks in it, and with the event's name if it has one."""
    text = msgspec.json.encode(content)
    for line_break, escape in LINE_BREAKS.items():
        text = text.replace(line_break, escape)
    data = b"data: " + text + b"\n\n"
    return b"event: " + name.encode() + b"\n" + data if name else data


def encode_named_event(event: Mapping[str, Any]) -> bytes:
    """Encode an event as a frame with its type as its name."""
    return encode_event(event, event["type"])


class ServerSentEvents(Iterator[bytes]):
    """The frames of an answer; closing it tells what makes them that nobody reads on, even before the first frame.

    A generator alone would not: closed before its first frame, it never runs its `finally`.
    """

    def __init__(self, frames: Iterator[bytes], close: Callable[[], None]) -> None:
        self._frames = frames
        self._close = close

    def __iter__(self) -> "ServerSentEvents":
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._frames)
        except BaseException:  # its end, or a failure that no frame tells
            self._close()
            raise

    def close(self) -> None:
        """Stop: whoever makes the frames is told; safe to repeat."""
        self._close()


def stream_events(frames: Iterator[bytes], close: Callable[[], None]) -> StreamedResponse:
    """Build the response that sends these frames; `close` ends what makes them."""
    return StreamedResponse(200, ServerSentEvents(frames, close), HEADERS)
