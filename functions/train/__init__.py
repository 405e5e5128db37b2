"""The training job: `python -m functions.train RECIPE` makes a version of a model from a recipe."""

import os

# onnxruntime reports home over HTTPS unless this is set before its first import, which here is the quantizer's.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
