"""Whether an exported graph computes what the module computes: a gate, since exporters can be wrong silently.

The graph is run as the handlers run it: by `pilotlight.runtime.session`, also at a batch and a length of one, which the
exporter never saw.
"""

from itertools import product
from pathlib import Path

import numpy as np
from torch import nn

from functions.train.data import Array
from functions.train.data.pixels import Inputs, Pixels
from functions.train.errors import ParityError
from functions.train.export.quantize import run_graph
from functions.train.training.prediction import predict_outputs
from pilotlight.contracts.manifest import ExportParity
from pilotlight.runtime.session import open_session

BATCH_SIZES = (1, 2, 7, 64)  # one, the exporter's own, an odd one, and more than a request is likely to bring
LENGTHS = (1, 2, 7)  # tokens; and the longest there is


def check_parity(model: nn.Module, graph: Path, inputs: Inputs, tolerance: float) -> ExportParity:
    """Measure the largest |difference| of an output between module and graph; `ParityError` above the tolerance.

    The tolerance is a share of the largest |output|, or of 1 where that is less: a float32 price has no four decimals.

    `inputs` are raw ones; where they are too few for a batch, they are repeated. The grid is of batches and, where the
    inputs are tokens, of lengths.
    """
    inputs = inputs[: max(BATCH_SIZES)] if isinstance(inputs, Pixels) else inputs
    session, worst, lengths = open_session(str(graph)), 0.0, choose_lengths(inputs)
    for batch, length in product(BATCH_SIZES, lengths or [None]):
        feed = np.resize(inputs, (batch, *inputs.shape[1:]))[:, :length]
        expected = predict_outputs(model, feed)
        difference = float(np.abs(run_graph(session, feed) - expected).max())
        largest = max(1.0, float(np.abs(expected).max()))
        if not difference <= tolerance * largest:  # so written, it refuses NaN as well
            where = f"batch {batch}" + (f" and length {length}" if length else "")
            raise ParityError(
                f"At {where}, the exported graph is {difference:.3g} away from the model's outputs of up to "
                f"{largest:.3g}, more than the tolerance of {tolerance:.3g}: nothing is published."
            )
        worst = max(worst, difference)
    return ExportParity(worst, BATCH_SIZES, lengths)


def choose_lengths(inputs: Array) -> tuple[int, ...]:
    """Choose the lengths at which tokens (N, T) are compared; none for values, whose other dimensions are fixed."""
    if inputs.dtype != np.int64:
        return ()
    return (*(length for length in LENGTHS if length < inputs.shape[1]), inputs.shape[1])
