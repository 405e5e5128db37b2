"""The digits model made bad in every way that the gate must see; each is made from the kept one when it is needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import ManifestDraft, Variant

FOLDER = Path(__file__).with_name("digits")
GRAPH = "model.int8.onnx"
DRAFT = decode_document((FOLDER / "draft.json").read_bytes(), ManifestDraft, "draft.json")
FILES: Mapping[str, bytes] = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.name != "draft.json"}
OUTPUT = DRAFT.outputs[0]
Values = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Kind:
    """A way to be bad: what is done to the graph, what the manifest says, and how large the function is."""

    graph: bytes
    fields: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    tampered: bool = False  # after it was published
    memory_mb: int = 1769


def edited(edit: Callable[[Values], Values]) -> bytes:
    """The graph with all its float constants changed."""
    model = onnx.load_from_string(FILES[GRAPH])
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.dims:
            values = edit(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return bytes(model.SerializeToString())


def noisy(strength: float) -> Callable[[Values], Values]:
    """Noise of so many times the largest constant of each tensor."""
    random = np.random.default_rng(0)
    return lambda values: values + random.normal(0, strength * np.abs(values).max(), values.shape)


def renamed() -> bytes:
    """The graph with another name for its output."""
    model = onnx.load_from_string(FILES[GRAPH])
    for node in model.graph.node:
        node.output[:] = ["scores" if name == OUTPUT.name else name for name in node.output]
    model.graph.output[0].name = "scores"
    return bytes(model.SerializeToString())


def reaching_out() -> bytes:
    """The graph with a constant that is to be read from a file outside its folder."""
    model = onnx.load_from_string(FILES[GRAPH])
    tensor = next(each for each in model.graph.initializer if each.dims)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return bytes(model.SerializeToString())


def kinds() -> dict[str, Kind]:
    """Each way to be bad, by its name."""
    worse = edited(noisy(0.25))
    return {
        "degraded": Kind(edited(noisy(3))),
        "nan": Kind(edited(lambda values: np.full_like(values, np.nan))),
        "renamed output": Kind(renamed(), {"outputs": (msgspec.structs.replace(OUTPUT, name="scores"),)}),
        "worse when quantized": Kind(
            worse,
            {"variants": {"fp32": Variant("model.fp32.onnx"), "int8": Variant(GRAPH)}},
            {"model.fp32.onnx": FILES[GRAPH]},
        ),
        "too large": Kind(FILES[GRAPH] + b"\x1a\x00" * 40_000_000, memory_mb=128),  # fields that are passed over
        "path out of the folder": Kind(reaching_out()),
        "wrong hash": Kind(FILES[GRAPH], tampered=True),
        "golden answers differ": Kind(edited(lambda values: values * 1.5), {"golden": "golden.json"}),
    }
