"""Tensors by address and answers that cannot be sent, through the handler as Lambda calls it."""

import json
from typing import Any

import numpy as np
import pytest

from functions.predict.handler import build_predict_handler
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes

ROWS = 12_000  # of 100 values: 4.8 MB, which base64 makes too large for Lambda


@pytest.fixture
def store(bucket_url: str) -> ObjectStore:
    found = open_store(bucket_url)
    fakes.publish_echo(Registry(found), "FP32")
    found.put("uploads/large", np.arange(ROWS * 100, dtype="<f4").tobytes())
    return found


def ask(store: ObjectStore, rows: int, **settings: Any) -> tuple[int, Any]:  # noqa: ANN401 - settings
    handle = build_predict_handler(Settings(store=store.url, **settings))
    given = {
        "name": "x",
        "shape": [rows, 100],
        "datatype": "FP32",
        "parameters": {"s3_uri": f"{store.url}/uploads/large"},
    }
    body = {"id": "one", "inputs": [given], "parameters": {"binary_data_output": True}}
    answer = handle(fakes.event(handle._routes, "POST", "/v2/models/echo-fp32/infer", json.dumps(body).encode()), None)
    return answer["statusCode"], json.loads(answer["body"])


def test_an_answer_that_cannot_be_sent_lies_where_it_says(store: ObjectStore) -> None:
    status, said = ask(store, ROWS, large_answers="on")
    assert (status, said["id"], said["model_name"]) == (200, "one", "echo-fp32")
    (output,) = said["outputs"]
    assert output["shape"] == [ROWS, 100]
    path = output["parameters"]["s3_uri"].removeprefix(f"{store.url}/")
    assert store.get(path).data == store.get("uploads/large").data
    assert output["parameters"]["file_id"].startswith("file-")


def test_it_is_refused_where_the_function_may_not_write(store: ObjectStore) -> None:
    before = set(store.list_paths(""))
    status, said = ask(store, ROWS)
    assert (status, "LargeAnswers=on" in said["error"]) == (413, True)
    assert set(store.list_paths("")) == before


def test_a_tensor_beyond_the_memory_of_the_function_is_refused(store: ObjectStore) -> None:
    store.put("uploads/large", bytes(40_000_000))
    status, said = ask(store, 100_000, memory_mb=128)
    assert (status, "32,000,000 more are held" in said["error"]) == (413, True)


def test_the_size_must_be_the_shapes(store: ObjectStore) -> None:
    status, said = ask(store, 3)
    assert (status, "takes 1,200" in said["error"]) == (400, True)
