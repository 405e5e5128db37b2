"""P3 and P4: what a warm handler adds to `session.run`, ours against a plain one.

The plain handler is what a good engineer writes in an afternoon: Powertools' resolver with pydantic validation, a
session in a module variable, numpy.
"""

import base64
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

from functions.predict.handler import build_predict_handler
from pilotlight.api.router import Router
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.names import ModelReference
from pilotlight.observability import emf
from pilotlight.registry.registry import Registry
from pilotlight.runtime.session import Session, open_session
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.benchmarks.goal import Measure, Side

ROUNDS = 2000
EVENT = json.loads((fakes.MODELS.parent / "events" / "predict-digits.json").read_text())


class Tensor(BaseModel):
    """A tensor of the plain handler."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferRequest(BaseModel):
    """The request of the plain handler."""

    inputs: list[Tensor]
    id: str | None = None


class InferResponse(BaseModel):
    """The answer of the plain handler."""

    model_name: str
    model_version: str
    id: str | None
    outputs: list[Tensor]


def plain(session: Session) -> APIGatewayRestResolver:
    """The plain handler over an open session."""
    resolver = APIGatewayRestResolver(enable_validation=True)

    @resolver.post("/v2/models/<model>/infer")
    def infer(model: str, body: InferRequest) -> InferResponse:
        tensor = body.inputs[0]
        image = np.array(tensor.data, dtype=np.float32).reshape(tensor.shape)
        logits = session.run({tensor.name: image})["logits"]
        output = Tensor(name="logits", shape=list(logits.shape), datatype="FP32", data=logits.ravel().tolist())
        return InferResponse(model_name=model, model_version="1", id=body.id, outputs=[output])

    return resolver


class Timed:
    """A native session that adds up the seconds of its runs: in the handler, where caches are as the handler left them.

    Alone in a loop the same run takes two thirds of that, and what is missing would count as the handler's.
    """

    def __init__(self, native: Any) -> None:  # noqa: ANN401 - onnxruntime ships no types
        self._native = native
        self.seconds = 0.0

    def __call__(self) -> "Timed":
        """The session to run on, as `Session.native` gives it."""
        return self

    def run(self, *arguments: Any) -> Any:  # noqa: ANN401 - as above
        """Run, and count."""
        started = time.perf_counter()
        try:
            return self._native.run(*arguments)
        finally:
            self.seconds += time.perf_counter() - started


class Context:
    """What Lambda tells a handler of the time that it has."""

    def get_remaining_time_in_millis(self) -> int:
        """As at the start of a call."""
        return 28_000


def measure() -> list[Measure]:
    """P3 and P4."""
    with TemporaryDirectory() as folder:
        registry = Registry(open_store(folder))
        fakes.publish_digits(registry)
        tensors = tuple(TensorSpec(name, "FP32", ("rows", "columns")) for name in "xy")
        registry.publish_version(
            fakes.draft("echo", tensors[:1], tensors[1:]), {"model.onnx": fakes.graph("echo-fp32")}
        )
        router = build_predict_handler(Settings(store=folder, alias_seconds=3600))
        with logging_calls():
            return [*small(router), *large(router)]


@contextmanager
def logging_calls() -> Iterator[None]:
    """The ledger's lines are made and written, as in a function, but to nowhere."""
    shown, nowhere = os.dup(emf.STANDARD_OUTPUT), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, emf.STANDARD_OUTPUT)
    try:
        with patch.object(emf, "FUNCTION", "PredictFunction"):
            yield
    finally:
        os.dup2(shown, emf.STANDARD_OUTPUT)
        os.close(shown)
        os.close(nowhere)


def small(router: Router) -> list[Measure]:
    """P3: 64 values of JSON, ours and the plain handler in turn."""
    theirs = open_session(str(fakes.MODELS / "digits" / "model.int8.onnx"))
    clocks = {"ours": timed(router, "digits"), "plain": Timed(theirs.get_native())}
    resolver = plain(dataclasses.replace(theirs, get_native=clocks["plain"]))
    sides = {
        "ours": lambda: router(EVENT, Context()),
        "plain": lambda: resolver.resolve(EVENT, LambdaContext()),
    }
    same_answer(router(EVENT, Context()), resolver.resolve(EVENT, LambdaContext()))
    around = spent(sides, clocks, ROUNDS)
    return [
        Measure("P3", "warm handler minus its session.run, 64-value JSON", around["ours"] * 1e6, 150, "us"),
        Measure("P3", "the same, ours / plain handler", around["ours"] / around["plain"], 0.15),
    ]


def large(router: Router) -> list[Measure]:
    """P4: 1 MB of tensor in binary form there, and back."""
    clocks = {"ours": timed(router, "echo")}
    event = binary_event(np.random.default_rng(0).standard_normal((512, 512)).astype("<f4"))
    around = spent({"ours": lambda: router(event, Context())}, clocks, ROUNDS // 10)
    return [Measure("P4", "the same, 1 MB tensor in binary form, both ways", around["ours"] * 1e3, 1.5, "ms")]


def binary_event(tensor: Any) -> Any:  # noqa: ANN401 - an array
    """An event with the tensor behind its JSON, that asks for the answer in the same form."""
    given = {"name": "x", "shape": tensor.shape, "datatype": "FP32", "parameters": {"binary_data_size": tensor.nbytes}}
    text = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    return EVENT | {
        "pathParameters": {"model": "echo"},
        "headers": EVENT["headers"] | {"Inference-Header-Content-Length": str(len(text))},
        "body": base64.b64encode(text + tensor.tobytes()).decode(),
        "isBase64Encoded": True,
    }


def timed(router: Router, model: str) -> Timed:
    """Open a model of the handler, and put a clock around its session."""
    endpoints = router._routes["/v2/models/{model}/infer"]["POST"].__self__  # type: ignore[attr-defined]  # a bound method
    catalog = endpoints._model_manager
    opened = catalog.get_model(ModelReference(model))
    clock = Timed(opened.session.get_native())
    catalog.model_cache.put(dataclasses.replace(opened, session=dataclasses.replace(opened.session, get_native=clock)))
    return clock


def spent(sides: Mapping[str, Side], clocks: Mapping[str, Timed], rounds: int) -> dict[str, float]:
    """The median seconds of each side that has a clock, without those of its runs; the sides taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in clocks}
    for _ in range(rounds + rounds // 10):
        for name in clocks:
            clocks[name].seconds = 0.0
            started = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - started - clocks[name].seconds)
    return {name: median(each[rounds // 10 :]) for name, each in seconds.items()}


def same_answer(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """A handler that is fast because it answers something else is not compared."""
    found, expected = (json.loads(answer["body"])["outputs"][0]["data"] for answer in (ours, theirs))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
