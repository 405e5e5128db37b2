"""The plain handler of P1, as a good engineer writes it in an afternoon: boto3, a session, Powertools' validation.

It loads its model while it is initialised, from a path given by variables, with AWS's own download and nothing else.
"""

import os
import tempfile
from pathlib import Path

import boto3
import numpy as np
import onnxruntime as ort
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

MODEL = Path(tempfile.gettempdir()) / "model.onnx"
boto3.client("s3").download_file(os.environ["MODEL_BUCKET"], os.environ["MODEL_KEY"], str(MODEL))
session = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
resolver = APIGatewayRestResolver(enable_validation=True)


class IntegerTensor(BaseModel):
    """The tensor that comes in."""

    name: str
    shape: list[int]
    datatype: str
    data: list[int]


class FloatTensor(BaseModel):
    """The tensor that goes out."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferRequest(BaseModel):
    """The request."""

    inputs: list[IntegerTensor]
    id: str | None = None


class InferResponse(BaseModel):
    """The answer."""

    model_name: str
    model_version: str
    id: str | None
    outputs: list[FloatTensor]


@resolver.post("/v2/models/<model>/infer")
def infer(model: str, body: InferRequest) -> InferResponse:
    """Answer a V2 request."""
    tensor = body.inputs[0]
    (found,) = session.run(None, {tensor.name: np.array(tensor.data, dtype=np.int64).reshape(tensor.shape)})
    output = FloatTensor(name="embedding", shape=list(found.shape), datatype="FP32", data=found.ravel().tolist())
    return InferResponse(model_name=model, model_version="1", id=body.id, outputs=[output])


def handle(event: dict[str, object], context: LambdaContext) -> dict[str, object]:
    """Where Lambda enters."""
    return resolver.resolve(event, context)
