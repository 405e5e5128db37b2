"""A handler that streams well and badly, for the tests of the local gateway; it runs in an environment's process."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]
EVENTS = {"content-type": "text/event-stream"}
POLL_S = 0.005


def handle(event: Event, context: object) -> Event:
    """Do what the path says."""
    return ANSWERS[event["pathParameters"]["what"]](event)


def answer(body: object, status: int = 200, **more: object) -> Event:
    return {"statusCode": status, "headers": dict(EVENTS), "body": body, **more}


def wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(POLL_S)


def stream_gated(event: Event) -> Event:
    """One chunk, and the next one once a file is there."""

    def chunks() -> Iterator[bytes]:
        yield b"one"
        wait_for(event["queryStringParameters"]["gate"])
        yield b"two"

    return answer(chunks())


def stream_and_fail(event: Event) -> Event:
    def chunks() -> Iterator[bytes]:
        yield b'data: {"choices":[{"index":0,"delta":{"content":"one"}}]}\n\n'
        raise ValueError("the tensor is flat")

    return answer(chunks())


def fail_before_the_first(event: Event) -> Event:
    def chunks() -> Iterator[bytes]:
        raise ValueError("the tensor is flat")
        yield b""

    return answer(chunks())


def stream_and_exit(event: Event) -> Event:
    def chunks() -> Iterator[bytes]:
        yield b"one"
        wait_for(event["queryStringParameters"]["gate"])
        os._exit(3)

    return answer(chunks())


def stream_and_hang(event: Event) -> Event:
    def chunks() -> Iterator[bytes]:
        yield b"one"
        time.sleep(600)

    return answer(chunks())


def stream_endlessly(event: Event) -> Event:
    """Chunks without end; how many there were is written to a file when they are closed."""
    told = Path(event["queryStringParameters"]["told"])
    beat = event["queryStringParameters"].get("beat") is not None  # without a byte, once it has begun

    def chunks() -> Iterator[bytes]:
        count = 0
        try:
            while True:
                count += 1
                yield b"" if beat and count > 1 else b"data: %d\n\n" % count
                time.sleep(0.001)
        finally:
            told.write_text(str(count))

    return answer(chunks())


def stream_much(event: Event) -> Event:
    return answer(b"x" * 65_536 for _ in range(int(event["queryStringParameters"]["count"])))


def answer_nothing(event: Event) -> Event:
    return answer(None, 204)


def answer_nothing_streamed(event: Event) -> Event:
    return answer(iter(()), 204)


def refuse(event: Event) -> Event:
    return {"statusCode": 400, "headers": {"content-type": "application/json"}, "body": '{"error":{}}'}


def answer_binary(event: Event) -> Event:
    return answer("AP8=", isBase64Encoded=True)


def answer_no_base64(event: Event) -> Event:
    return answer("A", isBase64Encoded=True)


def answer_half_a_pair(event: Event) -> Event:
    return answer("\ud800")  # half of a surrogate pair, which UTF-8 does not have


def describe_process(event: Event) -> Event:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return answer(f"{os.getpid()} {threading.active_count()} {descriptors}")


ANSWERS: dict[str, Callable[[Event], Event]] = {
    "gated": stream_gated,
    "fail": stream_and_fail,
    "fail-first": fail_before_the_first,
    "exit": stream_and_exit,
    "hang": stream_and_hang,
    "endless": stream_endlessly,
    "much": stream_much,
    "nothing": answer_nothing,
    "nothing-streamed": answer_nothing_streamed,
    "refuse": refuse,
    "binary": answer_binary,
    "no-base64": answer_no_base64,
    "half-a-pair": answer_half_a_pair,
    "process": describe_process,
}
