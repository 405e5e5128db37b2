"""Which of a graph's outputs right answers are compared with, and its values as scores of classes."""

import numpy as np

from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.session import Session

FLOATS = ("FP32", "FP16", "FP64")


def choose_scored_output(session: Session) -> str:
    """Choose the first output of floats, since a classifier may give its labels before its scores; else the first."""
    return next((spec.name for spec in session.outputs if spec.datatype in FLOATS), session.outputs[0].name)


def to_scores(values: Array) -> Array:
    """Convert classes (N,) or (N, 1), as a graph with ArgMax inside answers, to scores (N, classes); keep all else."""
    if values.dtype.kind not in "iu" or values.size != len(values):
        return values
    classes = values.reshape(-1, 1)
    return np.asarray(classes == np.arange(max(int(classes.max(initial=0)) + 1, 2)), np.float32)
