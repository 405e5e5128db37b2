"""Turn standardised answers into numbers in their own unit. The module knows arrays, not where they come from."""

import numpy as np

from pilotlight.contracts.processing import RegressionPostprocessing
from pilotlight.runtime.datatypes import Array


def restore_units(steps: RegressionPostprocessing, graph_output: Array) -> Array:
    """Compute answer * deviation + mean over the last dimension, in float64, as float32; [batch, 1] becomes [batch]."""
    mean, deviation = np.array(steps.mean), np.array(steps.deviation)
    restored: Array = (graph_output.astype(np.float64) * deviation + mean).astype(np.float32)
    return restored[:, 0] if restored.shape[1:] == (1,) else restored
