"""Turn vectors of tokens or places into one for each text or image. The module knows arrays, not where they come from.

Pooling and normalisation are those of sentence-transformers' `Pooling` and `Normalize`.
"""

import numpy as np

from pilotlight.contracts.processing import EmbeddingPostprocessing
from pilotlight.runtime.datatypes import Array

MASK_INPUT = "attention_mask"  # the feed that is 1 for tokens and 0 for padding
MIN_NORM = 1e-12  # minimum of a length, so that zeros stay zeros


def build_embeddings(steps: EmbeddingPostprocessing, graph_output: Array, mask: Array | None) -> Array:
    """Build one float32 vector for each example; (batch, tokens, width) is pooled under the mask.

    So is (batch, width, height, width of the map), whose places are an image's tokens.
    """
    embeddings = graph_output.astype(np.float32)
    if embeddings.ndim == 4:
        embeddings, mask = embeddings.reshape(*embeddings.shape[:2], -1).swapaxes(1, 2), None
    if embeddings.ndim == 3:
        embeddings = pool_tokens(steps, embeddings, np.ones(embeddings.shape[:2], bool) if mask is None else mask != 0)
    return normalise(embeddings) if steps.normalise else embeddings


def normalise(embeddings: Array) -> Array:
    """Divide each vector by its length; zeros stay zeros."""
    return np.asarray(embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), MIN_NORM))


def shorten_embeddings(steps: EmbeddingPostprocessing, embeddings: Array, dimensions: int) -> Array:
    """Keep the first numbers of each vector, and bring it to length 1 again if it had it."""
    shortened: Array = embeddings[..., :dimensions]
    return normalise(shortened) if steps.normalise else shortened


def pool_tokens(steps: EmbeddingPostprocessing, tokens: Array, mask: Array) -> Array:
    """Pool (batch, tokens, width) under the mask (batch, tokens) to (batch, width); zeros for a text without tokens."""
    if steps.pooling == "cls":
        first = mask.argmax(axis=1)  # padding may come first
        return np.asarray(tokens[np.arange(len(tokens)), first])
    weights = mask[..., None]
    if steps.pooling == "max":
        best = np.where(weights, tokens, -np.inf).max(axis=1)
        return np.where(np.isfinite(best), best, 0).astype(np.float32)
    counts = np.maximum(weights.sum(axis=1), 1).astype(np.float32)  # integers would make the quotient float64
    return np.asarray((tokens * weights).sum(axis=1) / counts)
