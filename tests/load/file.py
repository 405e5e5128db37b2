"""One large JSONL file through the S3 path, by handlers in processes of their own that are killed in the middle.

Spread, several handlers answer spans of it at once, as the state machine of infra/events.yaml has them do; a span whose
handler is killed is answered by another. What must come out: a line for each line, in order and once; progress that
only grows; a manifest that is right, and that was not there before the end.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3

from pilotlight.errors import NotFoundError
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes
from tests.conftest import Serial, aws_variables, moto_server

ROOT = Path(__file__).parents[2]
NAME = "large"
ROWS = 16  # in each request
WRONG = 997  # one line in so many is no JSON
ATTEMPTS = 3  # at a step, as infra/events.yaml has them retried
PART_BYTES = 4_000_000  # as in functions/batch_worker/caution.py
HANDLER = """
import json, sys
from functions.batch_worker import caution
from functions.batch_worker.handler import handle
caution.PART_BYTES = int(sys.argv[1])
print(json.dumps(handle(json.load(sys.stdin), None)))
"""


def line(number: int) -> bytes:
    """The request of that line, from 0."""
    if number % WRONG == WRONG - 1:
        return b'{"inputs": [\n'
    rows = [[number % 1000 + row / 7, row, -1.5] for row in range(ROWS)]
    given = {"name": "x", "shape": [ROWS, 3], "datatype": "FP32", "data": rows}
    return json.dumps({"id": str(number), "inputs": [given]}).encode() + b"\n"


def content(size: int) -> Iterator[bytes]:
    """Lines, at least `size` bytes of them, some at a time."""
    made = number = 0
    while made < size:
        block = b"".join(line(each) for each in range(number, number + 1000))
        number, made = number + 1000, made + len(block)
        yield block


def created(bucket: str, key: str) -> bytes:
    """S3's event of that upload, by EventBridge."""
    event = json.loads((ROOT / "tests" / "events" / "batch-created.json").read_text())
    event["detail"]["bucket"]["name"], event["detail"]["object"]["key"] = bucket, key
    return json.dumps(event).encode()


class Invocation:
    """One process with the real handler in it."""

    def __init__(self, store: str, event: bytes, part: int) -> None:
        path = os.pathsep.join((str(ROOT / "layers" / "core"), str(ROOT)))
        environment = {**os.environ, "PILOTLIGHT_STORE": store, "PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HANDLER, str(part)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(event)
        self.process.stdin.close()

    def killed_at(self, store: ObjectStore, percent: float) -> list[float]:
        """The progress that was seen until it was killed, once it had come so far."""
        seen = [0.0]
        while self.process.poll() is None and seen[-1] < percent:
            time.sleep(0.02)
            seen.append(progress(store).get("percent", 0.0))
        self.process.kill()
        self.close()
        return seen

    def close(self) -> int:
        """Wait for its end; the exit status, below 0 for a signal."""
        assert self.process.stdout is not None
        self.process.stdout.read()
        self.process.stdout.close()
        return self.process.wait()


def progress(store: ObjectStore) -> dict[str, Any]:
    """What anybody can read of how far the file is."""
    try:
        return dict(json.loads(store.get(f"outbox/{NAME}/progress.json").data))
    except NotFoundError:
        return {}


def run(mb: float, kills: tuple[float, ...] = (30.0, 70.0), part: int = PART_BYTES, spread: int = 0) -> dict[str, Any]:
    """Answer a file of that size, killed whenever it has come so many percent; what was seen, and the failures.

    With `spread`, by so many handlers at once, of which one is killed each time.
    """
    with moto_server(Serial) as url, patch.dict(os.environ, aws_variables(url)):
        bucket = f"models-{uuid.uuid4().hex}"
        boto3.client("s3").create_bucket(Bucket=bucket)
        store = open_store(f"s3://{bucket}")
        fakes.publish(Registry(store))
        store.put_chunks(f"inbox/{NAME}.jsonl", content(int(mb * 1e6)))
        if spread:
            return spread_out(store, kills, part, spread)
        return driven(store, created(bucket, f"inbox/{NAME}.jsonl"), kills, part)


def driven(store: ObjectStore, event: bytes, kills: tuple[float, ...], part: int) -> dict[str, Any]:
    """The invocations, and what they leave."""
    failures, seen, deaths, began = [], [], [], time.monotonic()
    for percent in kills:
        invocation = Invocation(store.url, event, part)
        seen += invocation.killed_at(store, percent)
        deaths.append(progress(store)["percent"])
        if invocation.process.returncode != -9 or deaths[-1] >= 100:
            failures.append(f"not killed at {percent} %: status {invocation.process.returncode}, {deaths[-1]} %")
        if f"outbox/{NAME}/manifest.json" in set(store.list_paths("outbox")):
            failures.append(f"there is a manifest at {deaths[-1]} %")
    if Invocation(store.url, event, part).close() != 0:
        failures.append("the last invocation failed")
    return told(store, failures, seen, deaths, time.monotonic() - began)


def spread_out(store: ObjectStore, kills: tuple[float, ...], part: int, workers: int) -> dict[str, Any]:
    """The steps of the state machine: split, answers at once, join."""
    job, seen, deaths, began = f"{store.url}/inbox/{NAME}.jsonl", list[float](), list[float](), time.monotonic()
    Invocation(store.url, step("split", job), part).close()
    starts = [each["start"] for each in json.loads(store.get(f"outbox/{NAME}/spans.json").data)]
    left = list(kills)

    def span(start: int) -> int:
        """Invoke until the span is done; the first to see so many percent is killed."""
        for _ in range(ATTEMPTS):
            invocation = Invocation(store.url, step("answer", job, start), part)
            while invocation.process.poll() is None:
                time.sleep(0.1)
                seen.append(progress(store).get("percent", 0.0))
                if left and seen[-1] >= left[0] and not invocation.process.poll():
                    left.pop(0)
                    invocation.process.kill()
                    deaths.append(seen[-1])
            if invocation.close() == 0:
                return 0
        return 1

    with ThreadPoolExecutor(workers) as threads:
        failures = ["a span was not answered"] * sum(threads.map(span, starts))
    joins = (Invocation(store.url, step("join", job), part).close() for _ in range(ATTEMPTS))  # until one succeeds
    if all(joins):
        failures.append("they were not joined")
    return told(store, failures, sorted(seen), deaths, time.monotonic() - began)


def step(name: str, job: str, start: int = 0) -> bytes:
    """What the state machine sends."""
    return json.dumps({"step": name, "job": job, "start": start}).encode()


def told(
    store: ObjectStore, failures: list[str], seen: list[float], deaths: list[float], seconds: float
) -> dict[str, Any]:
    """What the run gave."""
    failures += wrong(store)
    manifest = json.loads(store.get(f"outbox/{NAME}/manifest.json").data)
    return {
        "bytes": manifest["bytes"],
        "lines": manifest["lines"],
        "answered": manifest["answered"],
        "failed": manifest["failed"],
        "killed at percent": deaths,
        "progress seen": sorted({at for at in seen if at}),
        "invocations": manifest["invocations"],
        "seconds": round(seconds, 1),
        "failures": failures,
        "resident_mb": [],
    }


def wrong(store: ObjectStore) -> list[str]:
    """What the result or the manifest says that is not so."""
    failures, count, bad = [], 0, 0
    for count, text in enumerate(texts(whole(store, f"outbox/{NAME}.jsonl")), 1):
        said, number = json.loads(text), count - 1
        bad += "error" in said
        right = "error" in said if number % WRONG == WRONG - 1 else said.get("id") == str(number)
        if said["line"] != count or not right:
            failures.append(f"line {count}: {said}")
    digest, lines = hashlib.sha256(), 0
    for chunk in whole(store, f"inbox/{NAME}.jsonl"):
        digest.update(chunk)
        lines += chunk.count(b"\n")
    said = json.loads(store.get(f"outbox/{NAME}/manifest.json").data)
    told = {key: said[key] for key in ("lines", "answered", "failed", "sha256", "versions")}
    found = [count, count - bad, bad, digest.hexdigest(), ["double:1"]]
    if count != lines or list(told.values()) != found:
        failures.append(f"the manifest says {told}, there are {lines} lines and {found}")
    if list(store.list_paths(f"outbox/{NAME}/parts")):
        failures.append("parts are left over")
    return failures[:20]


def whole(store: ObjectStore, path: str) -> Iterator[bytes]:
    """A large object, however long its reader takes."""
    size, e_tag = store.get_size_and_e_tag(path)
    return store.iterate_blocks(path, 0, size, e_tag)


def texts(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a large object."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    yield from chain([rest] if rest else [])
