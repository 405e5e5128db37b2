"""OpenAI's files, uploads and batches by the unmodified openai client, through the local gateway, without any AWS."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai.types import Batch

from functions.batch_api.files import MAX_INLINE_BYTES
from tests import fakes

DONE = {"completed", "failed", "expired", "cancelled"}
PATIENCE_S = 180  # an upper bound for what takes seconds, on a busy machine too
ENDPOINT: Any = "/v2/models/digits/infer"  # the client's type lists OpenAI's own


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/prod/v1", api_key="none", max_retries=0) as client:
        yield client


def call(number: int, rows: int = 1, **more: object) -> bytes:
    images, _ = fakes.digits()
    picked = images[number % len(images)].ravel().tolist() * rows
    image = {"name": "image", "shape": [rows, 1, 8, 8], "datatype": "FP32", "data": picked}
    asked = {"custom_id": f"n{number}", "method": "POST", "url": ENDPOINT, "body": {"inputs": [image]}}
    return json.dumps(asked | more).encode() + b"\n"


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    deadline = time.monotonic() + PATIENCE_S
    while batch.status not in DONE:
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def test_a_batch_from_its_file_to_its_answers(client: openai.OpenAI) -> None:
    wrong = call(40, body={"inputs": []})
    file = client.files.create(file=("digits.jsonl", b"".join(map(call, range(40))) + wrong), purpose="batch")
    assert (file.filename, file.purpose, file.status) == ("digits.jsonl", "batch", "processed")
    begun = client.batches.create(
        input_file_id=file.id,
        endpoint=ENDPOINT,
        completion_window="24h",
        metadata={"for": "monday"},
    )
    assert begun.metadata == {"for": "monday"}
    batch = ended(client, begun)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (41, 40, 1)
    assert batch.output_file_id is not None
    lines = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == [f"n{number}" for number in range(40)]
    _, labels = fakes.digits()
    said = [np.argmax(line["response"]["body"]["outputs"][0]["data"]) for line in lines]
    assert np.mean([a == b for a, b in zip(said, labels[:40], strict=True)]) >= 0.95
    assert {line["response"]["status_code"] for line in lines} == {200}
    assert batch.error_file_id is not None
    (refused,) = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
    assert (refused["custom_id"], refused["response"]["status_code"]) == ("n40", 400)
    assert begun.id in [each.id for each in client.batches.list(limit=2)]


def test_a_file_in_parts_is_one_file(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    path.write_bytes(b"".join(call(number, 200) for number in range(120)))
    assert path.stat().st_size > 2 * MAX_INLINE_BYTES
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="batch", part_size=MAX_INLINE_BYTES
    )
    assert upload.file is not None
    batch = ended(
        client,
        client.batches.create(
            input_file_id=upload.file.id, endpoint=ENDPOINT, completion_window="24h"
        ),
    )  # fmt: skip
    assert batch.request_counts is not None
    assert (batch.status, batch.request_counts.completed) == ("completed", 120)


def test_a_batch_that_is_wrong_fails_as_a_whole(client: openai.OpenAI) -> None:
    lines = call(1) + call(1) + call(2, url="/v2/models/other/infer") + b"{\n" + call(3, method="GET")
    file = client.files.create(file=("a.jsonl", lines), purpose="batch")
    batch = ended(
        client,
        client.batches.create(
            input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h"
        ),
    )  # fmt: skip
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [(each.line, each.code) for each in batch.errors.data or ()] == [
        (2, "duplicate_custom_id"), (3, "mismatched_url"), (4, "invalid_json_line"), (5, "invalid_method"),
    ]  # fmt: skip
    assert batch.output_file_id is None


def test_errors_are_shown(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"There is no batch 'batch_1'; GET /v1/batches lists them\."):
        client.batches.retrieve("batch_1")
    with pytest.raises(openai.BadRequestError, match="is not an endpoint of batches"):
        client.batches.create(input_file_id="file-1", endpoint="/v1/embeddings", completion_window="24h")
    with pytest.raises(openai.NotFoundError, match="There is no file 'file-1'"):
        client.files.content("file-1")


def test_files_come_and_go(client: openai.OpenAI) -> None:
    kept = client.files.create(file=("tensor.bin", b"\0\xff\r\n--x"), purpose="user_data")
    assert client.files.content(kept.id).content == b"\0\xff\r\n--x"
    assert kept.id in [each.id for each in client.files.list(purpose="user_data", limit=3)]
    assert client.files.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(kept.id)


def test_a_tensor_that_lies_in_the_store_is_answered(client: openai.OpenAI, url: str) -> None:
    images, labels = fakes.digits()
    file = client.files.create(file=("images.bin", images[:50].astype("<f4").tobytes()), purpose="user_data")
    given = {"name": "image", "shape": [50, 1, 8, 8], "datatype": "FP32"}
    uri = file.model_dump()["s3_uri"]
    answer: Any = client.post(
        f"{url}/v2/models/digits/infer", body={"inputs": [given | {"parameters": {"s3_uri": uri}}]}, cast_to=object
    )
    logits = np.reshape(answer["outputs"][0]["data"], (50, 10))
    assert np.mean(logits.argmax(axis=1) == labels[:50]) >= 0.95


def test_a_batch_that_is_cancelled_stops_and_keeps_what_it_has(client: openai.OpenAI, tmp_path: Path) -> None:
    path, count = tmp_path / "long.jsonl", 36_000
    line = call(7)
    path.write_bytes(b"".join(line.replace(b'"n7"', b'"n%d"' % number) for number in range(count)))
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="batch", part_size=MAX_INLINE_BYTES
    )
    assert upload.file is not None
    batch = client.batches.create(
        input_file_id=upload.file.id, endpoint=ENDPOINT, completion_window="24h"
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE_S
    while batch.request_counts is None or not batch.request_counts.completed:
        assert time.monotonic() < deadline, batch
        assert batch.status in ("validating", "in_progress")
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = ended(client, batch)
    assert batch.status == "cancelled"
    assert batch.request_counts is not None
    assert 0 < batch.request_counts.completed < batch.request_counts.total == count
    assert batch.output_file_id is not None
    kept = client.files.content(batch.output_file_id, extra_headers={"Range": "bytes=0-999"})
    assert json.loads(kept.text.splitlines()[0])["custom_id"] == "n0"
