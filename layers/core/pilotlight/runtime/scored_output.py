"""Which of a graph's outputs right answers are compared with, and its values as scores of classes."""

import numpy as np

from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.session import Session

FLOATS = ("FP32", "FP16", "FP64")


def choose_scored_output(session: Session) -> str:
    """Choose the first output of floats, since a classifier may give its labels before its scores; else the first."""
    return next((spec.name for spec in session.outputs if spec.datatype in FLOATS), session.outputs[0].name)


def to_scores(values: Array, width: int | None = None) -> Array:
    """Convert classes (N,) or (N, 1), as a graph with ArgMax inside answers, to scores (N, width); keep all else.

    The last of them is for that class and all above it; by default there is one for each class that occurs.
    """
    if values.dtype.kind not in "iu" or values.size != len(values):
        return values
    classes = values.reshape(-1, 1)
    width = max(int(classes.max(initial=0)) + 1, 2) if width is None else width
    return np.asarray(classes.clip(max=width - 1) == np.arange(width), np.float32)
