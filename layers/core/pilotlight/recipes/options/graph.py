"""How the trained model becomes a graph, and a smaller one."""

from typing import Annotated, Literal

from pydantic import Field

from pilotlight.recipes.options.part import Options


class ExportOptions(Options):
    """The ONNX opset, and the largest |difference| between graph and model that is let through.

    It is a share of the largest |output|, or of 1 where that is less.
    """

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    tolerance: Annotated[float, Field(gt=0)] = 1e-4


class QuantizationOptions(Options):
    """On which ladder the smaller variant is made, and how much it may lose and still be served.

    `weight-only` is for language models: weights in 4 bits first, and where that loses too much, as `dynamic`.
    """

    scheme: Literal["static", "dynamic", "weight-only"]
    budget: Annotated[float, Field(ge=0, le=100)] | None = None  # in the metric's unit; null: its usual one
    block: Literal[16, 32, 64, 128, 256] = 32  # weights that share a scale where the weights alone are quantized
