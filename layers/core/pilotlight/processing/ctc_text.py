"""Turn scores of characters into texts, greedily, as connectionist temporal classification (CTC) is read.

The module knows arrays and characters, not where they come from.
"""

from collections.abc import Sequence

import numpy as np

from pilotlight.contracts.processing import CtcPostprocessing
from pilotlight.errors import ModelRefusedError
from pilotlight.processing.activations import softmax
from pilotlight.runtime.datatypes import Array


def build_texts(steps: CtcPostprocessing, labels: Sequence[str], scores: Array) -> dict[str, Array]:
    """Build the text of each example, and its confidence: repeats are one character, and blanks none."""
    scores = scores.astype(np.float32)
    scores = scores[None] if scores.ndim == 2 else scores
    if steps.layout == "TNC":
        scores = scores.swapaxes(0, 1)
    if steps.activation == "softmax":
        scores = softmax(scores)
    characters = list_characters(steps, labels, scores.shape[-1])
    best = scores.argmax(axis=-1)
    probabilities = np.take_along_axis(scores, best[..., None], axis=-1)[..., 0]
    blank = steps.blank % scores.shape[-1]
    is_character = best != blank
    is_character[:, 1:] &= best[:, 1:] != best[:, :-1]
    texts = np.empty(len(scores), object)
    texts[:] = [
        "".join(characters[index] for index in row[chosen]) for row, chosen in zip(best, is_character, strict=True)
    ]
    counts = np.maximum(is_character.sum(axis=1), 1)
    confidences = (probabilities * is_character).sum(axis=1) / counts
    return {steps.text: texts, steps.confidence: confidences.astype(np.float32)}


def list_characters(steps: CtcPostprocessing, labels: Sequence[str], classes: int) -> list[str]:
    """List the character of each class; the blank has one too, which no text has, if the labels leave it out."""
    characters = [
        " " if steps.space and character == steps.space else character for character in steps.characters or labels
    ]
    if len(characters) == classes - 1:
        characters.insert(steps.blank % classes, "")
    if len(characters) != classes:
        raise ModelRefusedError(
            f"The graph's {steps.output!r} has {classes:,} classes, and the version has {len(characters):,} "
            f"characters; give {classes - 1:,}, without the blank, as 'characters' of its finish or as labels."
        )
    return characters
