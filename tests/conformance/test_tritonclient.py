"""The unmodified tritonclient[http]: JSON and binary tensors, every datatype, compressed and not."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import TypeAlias

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from pilotlight.runtime.datatypes import Array
from tests import fakes

Client: TypeAlias = triton.InferenceServerClient
Result: TypeAlias = triton.InferResult
BFLOAT16 = triton_to_np_dtype("BF16")
IMAGES, LABELS = fakes.digits()


@pytest.fixture(params=["", "/prod"])
def client(url: str, request: pytest.FixtureRequest) -> Iterator[Client]:
    with triton.InferenceServerClient(url.removeprefix("http://") + request.param) as connected:
        yield connected


def infer(client: Client, images: Array, version: str = "", **more: object) -> Result:
    tensor = triton.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=False)
    wanted = triton.InferRequestedOutput("logits", binary_data=False)
    return client.infer("digits", [tensor], outputs=[wanted], model_version=version, **more)


def test_health(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "2")
    assert client.is_model_ready("digits", "champion")
    assert not client.is_model_ready("nothing")
    assert not client.is_model_ready("digits", "9")


def test_metadata(client: Client) -> None:
    assert client.get_server_metadata()["name"] == "pilotlight"
    assert client.get_model_metadata("digits") == {
        "name": "digits",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
    }


def test_a_hundred_digits_one_by_one_and_at_once(client: Client) -> None:
    singles = np.concatenate([infer(client, IMAGES[i : i + 1]).as_numpy("logits") for i in range(100)])
    batch = infer(client, IMAGES[:100]).as_numpy("logits")
    assert batch.shape == (100, 10)
    np.testing.assert_allclose(singles, batch, rtol=0, atol=1e-4)
    right = (singles.argmax(axis=1) == LABELS[:100]).mean()
    assert right >= 0.97


@pytest.mark.parametrize(("version", "answered"), [("", "1"), ("2", "2"), ("champion", "1"), ("candidate", "2")])
def test_versions_and_aliases(client: Client, version: str, answered: str) -> None:
    response = infer(client, IMAGES[:1], version, request_id="seven").get_response()
    assert (response["model_version"], response["id"]) == (answered, "seven")


def test_async_infer(client: Client) -> None:
    tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(IMAGES[:1], binary_data=False)
    wanted = triton.InferRequestedOutput("logits", binary_data=False)
    pending = client.async_infer("digits", [tensor], outputs=[wanted])
    assert pending.get_result().as_numpy("logits").argmax() == infer(client, IMAGES[:1]).as_numpy("logits").argmax()


@pytest.mark.parametrize(
    ("images", "version", "status", "hint"),
    [
        (IMAGES[:1, :, :, :7], "", "400", r"has shape \[1, 1, 8, 7\], expected \[batch, 1, 8, 8\]"),
        (IMAGES[:1], "9", "404", "has no version 9"),
        (IMAGES[:1], "staging", "404", "no version or alias 'staging'"),
    ],
)
def test_errors_are_shown(client: Client, images: Array, version: str, status: str, hint: str) -> None:
    with pytest.raises(InferenceServerException, match=hint) as raised:
        infer(client, images, version)
    assert raised.value.status() == status


ARRAYS: dict[str, Array] = {
    "BF16": np.array([[1, -2.5], [0, 3e38]], BFLOAT16),
    "FP16": np.array([[1, -2.5], [0, 3]], np.float16),
    "FP32": np.array([[1, -2.5], [0, 3e38]], np.float32),
    "FP64": np.array([[1, -2.5], [0, 3e300]]),
    "BOOL": np.array([[True, False], [False, True]]),
    "INT8": np.array([[1, -128], [127, 0]], np.int8),
    "INT16": np.array([[1, -(2**15)], [2**15 - 1, 0]], np.int16),
    "INT32": np.array([[1, -(2**31)], [2**31 - 1, 0]], np.int32),
    "INT64": np.array([[1, -(2**63)], [2**63 - 1, 0]]),
    "UINT8": np.array([[1, 255], [127, 0]], np.uint8),
    "UINT16": np.array([[1, 2**16 - 1], [127, 0]], np.uint16),
    "UINT32": np.array([[1, 2**32 - 1], [127, 0]], np.uint32),
    "UINT64": np.array([[1, 2**64 - 1], [127, 0]], np.uint64),
    "BYTES": np.array([["one", ""], ["žluť", "四"]], object),
}
EMPTY: Array = np.zeros((3, 0))  # the batch is 3; a batch of nothing is refused
OUTPUTS = {"default": None, "json": False, "binary": True}


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", ARRAYS)
def test_every_mix_round_trips(url: str, datatype: str, binary: bool, output: str, compression: str | None) -> None:
    round_trip(url, datatype, ARRAYS[datatype], binary, output, compression)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "INT64", "UINT8", "BOOL", "BYTES"])
def test_empty_tensors_round_trip(url: str, datatype: str, binary: bool, output: str) -> None:
    round_trip(url, datatype, EMPTY.astype(ARRAYS[datatype].dtype), binary, output, None)


def round_trip(url: str, datatype: str, array: Array, binary: bool, output: str, compression: str | None) -> None:
    if datatype in ("FP16", "BF16") and (not binary or output == "json"):
        return  # they have no JSON form: test_half_precision_as_json_is_refused
    tensor = triton.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    outputs = None if OUTPUTS[output] is None else [triton.InferRequestedOutput("y", binary_data=OUTPUTS[output])]
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        found = client.infer(
            f"echo-{datatype.lower()}",
            [tensor],
            outputs=outputs,
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        ).as_numpy("y")
    if found.dtype == object:
        texts = [value.decode() if isinstance(value, bytes) else value for value in found.ravel()]
        found = np.array(texts, object).reshape(found.shape)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_large_answers_come_compressed(url: str) -> None:
    array = np.zeros((1000, 100), np.float32)
    tensor = triton.InferInput("x", [1000, 100], "FP32")
    tensor.set_data_from_numpy(array)
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        result = client.infer("echo-fp32", [tensor], response_compression_algorithm="gzip")
    assert result.as_numpy("y").shape == (1000, 100)


def test_classes(client: Client) -> None:
    tensor = triton.InferInput("image", [2, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(IMAGES[:2])
    wanted = triton.InferRequestedOutput("logits", class_count=3)
    best = client.infer("digits", [tensor], outputs=[wanted]).as_numpy("logits")
    assert best.shape == (2, 3)
    value, index, label = best[0, 0].decode().split(":")
    assert (int(index), label) == (LABELS[0], str(LABELS[0]))
    assert float(value) > 0


def test_half_precision_as_json_is_refused(url: str) -> None:
    tensor = triton.InferInput("x", [2, 2], "FP16")
    tensor.set_data_from_numpy(ARRAYS["FP16"])
    wanted = triton.InferRequestedOutput("y", binary_data=False)
    with (
        triton.InferenceServerClient(url.removeprefix("http://")) as client,
        pytest.raises(InferenceServerException, match="binary form only") as raised,
    ):
        client.infer("echo-fp16", [tensor], outputs=[wanted])
    assert raised.value.status() == "400"


def test_errors_of_the_gateway_are_shown_too(client: Client) -> None:
    big = triton.InferInput("image", [30_000, 1, 8, 8], "FP32")
    big.set_data_from_numpy(np.full((30_000, 1, 8, 8), 0.123456, np.float32), binary_data=False)
    with pytest.raises(InferenceServerException, match="The request is too large") as raised:
        client.infer("digits", [big])
    assert raised.value.status() == "413"


def test_extensions_are_those_that_work(client: Client) -> None:
    assert set(client.get_server_metadata()["extensions"]) == {
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "parameters",
        "statistics",
    }


@pytest.mark.parametrize("version", ["", "2", "candidate"])
def test_model_config(client: Client, version: str) -> None:
    config = client.get_model_config("digits", version)
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("digits", "onnxruntime", 0)
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [-1, 1, 8, 8]}]
    assert config["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": [-1, 10]}]


def test_statistics(client: Client) -> None:
    def count(version: str) -> int:
        (entry,) = client.get_inference_statistics("digits", version)["model_stats"]
        assert entry["version"] == version
        return int(entry["inference_count"])

    before = count("2")
    infer(client, IMAGES[:5], "2")
    assert count("2") == before + 5
    assert {entry["version"] for entry in client.get_inference_statistics("digits")["model_stats"]} == {"1", "2"}
    everything = client.get_inference_statistics()["model_stats"]
    entry = next(entry for entry in everything if (entry["name"], entry["version"]) == ("digits", "2"))
    for phase in ("success", "compute_input", "compute_infer", "compute_output"):
        assert entry["inference_stats"][phase]["count"] > 0
        assert entry["inference_stats"][phase]["ns"] > 0
    assert set(entry["inference_stats"]) >= {"fail", "queue", "cache_hit", "cache_miss"}


def test_repository_index(client: Client) -> None:
    rows = [row for row in client.get_model_repository_index() if row["name"] == "digits"]
    assert [(row["version"], row["state"], row["reason"]) for row in rows] == [("1", "READY", ""), ("2", "READY", "")]


def test_unload_and_load(client: Client) -> None:
    name = "echo-uint16"
    tensor = triton.InferInput("x", [1, 1], "UINT16")
    tensor.set_data_from_numpy(np.ones((1, 1), np.uint16))
    client.infer(name, [tensor])
    client.unload_model(name, unload_dependents=True)
    try:
        (row,) = [row for row in client.get_model_repository_index() if row["name"] == name]
        assert row["state"] == "UNAVAILABLE"
        assert "unloaded by POST /v2/repository" in row["reason"]
        fakes.eventually(lambda: not client.is_model_ready(name))
        with pytest.raises(InferenceServerException, match=r"is unloaded since .*: unloaded by POST") as raised:
            client.infer(name, [tensor])
        assert raised.value.status() == "503"
        assert client.is_model_ready(name, "1")
        assert client.infer(name, [tensor], model_version="1").as_numpy("y").tolist() == [[1]]
    finally:
        client.load_model(name)
    fakes.eventually(lambda: bool(client.is_model_ready(name)))
    assert client.infer(name, [tensor]).as_numpy("y").tolist() == [[1]]


@pytest.mark.parametrize(
    ("call", "status", "hint"),
    [
        (lambda client: client.load_model("nothing"), "404", "There is no model 'nothing'"),
        (lambda client: client.unload_model("nothing"), "404", "There is no model 'nothing'"),
        (lambda client: client.load_model("digits", config="{}"), "501", "'config' is not served: a version never"),
        (lambda client: client.get_model_config("nothing"), "404", "There is no model 'nothing'"),
        (lambda client: client.get_model_metadata("digits", "9"), "404", "has no version 9"),
        (lambda client: client.get_inference_statistics("nothing"), "404", "There is no model 'nothing'"),
        (lambda client: infer(client, IMAGES[:1], sequence_id=7), "501", "models here keep no state"),
        (lambda client: client.get_trace_settings(), "404", "no such route"),
    ],
)
def test_what_cannot_be_done_is_said(client: Client, call: Callable[[Client], object], status: str, hint: str) -> None:
    with pytest.raises(InferenceServerException, match=hint) as raised:
        call(client)
    assert raised.value.status() == status


def test_reserved_and_own_parameters_pass(client: Client) -> None:
    result = infer(client, IMAGES[:1], priority=3, timeout=1_000_000, parameters={"tenant": "a", "weight": 0.5})
    assert result.as_numpy("logits").shape == (1, 10)


def test_requested_outputs_come_in_their_order(client: Client) -> None:
    sides = [triton.InferInput(name, [2, 2], "FP32") for name in ("left", "right")]
    for side, value, binary in zip(sides, (1, 2), (True, False), strict=True):
        side.set_data_from_numpy(np.full((2, 2), value, np.float32), binary_data=binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=name == "same") for name in ("same", "total")]
    result = client.infer("pair", sides, outputs=wanted)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["same", "total"]
    assert (result.as_numpy("same").tolist(), result.as_numpy("total").tolist()) == ([[1, 1]] * 2, [[3, 3]] * 2)
    only = client.infer("pair", sides, outputs=[triton.InferRequestedOutput("total")])
    assert only.as_numpy("same") is None
    assert [output["name"] for output in client.infer("pair", sides).get_response()["outputs"]] == ["total", "same"]


def test_nan_is_null_in_json_and_itself_in_binary(client: Client) -> None:
    tensor = triton.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.array([[1, 0, -1]], np.float32))
    for binary, expected in ((False, [0, np.nan, np.nan]), (True, [0, -np.inf, np.nan])):
        wanted = triton.InferRequestedOutput("y", binary_data=binary)
        found = client.infer("logarithm", [tensor], outputs=[wanted]).as_numpy("y")
        np.testing.assert_array_equal(found[0], np.array(expected, np.float32))


def test_nan_in_json_as_this_client_writes_it(client: Client) -> None:
    given = np.array([[1, np.nan], [-0.0, np.nan]], np.float32)
    tensor = triton.InferInput("x", [2, 2], "FP32")
    tensor.set_data_from_numpy(given, binary_data=False)
    found = client.infer("echo-fp32", [tensor]).as_numpy("y")
    np.testing.assert_array_equal(found, given)
    assert np.signbit(found[1, 0])


def test_shared_memory_is_refused(client: Client) -> None:
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    wanted = triton.InferRequestedOutput("y")
    wanted.set_shared_memory("mine", 8)
    with pytest.raises(InferenceServerException, match="'y' is in shared memory, which is not served") as raised:
        client.infer("echo-fp32", [tensor], outputs=[wanted])
    assert raised.value.status() == "501"


def test_a_large_answer_comes_if_it_is_small_once_compressed(client: Client) -> None:
    tensor = triton.InferInput("x", [1, 2_000_000], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 2_000_000), np.float32))
    with pytest.raises(InferenceServerException, match="The answer has 10,666,") as raised:
        client.infer("echo-fp32", [tensor], request_compression_algorithm="gzip")
    assert raised.value.status() == "413"
    squeezed = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
    assert client.infer("echo-fp32", [tensor], **squeezed).as_numpy("y").shape == (1, 2_000_000)


def test_many_asynchronous_requests(url: str) -> None:
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=4) as client:
        tensors = []
        for number in range(12):
            tensors.append(triton.InferInput("x", [1, 2], "INT64"))
            tensors[-1].set_data_from_numpy(np.array([[number, -number]]))
        pending = [client.async_infer("echo-int64", [tensor]) for tensor in tensors]
        found = [request.get_result().as_numpy("y").tolist() for request in pending]
    assert found == [[[number, -number]] for number in range(12)]


def test_the_asyncio_client(url: str) -> None:
    async def everything() -> None:
        async with triton_aio.InferenceServerClient(url.removeprefix("http://")) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("digits", "champion")
            assert not await client.is_model_ready("nothing")
            assert (await client.get_model_metadata("digits"))["versions"] == ["1", "2"]
            assert (await client.get_model_config("digits"))["name"] == "digits"
            assert await client.get_model_repository_index()
            assert (await client.get_inference_statistics("digits"))["model_stats"]
            results = await asyncio.gather(*(one(client, number, number % 2 == 0) for number in range(8)))
            assert results == [[[number, 2]] for number in range(8)]
            with pytest.raises(InferenceServerException, match="There is no model"):
                await client.get_model_metadata("nothing")

    async def one(client: triton_aio.InferenceServerClient, number: int, binary: bool) -> list[list[int]]:
        tensor = triton.InferInput("x", [1, 2], "INT32")
        tensor.set_data_from_numpy(np.array([[number, 2]], np.int32), binary_data=binary)
        squeezed = "gzip" if binary else None
        result = await client.infer(
            "echo-int32", [tensor], request_compression_algorithm=squeezed, response_compression_algorithm="deflate"
        )
        found: list[list[int]] = result.as_numpy("y").tolist()
        return found

    asyncio.run(everything())


def test_bodies_made_beforehand_and_read_afterwards(url: str) -> None:
    """What tritonclient offers to whoever sends the bytes by another library."""
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[1, 2]], np.float32))
    body, length = triton.InferenceServerClient.generate_request_body([tensor])
    assert length is not None
    headers = {"Inference-Header-Content-Length": str(length)}
    answer = httpx2.post(f"{url}/v2/models/echo-fp32/infer", content=body, headers=headers)
    cut = int(answer.headers["Inference-Header-Content-Length"])
    result = triton.InferenceServerClient.parse_response_body(answer.content, header_length=cut)
    assert result.as_numpy("y").tolist() == [[1, 2]]


def test_a_raw_binary_request(url: str) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    answer = httpx2.post(f"{url}/v2/models/digits/infer", content=IMAGES[0].astype("<f4").tobytes(), headers=headers)
    cut = int(answer.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(answer.content[:cut])["outputs"]
    assert (output["shape"], output["parameters"]) == ([1, 10], {"binary_data_size": 40})
    assert np.frombuffer(answer.content[cut:], "<f4").argmax() == LABELS[0]
