"""The empty process of P5: onnxruntime imported, and nothing opened."""

from typing import Any

import onnxruntime

onnxruntime.set_default_logger_severity(3)


def handle(event: object, context: object) -> dict[str, Any]:
    """Where Lambda enters."""
    return {"statusCode": 200, "headers": {}, "body": "", "isBase64Encoded": False}
