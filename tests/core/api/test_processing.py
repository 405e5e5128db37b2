"""The V2 protocol in front of steps: what is read as bytes, as text, as missing, and what metadata shows."""

import json
import math
from typing import Any

import numpy as np
import pytest

from pilotlight.api import v2, v2_binary, v2_metadata
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    ImagePreprocessing,
    TableColumn,
    TablePreprocessing,
    TextPreprocessing,
)
from pilotlight.errors import InvalidInputError
from tests import fakes

LOGITS = TensorSpec("logits", "FP32", ("batch", 2))
IMAGES = fakes.stepped(
    ImagePreprocessing(input="pixels"),
    ClassificationPostprocessing(output="logits"),
    ((TensorSpec("pixels", "FP32", ("batch", 3, 8, 8)),), (LOGITS,)),
    ("cat", "dog"),
)
TEXTS = fakes.stepped(TextPreprocessing(), None, ((TensorSpec("input_ids", "INT64", ("batch", "tokens")),), (LOGITS,)))
ROWS = fakes.stepped(
    TablePreprocessing(input="x", columns=(TableColumn(name="a"), TableColumn(name="b"), TableColumn(name="c")))
)
NO_TEXT = b"\xff\xd8\xff\x00"


def entry(name: str, shape: list[int], datatype: str, data: object) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def body(*inputs: dict[str, Any], **more: object) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def binary(name: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    tail = v2_binary.add_length_prefix(data)
    given = {"name": name, "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [given]}).encode()
    return head + tail, {v2.JSON_LENGTH_HEADER: str(len(head))}


def test_an_image_keeps_its_bytes() -> None:
    assert v2.decode_infer_request(*binary("image", NO_TEXT), IMAGES).tensors["image"].tolist() == [NO_TEXT]
    assert v2.decode_infer_request(NO_TEXT, {v2.JSON_LENGTH_HEADER: "0"}, IMAGES).tensors["image"].tolist() == [NO_TEXT]


def test_a_text_must_be_one() -> None:
    with pytest.raises(InvalidInputError, match="'text': element 0 is not UTF-8"):
        v2.decode_infer_request(*binary("text", NO_TEXT), TEXTS)
    asked = v2.decode_infer_request("hé".encode(), {v2.JSON_LENGTH_HEADER: "0"}, TEXTS)
    assert asked.tensors["text"].tolist() == ["hé"]


@pytest.mark.parametrize("text", ['"\\ud800"', '"\udc80"', '"\\u12"'])
def test_broken_escapes_are_refused(text: str) -> None:
    raw = b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":[%s]}]}'
    with pytest.raises(InvalidInputError):
        v2.decode_infer_request(raw % text.encode("utf-8", "surrogateescape"), {}, TEXTS)


def test_null_is_missing_in_a_column_and_wrong_elsewhere() -> None:
    given = v2.decode_infer_request(
        body(entry("a", [2], "FP64", [1, None]), entry("b", [1], "BYTES", [None])), {}, ROWS
    )
    assert math.isnan(given.tensors["a"][1])
    assert given.tensors["b"].tolist() == [None]
    for wrong in (entry("a", [1], "INT64", [None]), entry("x", [1, 3], "FP32", [[1, None, 2]])):
        with pytest.raises(InvalidInputError, match="null"):
            v2.decode_infer_request(body(wrong), {}, ROWS)


def test_columns_beyond_their_type_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"Expected `float` <= 3\.4"):
        v2.decode_infer_request(body(entry("a", [2], "FP32", [None, 1e39])), {}, ROWS)


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT64", "INT8", "UINT8", "BOOL", "BYTES"])
def test_columns_come_in_any_type(datatype: str) -> None:
    value = {"BOOL": True, "BYTES": "1"}.get(datatype, 1)
    assert v2.decode_infer_request(body(entry("a", [1], datatype, [value])), {}, ROWS).tensors["a"].shape == (1,)


@pytest.mark.parametrize(
    ("inputs", "hint"),
    [
        (entry("image", [1], "FP32", [1]), "Input 'image' is 'FP32', expected BYTES"),
        (
            entry("pixel", [1], "BYTES", ["x"]),
            r"'pixel' is not an input of double; its inputs are \['image'\] or \['pixe",
        ),
        (entry("pixels", [1], "BYTES", ["x"]), "Input 'pixels' is 'BYTES', expected FP32"),
    ],
)
def test_what_is_wrong_is_said_with_what_was_expected(inputs: dict[str, Any], hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        v2.decode_infer_request(body(inputs), {}, IMAGES)


def test_outputs_belong_to_what_was_sent_unless_named() -> None:
    image = entry("image", [1], "BYTES", ["x"])
    pixels = entry("pixels", [1, 3, 8, 8], "FP32", [0] * 192)

    def wanted(given: dict[str, Any], *names: str) -> list[str]:
        outputs = [{"name": name} for name in names]
        return [output.name for output in v2.decode_infer_request(body(given, outputs=outputs), {}, IMAGES).outputs]

    assert wanted(image) == ["label", "probability"]
    assert wanted(pixels) == ["logits"]
    assert wanted(image, "logits", "probabilities") == ["logits", "probabilities"]
    assert wanted(pixels, "label") == ["label"]
    with pytest.raises(InvalidInputError, match=r"outputs are \['label', 'probability', 'probabilities', 'logits'\]"):
        wanted(image, "lable")


def test_labels_are_encoded_in_both_forms() -> None:
    results = {"label": np.array(["dog"], object), "probability": np.array([0.5], np.float32)}
    asked = v2.decode_infer_request(body(entry("image", [1], "BYTES", ["x"])), {}, IMAGES)
    outputs = json.loads(v2.encode_infer_response(IMAGES, asked, results).body)["outputs"]
    assert outputs == [entry("label", [1], "BYTES", ["dog"]), entry("probability", [1], "FP32", [0.5])]
    asked = v2.decode_infer_request(*binary("image", b"x"), IMAGES)
    raw = v2.decode_infer_request(b"x", {v2.JSON_LENGTH_HEADER: "0"}, IMAGES)
    assert v2.encode_infer_response(IMAGES, raw, results).body.endswith(b"\3\0\0\0dog" + np.float32(0.5).tobytes())


def test_metadata_shows_what_callers_send() -> None:
    found = v2_metadata.build_model_metadata(ROWS, [1])
    assert found["inputs"] == [{"name": name, "datatype": "FP64", "shape": [-1]} for name in "abc"]
    assert found["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]
