"""P3: what a warm handler adds to `session.run` on a 64-value JSON request, ours against a plain one.

The plain handler is what a good engineer writes in an afternoon: Powertools' resolver with pydantic validation, a
session in a module variable, numpy.
"""

import json
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

from functions.predict.handler import build
from pilotlight.registry import Registry
from pilotlight.runtime.session import Session, open_session
from pilotlight.settings import Settings
from pilotlight.storage import open_store
from tests import fakes
from tests.benchmarks.goal import Measure, interleaved

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


def measure() -> list[Measure]:
    """Both handlers and the bare session, in turn, on the recorded event."""
    with TemporaryDirectory() as folder:
        fakes.publish_digits(Registry(open_store(folder)))
        handle = build(Settings(store=folder, alias_seconds=3600))
        session = open_session(str(fakes.MODELS / "digits" / "model.int8.onnx"))
        resolver, image = plain(session), np.zeros((1, 1, 8, 8), np.float32)
        sides = {
            "ours": lambda: handle(EVENT, None),
            "plain": lambda: resolver.resolve(EVENT, LambdaContext()),
            "run": lambda: session.run({"image": image}),
        }
        same_answer(handle(EVENT, None), resolver.resolve(EVENT, LambdaContext()))
        interleaved(sides, ROUNDS // 10)  # warm
        seconds = interleaved(sides, ROUNDS)
    ours, theirs = (seconds[side] - seconds["run"] for side in ("ours", "plain"))
    return [
        Measure("P3", "warm handler minus session.run, 64-value JSON", ours * 1e6, 150, "us"),
        Measure("P3", "the same, ours / plain handler", ours / theirs, 0.15),
    ]


def same_answer(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """A handler that is fast because it answers something else is not compared."""
    found, expected = (json.loads(answer["body"])["outputs"][0]["data"] for answer in (ours, theirs))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
