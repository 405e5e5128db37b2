"""Hostile bodies at every door of the real local gateway: status, time, processor time, and the environment's memory.

None may end an environment, take longer than 2 s, or be refused with more than 2 kB. The doors are V2 in JSON and in
binary form, `/invocations`, a message of a queue and a file of the inbox; the last two are events, given to the
function by the Invoke API as Lambda's event sources give them.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import psutil

from functions.batch_worker.inbox_file import InboxFile
from pilotlight.errors import NotFoundError
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes
from tests.conformance.test_tasks import drawings, sentences
from tests.load.hostile_bodies import (
    BINARY_HEADER,
    EVENT_BYTES,
    MESSAGE_BYTES,
    HostileBody,
    build_binary,
    build_bodies,
    build_png,
    build_v2,
)

ROOT = Path(__file__).parents[2]
SECRET = "the-secret-of-this-load"  # of a gateway that ends with it
LIMIT_S = 2.0
MAX_ERROR_BYTES = 2_000  # of an answer that refuses a body
DOORS = ("json", "binary", "invocations", "queue", "inbox")
COSTLY = 5  # refused bodies that are named
SHOWN = 90  # characters of an error, in the table
WAIT_S = 150.0  # for an answer, however slow
MIB = 1024 * 1024
PREDICT, BATCH = "functions.predict.handler", "functions.batch_worker.handler"
GOOD = {
    "digits": build_v2("[1,1,8,8]", "[" + "0," * 63 + "0]"),
    "sentences": build_v2("[1]", '["a flame"]', "BYTES", "text"),
    "drawings": b"",
}


@dataclass(frozen=True)
class SentRequest:
    """A request as it goes over the wire."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What one body did at one door."""

    body: str
    door: str
    sent_bytes: int
    status: str
    ms: float
    cpu_ms: float
    peak_mb: float
    is_alive: bool
    error: str

    @property
    def failure(self) -> str:
        """What must not happen, if it did."""
        if not self.is_alive:
            return "the environment ended"
        if self.ms > LIMIT_S * 1000:
            return f"took over {LIMIT_S:g} s"
        if len(self.error.encode()) > MAX_ERROR_BYTES:
            return f"an error of {len(self.error.encode()):,} bytes"
        return "a server error" if self.status in {"500", "502", "503", "504", "lost"} else ""


def shape_json(body: HostileBody) -> SentRequest | None:
    """Shape a body for V2 in JSON."""
    return _shape_http(body, f"/v2/models/{body.model}/infer", body.v2 or None)


def shape_binary(body: HostileBody) -> SentRequest | None:
    """Shape a body for V2 in binary form."""
    if body.binary is None:
        return None
    head, tail, length = body.binary
    return _shape_http(body, f"/v2/models/{body.model}/infer", head + tail, {BINARY_HEADER: length})


def shape_invocations(body: HostileBody) -> SentRequest | None:
    """Shape a body for MLflow's protocol."""
    return _shape_http(body, f"/invocations?model={body.model}", body.mlflow, {"Content-Type": "application/json"})


def _shape_http(
    body: HostileBody, path: str, raw: bytes | None, headers: dict[str, str] | None = None
) -> SentRequest | None:
    if raw is None:
        return None
    sent = body.encoded(raw) if body.encoding else raw
    encoding = {"Content-Encoding": body.encoding} if body.encoding else {}
    return SentRequest(path, sent, (headers or {}) | encoding)


def shape_message(body: HostileBody) -> bytes | None:
    """Shape a body as the text of a message; a message has no content encoding and is UTF-8."""
    text = body.message or (body.v2 if not body.encoding else None)
    return None if not text or len(text) > MESSAGE_BYTES else text


@dataclass(frozen=True)
class Outcome:
    """What became of a body, and why it was refused."""

    status: str
    error: str = ""


class Doors:
    """The ways into one gateway."""

    def __init__(self, url: str, store: ObjectStore) -> None:
        self._address = urlsplit(url)
        self._store = store
        self._numbers = count(1)

    def send(self, request: SentRequest) -> tuple[str, bytes]:
        """Send a request; the status, or `lost` if the connection was."""
        with closing(HTTPConnection(self._address.netloc, timeout=WAIT_S)) as connection:
            try:
                connection.request("POST", request.path, request.body, request.headers)
                answer = connection.getresponse()
                return str(answer.status), answer.read()
            except (OSError, HTTPException):
                return "lost", b""

    def invoke_batch(self, event: dict[str, Any]) -> tuple[str, Any]:
        """Invoke the function of queues and files; the status of the call, and what it answered."""
        path = f"/{SECRET}/2015-03-31/functions/BatchFunction/invocations"
        status, content = self.send(SentRequest(path, json.dumps(event).encode()))
        return status, json.loads(content) if status == "200" and content else {}

    def infer(self, request: SentRequest) -> Outcome:
        """Send a request for an inference; what became of it."""
        status, content = self.send(request)
        return Outcome(status, "" if status == "200" else content.decode(errors="replace"))

    def deliver_message(self, text: bytes, model: str) -> Outcome:
        """Deliver a message; what became of it. Why one is refused is not told, since a log would quote it."""
        attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": str(int(time.time() * 1000))}
        record = {
            "messageId": f"message-{next(self._numbers)}",
            "receiptHandle": "x",
            "body": text.decode(errors="replace"),
            "attributes": attributes,
            "messageAttributes": {"model_name": {"stringValue": model, "dataType": "String"}},
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:pilotlight-Events-Queue",
            "awsRegion": "eu-central-1",
        }
        status, answer = self.invoke_batch({"Records": [record]})
        if "errorMessage" in answer or status != "200":
            return name_failure(status, answer)
        return Outcome("refused" if answer.get("batchItemFailures") else "answered")

    def put_file(self, content: bytes, suffix: str, model: str) -> Outcome:
        """Put a file into the inbox, and tell the function of it; what became of it."""
        name = f"{model}/file-{next(self._numbers)}.{suffix}"
        self._store.put(f"inbox/{name}", content)
        event = {
            "detail-type": "Pilotlight Inference",
            "source": "load",
            "id": name,
            "detail": {"s3_uri": f"{self._store.url}/inbox/{name}"},
        }
        status, answer = self.invoke_batch(event)
        if "errorMessage" in answer or status != "200":
            return name_failure(status, answer)
        return self._name_result(name)

    def _name_result(self, name: str) -> Outcome:
        try:
            manifest = json.loads(self._store.get(f"{InboxFile(f'inbox/{name}').folder}/manifest.json").data)
        except NotFoundError:
            return Outcome("no result")
        error = manifest["refused"] or next((line["error"] for line in manifest["errors"]), "")
        return Outcome("refused" if error else "answered", error)


def name_failure(status: str, answer: dict[str, Any]) -> Outcome:
    """Name what became of an invocation that failed."""
    text = str(answer.get("errorMessage", ""))
    if text.startswith("Internal server error") and " failed with " not in text:
        return Outcome("502", text)
    is_refused = answer.get("errorType") or " failed with InvalidInputError" in text
    return Outcome("refused" if is_refused else status, text)


def send_to_doors(doors: Doors, body: HostileBody) -> Iterator[tuple[str, str, int, Callable[[], Outcome]]]:
    """Yield the doors that have a form for a body: name, handler, bytes, and the call that gives the status."""
    for name, shape in (("json", shape_json), ("binary", shape_binary), ("invocations", shape_invocations)):
        request = shape(body)
        if request is not None and (body.v2 or name != "json"):
            if len(request.body) * 4 // 3 > EVENT_BYTES:
                continue  # the gateway refuses it without a function
            yield name, PREDICT, len(request.body), partial(doors.infer, request)
    text = shape_message(body)
    if text is not None:
        yield "queue", BATCH, len(text), lambda: doors.deliver_message(text, body.model)
    suffix, content = body.file or ("jsonl", b"" if body.encoding else body.v2 + b"\n")
    if content.strip():
        yield "inbox", BATCH, len(content), lambda: doors.put_file(content, suffix, body.model)


def find_environment(handler: str) -> psutil.Process | None:
    """Find the process of the only environment of a function."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if handler in " ".join(child.cmdline()):
                return child
    return None


def reset_peak(process: psutil.Process) -> None:
    """Let the kernel count the peak of the process's memory from here on."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def read_peak(process: psutil.Process) -> float:
    """Read the peak of the process's memory in MB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def measure_call(doors: Doors, body: str, door: str, handler: str, size: int, call: Callable[[], Outcome]) -> Row:
    """Send one body to one door, whose environment is warm."""
    before = find_environment(handler) or warm_up(doors, handler)
    reset_peak(before)
    cpu_s, began = read_processor_time(before), time.perf_counter()
    outcome = call()
    ms, cpu_ms = (time.perf_counter() - began) * 1000, (read_processor_time(before) - cpu_s) * 1000
    peak = read_peak(before)
    is_alive = before.is_running() and peak > 0
    times = round(ms, 1), max(0.0, round(cpu_ms, 1))
    return Row(body, door, size, outcome.status, *times, round(peak, 1), is_alive, outcome.error)


def read_processor_time(process: psutil.Process) -> float:
    """Read how many seconds of processors a process and those it has started took; 0 if it has ended."""
    try:
        used = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(used.user + used.system + used.children_user + used.children_system)


def warm_up(doors: Doors, handler: str) -> psutil.Process:
    """Start an environment, and have it open every model."""
    for model, body in GOOD.items():
        if handler == PREDICT:
            sent = SentRequest(f"/v2/models/{model}/infer", body) if body else shape_good_image()
            status, content = doors.send(sent)
            assert status == "200", content
        elif body:
            assert doors.deliver_message(body, model).status == "answered"
    found = find_environment(handler)
    assert found is not None, f"{handler} has no environment"
    return found


def shape_good_image() -> SentRequest:
    """Shape a small image."""
    content = build_png(8, 100)
    head, tail, length = build_binary("[1]", len(content).to_bytes(4, "little") + content, "BYTES")
    return SentRequest("/v2/models/drawings/infer", head + tail, {BINARY_HEADER: length})


def publish(store: str) -> ObjectStore:
    """Publish the stock models: digits, the same behind images, and texts behind a real tokenizer."""
    opened = open_store(store)
    registry = Registry(opened)
    fakes.publish_digits(registry)
    drawings(registry)
    sentences(registry)
    return opened


@contextmanager
def serve_stock_models(workers: int = 1, memory: int = 0) -> Iterator[tuple[str, ObjectStore]]:
    """Serve them by the real gateway; `memory` is that of the functions with models in MB, 0 the template's."""
    with TemporaryDirectory() as folder:
        store = publish(folder)
        environment = {"PILOTLIGHT_STORE": folder, "PILOTLIGHT_ALIAS_SECONDS": "3600", **fakes.QUIET}
        gateway = Gateway(
            ROOT / "template.yaml", port=0, workers=workers, environment=environment, secret=SECRET,
            parameters={"ModelMemory": str(memory)} if memory else {},
        )  # fmt: skip
        with gateway.serve_in_background() as url:
            yield url, store


def run(only: str = "", memory: int = 0) -> dict[str, Any]:
    """Send every body, or those with a word in their name, to every door; print the table on standard error."""
    rows = []
    with serve_stock_models(memory=memory) as (url, store):
        doors = Doors(url, store)
        for handler in (PREDICT, BATCH):
            warm_up(doors, handler)
        print_line("body", "door", "bytes", "status", "ms", "CPU ms", "peak MB", "failure", "error")
        for body in build_bodies():
            for door, handler, size, call in send_to_doors(doors, body) if only in body.name else ():
                row = measure_call(doors, body.name, door, handler, size, call)
                rows.append(row)
                print_line(
                    row.body, row.door, row.sent_bytes, row.status, row.ms, row.cpu_ms, row.peak_mb, row.failure or "-",
                    " ".join(row.error[:SHOWN].split()),
                )  # fmt: skip
    return describe_rows(rows)


def describe_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Describe what all bodies did, and which of those that were refused cost most."""
    refused = [row for row in rows if row.status not in {"200", "answered"}]
    costly = sorted(refused, key=lambda row: -row.cpu_ms)[:COSTLY]
    return {
        "bodies": len({row.body for row in rows}),
        "calls": len(rows),
        "slowest_ms": max((row.ms for row in rows), default=0.0),
        "peak_mb": max((row.peak_mb for row in rows), default=0.0),
        "longest_error": max((len(row.error.encode()) for row in rows), default=0),
        "ended": sum(not row.is_alive for row in rows),
        "refused": len(refused),
        "refused_cpu_ms": {f"{row.body} at {row.door}": row.cpu_ms for row in costly},
        "table": list(tabulate_rows(rows)),
        "failures": [
            f"{row.body} at {row.door}: {row.failure} ({row.status}, {row.ms} ms)" for row in rows if row.failure
        ],
    }


def tabulate_rows(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line of Markdown for each body: status, ms and peak MB at each door."""
    yield f"| body | {' | '.join(DOORS)} |"
    yield "|---" * (1 + len(DOORS)) + "|"
    for body in dict.fromkeys(row.body for row in rows):
        found = {row.door: f"{row.status} {row.ms:.0f} {row.peak_mb:.0f}" for row in rows if row.body == body}
        yield f"| {body} | {' | '.join(found.get(door, '') for door in DOORS)} |"


def print_line(*cells: object) -> None:
    """Print one line of the table."""
    widths = (38, 11, 9, 9, 9, 9, 8, 24, 0)
    sys.stderr.write("  ".join(str(cell).ljust(width) for cell, width in zip(cells, widths, strict=True)) + "\n")
    sys.stderr.flush()
