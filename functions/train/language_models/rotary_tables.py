"""Tables of cosines and sines for rotary position embeddings (Su et al. 2021), with the changes for long contexts."""

from math import log, pi

import numpy as np
import numpy.typing as npt

from functions.train.language_models.decoder_config import DecoderConfig, FloatArray, RotaryScaling

DoubleArray = npt.NDArray[np.float64]
YARN_FAST, YARN_SLOW = 32.0, 1.0  # turns within the original context, above and below which YaRN keeps or stretches


def compute_rotary_tables(
    config: DecoderConfig, context: int, *, windowed: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Compute cosine and sine of each position and pair, (context, pairs); windowed layers may have a base of theirs.

    Layers with a base of their own are not scaled: their window is short.
    """
    own_base = windowed and config.windowed_rotary_base > 0
    base = config.windowed_rotary_base if own_base else config.rotary_base
    scaling = None if own_base else config.rotary_scaling
    size = config.rotary_size or config.head_size
    frequencies = scale_frequencies(base ** (-np.arange(0, size, 2) / size), base, scaling)
    angles = np.arange(context)[:, None] * frequencies
    factor = 1.0 if scaling is None else scaling.attention_factor
    return (np.cos(angles) * factor).astype(np.float32), (np.sin(angles) * factor).astype(np.float32)


def scale_frequencies(frequencies: DoubleArray, base: float, scaling: RotaryScaling | None) -> DoubleArray:
    """Scale the frequencies of a head's pairs, in radians a position, as transformers does for the kind of scaling."""
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "longrope":
        return frequencies / np.array(scaling.factors, np.float64)
    if scaling.kind == "llama3":
        turns = scaling.original_context * frequencies / (2 * pi)
        kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        kept = np.clip(kept, 0, 1)
    else:
        kept = 1 - compute_yarn_ramp(len(frequencies), base, scaling.original_context)
    return frequencies * kept + frequencies / scaling.factor * (1 - kept)


def compute_yarn_ramp(pairs: int, base: float, context: int) -> DoubleArray:
    """Compute how far each pair is stretched, 0 to 1 (Peng et al. 2023, section 3.2)."""

    def find_pair(turns: float) -> float:
        return pairs * log(context / (turns * 2 * pi)) / log(base)

    low = max(np.floor(find_pair(YARN_FAST)), 0)
    high = min(np.ceil(find_pair(YARN_SLOW)), 2 * pairs - 1)
    ramp: DoubleArray = np.clip((np.arange(pairs) - low) / max(high - low, 0.001), 0, 1)
    return ramp


def compute_yarn_attention_factor(factor: float) -> float:
    """Compute by how much YaRN makes cosine and sine greater (Peng et al. 2023, section 3.4)."""
    return 0.1 * log(factor) + 1.0 if factor > 1 else 1.0
