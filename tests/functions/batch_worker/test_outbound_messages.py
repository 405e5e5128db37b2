"""A large file over the state machine of infra/events.yaml: split, answered span by span at once, joined in order."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from functions.batch_worker import caution, file_handler, file_job, record_reader
from functions.batch_worker.handler import BatchWorker, build_batch_worker
from functions.batch_worker.input_file import split_byte_ranges
from functions.batch_worker.inputs import BatchCall, CsvRow
from functions.batch_worker.line_formats import OpenAIBatchFormat
from pilotlight.contracts.batch import BatchRequest, batch_document_path, generate_sortable_id
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import ManifestFile
from pilotlight.errors import InvalidInputError, StoreError
from pilotlight.registry.registry import Registry, build_manifest
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes
from tests.functions.batch_api.conftest import calls
from tests.functions.batch_worker.machine import Aws, Machine, running
from tests.functions.batch_worker.test_file_handler import jsonl


class Stack:
    """A bucket with a model, the state machine, and the batch function in as many environments as are asked for."""

    def __init__(self, aws: Aws) -> None:
        bucket = f"models-{uuid.uuid4().hex}"
        boto3.client("s3").create_bucket(Bucket=bucket)
        self.store = open_store(f"s3://{bucket}/a/prefix")
        fakes.publish(Registry(self.store))
        self.sqs = boto3.client("sqs")
        self.dead_letters = self.sqs.create_queue(QueueName=f"dead-{uuid.uuid4().hex}")["QueueUrl"]
        self.machine = Machine(self.dead_letters)
        self.steps: Counter[str] = Counter()
        self.aws = aws
        aws.handler = self.handle

    def environment(self, store: ObjectStore | None = None) -> BatchWorker:
        return build_batch_worker(
            Settings(spreader=self.machine.arn, spread_bytes=1000, spread_at_once=4), store or self.store
        )

    def handle(self, event: dict[str, Any], context: object) -> dict[str, Any]:
        self.steps[event["step"]] += 1
        return self.environment()(event, context)

    def upload(self, name: str, data: bytes) -> str:
        self.store.put(f"inbox/{name}", data)
        return self.tell(f"{self.store.url}/inbox/{name}")

    def tell(self, uri: str) -> str:
        event = {"detail-type": "Pilotlight Inference", "id": "e-1", "detail": {"s3_uri": uri}}
        return str(self.environment()(event, None)["done"][0])

    def result(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.store.get(f"outbox/{name}").data.splitlines()]


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setattr(file_handler, "SPAN_BYTES", 1500)
    monkeypatch.setattr(caution, "PART_BYTES", 400)
    with running(lambda event, context: {}, monkeypatch) as aws:
        yield Stack(aws)


def test_a_large_file_is_split_answered_at_once_and_joined_in_order(stack: Stack) -> None:
    data = b"\xef\xbb\xbf" + jsonl(30) + b"{\n\n" + jsonl(30)
    assert stack.upload("double/a.jsonl", data) == "inbox/double/a.jsonl is spread."
    ended = stack.machine.ended()
    assert ended["status"] == "SUCCEEDED", ended
    said = stack.result("double/a.jsonl")
    assert [each["line"] for each in said] == [*range(1, 32), *range(33, 63)]
    assert [each.get("id") for each in said] == [*map(str, range(30)), None, *map(str, range(30))]
    manifest = json.loads(stack.store.get("outbox/double/a/manifest.json").data)
    assert (manifest["lines"], manifest["answered"], manifest["failed"]) == (61, 60, 1)
    assert [wrong["line"] for wrong in manifest["errors"]] == [31]
    assert stack.steps["answer"] >= 4
    assert not list(stack.store.list_paths("outbox/double/a/parts"))
    assert stack.tell(f"{stack.store.url}/inbox/double/a.jsonl") == "inbox/double/a.jsonl is answered already."
    assert stack.machine.count == 1


def test_a_small_file_is_not(stack: Stack) -> None:
    assert stack.upload("a.jsonl", jsonl(3)) == "inbox/a.jsonl is answered: outbox/a.jsonl."


def test_a_table_is_cut_between_its_rows(stack: Stack) -> None:
    rows = [f'{number},"1\n""0",3\n' if number % 3 == 0 else f"{number},1,2\n" for number in range(400)]
    stack.upload("t.csv", b"a,b,c\n" + "".join(rows).encode())
    assert stack.machine.ended()["status"] == "SUCCEEDED"
    said = stack.result("t.csv.jsonl")
    assert len(said) == 400
    assert [each["outputs"][0]["data"][0] for each in said if "outputs" in each] == [
        2 * number for number in range(400) if number % 3
    ]
    ends = [2 + sum(1 + (earlier % 3 == 0) for earlier in range(number + 1)) - 1 for number in range(400)]
    assert [each["line"] for each in said] == ends


def test_steps_that_die_are_tried_again_and_nothing_is_answered_twice(stack: Stack) -> None:
    deaths = iter([True, False, False, False, False] * 4)

    class Dying(ObjectStore):
        def put(self, path: str, data: bytes | Path) -> None:
            super().put(path, data)
            if next(deaths, False):
                raise StoreError("the environment is gone")

    def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
        return stack.environment(Dying(stack.store.url, stack.store._store))(event, context)

    stack.aws.handler = handle
    stack.upload("a.jsonl", jsonl(60))
    assert stack.machine.ended()["status"] == "SUCCEEDED"
    assert [(each["line"], each["id"]) for each in stack.result("a.jsonl")] == [(n + 1, str(n)) for n in range(60)]
    assert json.loads(stack.store.get("outbox/a/manifest.json").data)["answered"] == 60


def test_a_file_that_fails_for_good_goes_to_the_dead_letters_and_on_from_there(stack: Stack) -> None:
    def broken(event: dict[str, Any], context: object) -> dict[str, Any]:
        if event["step"] == "join":
            raise StoreError("away")
        return stack.environment()(event, context)

    stack.aws.handler = broken
    stack.upload("a.jsonl", jsonl(60))
    assert stack.machine.ended()["status"] == "FAILED"
    assert "outbox/a/manifest.json" not in set(stack.store.list_paths("outbox"))
    (letter,) = stack.sqs.receive_message(QueueUrl=stack.dead_letters, VisibilityTimeout=0)["Messages"]
    told = json.loads(letter["Body"])
    assert told["detail"] == {"job": f"{stack.store.url}/inbox/a.jsonl"}
    assert stack.environment()(told, None)["done"] == ["inbox/a.jsonl is answered: outbox/a.jsonl."]
    assert [each["line"] for each in stack.result("a.jsonl")] == list(range(1, 61))
    assert stack.machine.count == 1


def test_an_event_that_comes_twice_starts_one_execution(stack: Stack) -> None:
    held: list[str] = []

    def slow(event: dict[str, Any], context: object) -> dict[str, Any]:
        if event["step"] == "split" and not held:
            held.append(stack.tell(event["job"]))
        return stack.environment()(event, context)

    stack.aws.handler = slow
    stack.upload("a.jsonl", jsonl(60))
    assert stack.machine.ended()["status"] == "SUCCEEDED"
    assert held == ["inbox/a.jsonl is spread."]
    assert stack.machine.count == 1


def test_workers_of_one_span_do_not_both_go_on(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.store.put("inbox/a.jsonl", jsonl(60))
    job = f"{stack.store.url}/inbox/a.jsonl"
    stack.environment()({"step": "split", "job": job}, None)
    inner, told = file_job.FileJob._write, list[bool]()

    def interrupted(this: file_job.FileJob, *given: Any) -> Any:  # noqa: ANN401 - as it is
        if not told:
            told.append(True)
            told.append(stack.environment()({"step": "answer", "job": job, "start": 0}, None)["done"])
        return inner(this, *given)

    monkeypatch.setattr(file_job.FileJob, "_write", interrupted)
    with pytest.raises(Exception, match="changed by somebody else"):
        stack.environment()({"step": "answer", "job": job, "start": 0}, None)
    assert told == [True, True]
    with pytest.raises(Exception, match="spans are unfinished"):
        stack.environment()({"step": "join", "job": job}, None)


def ordered(stack: Stack, data: bytes) -> BatchRequest:
    """A batch of these lines, told to the batch function."""
    number = generate_sortable_id()
    order = BatchRequest(
        id=f"batch_{number}",
        endpoint="/v2/models/double/infer",
        input_file_id=f"file-{number}",
        completion_window="24h",
        created_at=int(time.time()),
        expires_at=int(time.time()) + 3600,
    )
    stack.store.put(f"uploads/{number}/content", data)
    stack.store.put(batch_document_path(order.id, "order"), encode_document(order))
    event = {"detail-type": "Pilotlight Inference", "detail": {"batch": order.id}}
    assert stack.environment()(event, None)["done"] == [f"uploads/{number}/content is spread."]
    return order


def test_a_batch_that_is_cancelled_is_joined_as_far_as_it_came(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_job, "WATCH_S", -1.0)  # look before each line
    steps = list[str]()

    def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
        if event["step"] == "answer" and event["start"]:
            steps.append(event["step"])
            stack.store.put(batch_document_path(event["job"], "cancel"), b'{"at": 1}')
        return stack.environment()(event, context)

    stack.aws.handler = handle
    order = ordered(stack, calls(60))
    assert stack.machine.ended()["status"] == "SUCCEEDED"
    assert len(steps) >= 2
    manifest = json.loads(stack.store.get(f"{order.results_folder}/manifest.json").data)
    assert (manifest["stopped"], manifest["total"]) == ("cancelled", 60)
    said = [json.loads(line) for line in stack.store.get(f"{order.results_folder}/output.jsonl").data.splitlines()]
    assert len(said) == manifest["answered"] < 60


def test_a_batch_that_is_refused_is_joined_without_an_answer(stack: Stack) -> None:
    order = ordered(stack, calls(30) + calls(1))
    assert stack.machine.ended()["status"] == "SUCCEEDED"
    assert stack.steps["answer"] == 0
    manifest = json.loads(stack.store.get(f"{order.results_folder}/manifest.json").data)
    assert [wrong["code"] for wrong in manifest["errors"]] == ["duplicate_custom_id"]


@pytest.mark.parametrize("event", [{"step": "steal", "job": "x"}, {"step": "split"}, {"step": "answer", "job": 1}])
def test_other_steps_are_refused(stack: Stack, event: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="no step of the state machine"):
        stack.environment()(event, None)


TEXT = st.text(alphabet='ab,"\n', max_size=60)


@given(TEXT, st.integers(1, 30), st.integers(1, 50))
def test_spans_are_the_file_and_each_begins_a_line(text: str, length: int, size: int) -> None:
    data = text.encode()
    found = list(split_byte_ranges([data[at : at + size] for at in range(0, len(data), size)], length))
    assert [span.start for span in found[1:]] == [span.end for span in found[:-1]]
    assert b"".join(data[span.start : span.end] for span in found) == data
    for span in found:
        assert span.first == data[: span.start].count(b"\n")
        assert span.start == 0 or data[span.start - 1 : span.start] == b"\n"
        assert span.end - span.start >= min(length, len(data) - span.start)


CELLS = st.lists(st.tuples(st.text(alphabet='a,"\n', max_size=6), st.text(alphabet="b\n", max_size=4)), max_size=12)


def cells_of(data: bytes, start: int, first: int) -> Iterator[list[str]]:
    for item in rows_of(data, start, first):
        assert isinstance(item.body, CsvRow)
        yield list(item.body.cells.values())


@given(CELLS, st.integers(1, 40), st.integers(1, 40))
def test_tables_read_in_spans_are_the_table(rows: list[tuple[str, str]], length: int, size: int) -> None:
    cells = ["".join(['"', cell.replace('"', '""'), '"']) for row in rows for cell in row]
    data = "".join(f"{a},{b}\n" for a, b in zip(cells[::2], cells[1::2], strict=True)).encode()
    whole = list(cells_of(data, 0, 0))
    found = split_byte_ranges([data[at : at + size] for at in range(0, len(data), size)], length, has_quotes=True)
    parts = [row for span in found for row in cells_of(data[span.start : span.end], span.start, span.first)]
    assert parts == whole


def rows_of(data: bytes, start: int, first: int) -> list[record_reader.InputItem]:
    return list(
        record_reader.parse_csv_rows(
            record_reader.TableHeader(["a", "b"]), record_reader.split_lines([data] if data else [], start, first)
        )
    )


def test_nan_in_a_call_of_a_batch_is_taken_as_over_http() -> None:
    """As python's json.dumps writes it; V2's decoder sees the line's own bytes, also where others look like them."""
    line_format = OpenAIBatchFormat("batch_1", "/v2/models/double/infer")
    body = '{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [NaN, 0e0, 3]}], "id": "NaN"}'
    line = f'{{"custom_id": "NaN", "url": "/v2/models/double/infer", "body": {body}, "method": "POST"}}'.encode()
    data = line + b"\n" + line.replace(b'"custom_id": "NaN"', b'"custom_id": "b"').replace(b"NaN, 0e0", b"nan, 0e0")
    total, errors = line_format.validate_lines(record_reader.split_lines([data]))
    assert (total, [(error.line, error.code) for error in errors]) == (2, [(2, "invalid_json_line")])
    call = line_format.parse_line(line)
    assert isinstance(call, BatchCall)
    assert (call.data.decode(), call.custom_id) == (body, "NaN")
    model = build_manifest(fakes.draft(), (ManifestFile("model.onnx", 1, "0" * 64),))
    np.testing.assert_array_equal(call.to_infer_request(model).tensors["x"], [[np.nan, 0, 3]])
