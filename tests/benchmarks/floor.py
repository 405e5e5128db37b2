"""The floor of P2: onnxruntime, a session from a file that is there already, and one run."""

import base64
import json
import os
from typing import Any

import numpy as np
import onnxruntime as ort

session = ort.InferenceSession(os.environ["MODEL_PATH"], providers=["CPUExecutionProvider"])


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Where Lambda enters."""
    tensor = json.loads(base64.b64decode(event["body"]))["inputs"][0]
    ids = np.array(tensor["data"], np.int64).reshape(tensor["shape"])
    (found,) = session.run(None, {tensor["name"]: ids})
    body = json.dumps({"outputs": [{"data": found.ravel().tolist()}]})
    return {"statusCode": 200, "headers": {}, "body": body, "isBase64Encoded": False}
