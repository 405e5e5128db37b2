"""Whether an exported graph computes what the module computes: a gate, since exporters go wrong without a word.

Compared as the handlers run it: by `pilotlight.runtime.session`, at a batch of one, which the exporter never saw.
"""

from pathlib import Path

import numpy as np
from torch import nn

from functions.train.data import Array
from functions.train.errors import ParityError
from functions.train.graph import ask
from functions.train.loop import predict
from pilotlight.contracts import Parity
from pilotlight.runtime.session import open_session

BATCHES = (1, 2, 7, 64)  # one, the exporter's own, an odd one, and more than a request is likely to bring


def check(model: nn.Module, graph: Path, inputs: Array, tolerance: float) -> Parity:
    """The largest |difference| of an output between module and graph over the batches; `ParityError` above tolerance.

    `inputs` are raw ones, from which the batches are filled by starting over when they are too few.
    """
    session, worst = open_session(str(graph)), 0.0
    for batch in BATCHES:
        feed = np.resize(inputs, (batch, *inputs.shape[1:]))
        difference = float(np.abs(ask(session, feed) - predict(model, feed)).max())
        if not difference <= tolerance:  # so written, it refuses NaN as well
            raise ParityError(
                f"At batch {batch}, the exported graph is {difference:.3g} away from the model, more than the "
                f"tolerance of {tolerance:.3g}: nothing is published."
            )
        worst = max(worst, difference)
    return Parity(worst, BATCHES)
