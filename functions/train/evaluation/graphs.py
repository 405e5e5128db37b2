"""Evaluate a graph on a data set batch by batch, as the handlers run it: no outputs are kept."""

from collections.abc import Collection, Iterator
from math import prod

import numpy as np
import torch

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.pixels import Inputs
from functions.train.evaluation.score import Score
from functions.train.evaluation.totals import build_totals
from functions.train.export.quantize import run_graph
from functions.train.training.prediction import choose_batch_size
from pilotlight.runtime.session import Session

MAX_BATCH_BYTES = 64 << 20  # of a batch's inputs; a graph needs several times as much inside


def split_examples(inputs: Inputs) -> Iterator[slice]:
    """Split a data set into batches: of 1,024 targets at most, fewer where the inputs are large."""
    example_bytes = inputs.dtype.itemsize * prod(inputs.shape[1:])
    size = max(1, min(choose_batch_size(inputs), MAX_BATCH_BYTES // max(1, example_bytes)))
    return (slice(start, start + size) for start in range(0, len(inputs), size))


def evaluate_graph(session: Session, data: Dataset, names: Collection[str] | None = None) -> Score:
    """Score a graph on all of a data set."""
    totals = build_totals(data, names)
    for rows in split_examples(data.inputs):
        totals.add(torch.from_numpy(run_graph(session, data.inputs[rows])), torch.from_numpy(data.targets[rows]))
    return totals.score()


def predict_answers(session: Session, inputs: Inputs) -> Array:
    """Return what a graph answers: of logits (N, classes) the class (N, 1), else the number; no logits are kept."""
    batches = (run_graph(session, inputs[rows]) for rows in split_examples(inputs))
    return np.concatenate(
        [batch if batch.shape[-1] == 1 else batch.argmax(axis=-1, keepdims=True) for batch in batches]
    )
