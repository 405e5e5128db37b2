"""How the trained model becomes a graph, and a smaller one."""

from typing import Annotated, Literal

from pydantic import Field

from functions.train.options.part import Options


class ExportOptions(Options):
    """The ONNX opset, and the largest |difference| of a logit between graph and model that is let through."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    tolerance: Annotated[float, Field(gt=0)] = 1e-4


class QuantizationOptions(Options):
    """On which ladder the int8 variant is made, and how much it may lose and still be served."""

    scheme: Literal["static", "dynamic"]
    budget: Annotated[float, Field(ge=0, le=100)] = 0.5  # percentage points of accuracy, or of R2
