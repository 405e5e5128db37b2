"""Vectors of tokens to one vector of each text. It knows arrays, not where they come from.

Pooling and normalisation as in sentence-transformers' `Pooling` and `Normalize`.
"""

import numpy as np

from pilotlight.contracts.processing import EmbeddingPostprocessing
from pilotlight.runtime.datatypes import Array

MASK_INPUT = "attention_mask"  # the feed that is 1 for tokens and 0 for padding
MIN_NORM = 1e-12  # what a length is at least, so that zeros stay zeros


def build_embeddings(steps: EmbeddingPostprocessing, graph_output: Array, mask: Array | None) -> Array:
    """One float32 vector for each example: (batch, tokens, width) is pooled under the mask, (batch, width) is not."""
    embeddings = graph_output.astype(np.float32)
    if embeddings.ndim == 3:
        embeddings = pool_tokens(steps, embeddings, np.ones(embeddings.shape[:2], bool) if mask is None else mask != 0)
    if steps.normalise:
        embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), MIN_NORM)
    return embeddings


def pool_tokens(steps: EmbeddingPostprocessing, tokens: Array, mask: Array) -> Array:
    """(batch, tokens, width) and (batch, tokens) to (batch, width); without any token, zeros."""
    if steps.pooling == "cls":
        first = mask.argmax(axis=1)  # padding may stand in front
        return np.asarray(tokens[np.arange(len(tokens)), first])
    weights = mask[..., None]
    if steps.pooling == "max":
        best = np.where(weights, tokens, -np.inf).max(axis=1)
        return np.where(np.isfinite(best), best, 0).astype(np.float32)
    counts = np.maximum(weights.sum(axis=1), 1).astype(np.float32)  # whole numbers would make the quotient float64
    return np.asarray((tokens * weights).sum(axis=1) / counts)
