"""Doubles that behave: models without training, a store that fails on command, a clock that waits for nobody."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import structs

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.manifest import Datatype, Manifest, ManifestDraft, ManifestFile, Task, TensorSpec, Variant
from pilotlight.contracts.processing import (
    AudioPreprocessing,
    ImagePreprocessing,
    Postprocessing,
    Preprocessing,
    TablePreprocessing,
    TextPreprocessing,
)
from pilotlight.errors import StoreError
from pilotlight.registry.registry import Registry, build_manifest
from pilotlight.runtime.environment_memory import EnvironmentMemory
from pilotlight.runtime.golden import GoldenDocument, GoldenExchange, GoldenRequest, GoldenResponse, GoldenTensor
from pilotlight.storage.object_store import ObjectStore, StoredObject, open_store

MODELS = Path(__file__).parent / "models"
EVENTS = Path(__file__).parent / "events"
QUIET = {"PILOTLIGHT_CALL_SECONDS": "-1"}  # no line for each call: a load would print a hundred thousand
ROW = (TensorSpec("x", "FP32", ("batch", 3)),), (TensorSpec("y", "FP32", ("batch", 3)),)


def graph(name: str) -> bytes:
    """One of the kept graphs."""
    return (MODELS / f"{name}.onnx").read_bytes()


def draft(
    name: str = "double",
    inputs: tuple[TensorSpec, ...] = ROW[0],
    outputs: tuple[TensorSpec, ...] = ROW[1],
) -> ManifestDraft:
    """What a publisher says of a model whose only file is `model.onnx`."""
    return ManifestDraft(
        name=name, inputs=inputs, outputs=outputs, variants={"fp32": Variant("model.onnx")}, serve="fp32"
    )


def stepped(
    preprocess: Preprocessing | None,
    postprocess: Postprocessing | None = None,
    of: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] = ROW,
    labels: tuple[str, ...] = (),
) -> Manifest:
    """A manifest with steps around a graph of the signature `of`."""
    tasks: dict[type, Task] = {
        ImagePreprocessing: "image",
        AudioPreprocessing: "audio",
        TextPreprocessing: "text",
        TablePreprocessing: "tabular",
        type(None): "tensor",
    }
    draft_of = msgspec.structs.replace(
        draft(inputs=of[0], outputs=of[1]),
        task=tasks[type(preprocess)],
        preprocess=preprocess,
        postprocess=postprocess,
        labels=labels,
    )
    brought = ["model.onnx", *([preprocess.tokenizer] if isinstance(preprocess, TextPreprocessing) else [])]
    return build_manifest(draft_of, tuple(ManifestFile(path, 1, "0" * 64) for path in brought))


def publish(registry: Registry, name: str = "double", of: str = "double", golden: bytes | None = None) -> Manifest:
    """Publish the kept graph `of` as the next version of `name`, with golden requests if there are some."""
    if golden is None:
        return registry.publish_version(draft(name), {"model.onnx": graph(of)})
    described = structs.replace(draft(name), golden="golden.json")
    return registry.publish_version(described, {"model.onnx": graph(of), "golden.json": golden})


def golden(given: list[float], answer: list[float], output: str = "y") -> bytes:
    """Golden requests that record one row and its answer."""
    request, response = (
        GoldenTensor("x", (1, 3), "FP32", tuple(given)),
        GoldenTensor(output, (1, len(answer)), "FP32", tuple(answer)),
    )
    exchange = GoldenExchange(GoldenRequest((request,)), GoldenResponse((response,)))
    return encode_document(GoldenDocument(variant="fp32", tolerance=1e-3, exchanges=(exchange,)))


def with_fixed_salt(document: AliasDocument) -> AliasDocument:
    """Give a split a salt that is the same in each run, so that no test depends on where its callers happen to fall."""
    return structs.replace(document, split_salt="salt") if document.split_salt else document


def publish_echo(registry: Registry, datatype: Datatype) -> None:
    """Publish the model that gives its input back, of one datatype, as `echo-fp32` and the like."""
    name, shape = f"echo-{datatype.lower()}", ("rows", "columns")
    echo = draft(name, (TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),))
    registry.publish_version(echo, {"model.onnx": graph(name)})


def publish_digits(registry: Registry) -> Manifest:
    """Publish the kept digits model: the real one, trained by the recipe of record."""
    folder = MODELS / "digits"
    kept = decode_document((folder / "draft.json").read_bytes(), ManifestDraft, "draft.json")
    return registry.publish_version(kept, {path.name: path for path in folder.iterdir() if path.name != "draft.json"})


def digits() -> tuple[Any, list[int]]:
    """The test set of the digits model: images (N, 1, 8, 8) as scanned, and labels."""
    with np.load(MODELS / "digits" / "evaluation.npz", allow_pickle=False) as arrays:
        return arrays["image"], arrays["label"].tolist()


EVENT: dict[str, Any] = json.loads((EVENTS / "predict-digits.json").read_text())


def event(
    resources: Iterable[str],
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The recorded event with another call in it, routed among `resources` as the gateway does: words before names."""
    routed: dict[str, Any] = {"resource": path, "pathParameters": None}
    for resource in sorted(resources, key=lambda resource: resource.count("{")):
        found = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", resource), path)
        if found:
            routed = {"resource": resource, "pathParameters": found.groupdict() or None}
            break
    encoded = base64.b64encode(body).decode() if body else None
    return {
        **EVENT,
        **routed,
        "httpMethod": method,
        "path": path,
        "headers": EVENT["headers"] | dict(headers or {}),
        "queryStringParameters": dict(query) if query else None,
        "body": encoded,
        "isBase64Encoded": encoded is not None,
    }


class FaultyStore(ObjectStore):
    """A store in memory that fails, or bends what it reads, for the paths that contain a text."""

    def __init__(self) -> None:
        inner = open_store("memory://")
        super().__init__(inner.url, inner._store)
        self._faults: dict[str, Callable[[bytes], bytes]] = {}
        self.reads: list[str] = []
        self.e_tags: dict[str, str] = {}  # to be told instead, by a text that the path contains

    def fail(self, text: str) -> None:
        """From now on, reading a path that contains `text` fails as a store that is away does."""

        def away(_: bytes) -> bytes:
            raise StoreError(f"The store failed at {text}: connection refused")

        self._faults[text] = away

    def bend(self, text: str, change: Callable[[bytes], bytes]) -> None:
        """From now on, what is read from a path that contains `text` is changed on the way."""
        self._faults[text] = change

    def heal(self) -> None:
        """Answer rightly again."""
        self._faults.clear()

    def get(self, path: str) -> StoredObject:
        self.reads.append(path)
        stored = super().get(path)
        told = next((e_tag for text, e_tag in self.e_tags.items() if text in path), stored.e_tag)
        return StoredObject(self._through(path, stored.data), told)

    def stream(self, path: str, chunk_bytes: int = 8 << 20) -> Iterator[memoryview]:
        self.reads.append(path)
        whole = b"".join(super().stream(path, chunk_bytes))
        yield memoryview(self._through(path, whole))

    def _through(self, path: str, data: bytes) -> bytes:
        for text, change in list(self._faults.items()):
            if text in path:
                data = change(data)
        return data


class FixedMemory(EnvironmentMemory):
    """A memory of which so much is free."""

    def __init__(self, free: int) -> None:
        super().__init__()
        self.free = free

    @property
    def free_bytes(self) -> int:
        return self.free


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def eventually(true: Callable[[], bool], within_s: float = 120.0) -> None:
    """Wait until something is so; `within_s` is an upper bound for what should take a moment, on a busy machine too."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"still not so after {within_s:g} s"
        time.sleep(0.05)
