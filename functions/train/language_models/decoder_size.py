"""How large a decoder is before anything of it is written, and whether a Lambda function can hold it."""

import shutil
from pathlib import Path

from functions.train.language_models.block_quantization import check_columns
from functions.train.language_models.decoder_config import DecoderConfig
from functions.train.language_models.linear_layers import BODY_BITS, HEAD_BITS
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import Precision
from pilotlight.errors import InvalidInputError, TooLargeError, UnavailableError

DEFAULT_CONTEXT = (
    32_768  # tokens, unless more are asked for: a function has 15 minutes, and reads some hundred a second
)
SHORTEST_CONTEXT = 1024  # tokens, below which a model is of little use
LARGEST_MB = 10_240  # of memory that a Lambda function may have
RUNTIME_MB = 640  # of them for Python, onnxruntime, and what a run computes
MB = 1_000_000
SCALE_BITS = 1  # of a block's scale, for each of its 32 values
FLOAT_BITS = 32


def choose_context(config: DecoderConfig, asked: int | None) -> int:
    """Choose how many tokens prompt and answer may have; `InvalidInputError` for more than the decoder knows."""
    if asked is not None and not 1 < asked <= config.context_length:
        raise InvalidInputError(
            f"--context {asked:,} is not possible: the model was made for 2 to {config.context_length:,} tokens."
        )
    return asked or min(config.context_length, DEFAULT_CONTEXT)


def check_disk_holds(config: DecoderConfig, precision: Precision, folder: Path) -> None:
    """Raise `UnavailableError` if the disk has no room for the unquantized graph and the variant compared with it."""
    variants: set[Precision] = {"fp32", precision}
    needed, free = sum(estimate_weight_bytes(config, each) for each in variants), shutil.disk_usage(folder).free
    if needed > free:
        raise UnavailableError(
            f"Measuring the model takes {needed // MB:,} MB of {folder}, and {free // MB:,} MB are free; set TMPDIR to "
            "a folder on a larger disk."
        )


def check_quantizable(config: DecoderConfig, precision: Precision) -> None:
    """Raise `InvalidInputError` if a variant of fewer bits is wanted, and a weight does not divide into its blocks."""
    if precision in BODY_BITS:
        for columns in (config.width, config.hidden_size, config.heads * config.head_size):
            check_columns(columns)


def count_weights(config: DecoderConfig) -> tuple[int, int]:
    """Count the weights of all layers, and those of embeddings and head."""
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    layer = config.width * (2 * queries + 2 * keys + 3 * config.hidden_size)
    return config.layers * layer, config.vocabulary_size * config.width * (1 if config.tied else 2)


def estimate_weight_bytes(config: DecoderConfig, precision: Precision) -> int:
    """Estimate the bytes of a variant's weights."""
    body, tables = count_weights(config)
    bits = BODY_BITS.get(precision)
    if bits is None:
        return (body + tables) * FLOAT_BITS // 8
    return (body * (bits + SCALE_BITS) + tables * (HEAD_BITS + SCALE_BITS)) // 8


def check_function_holds(config: DecoderConfig, spec: DecoderSpec, precision: Precision) -> None:
    """Raise `TooLargeError` if weights and the cache of a whole context exceed what any function has."""
    available = (LARGEST_MB - RUNTIME_MB) * MB
    weights, cache = estimate_weight_bytes(config, precision), spec.cache_bytes_per_token * spec.context_length
    if weights + cache <= available:
        return
    raise TooLargeError(
        f"No Lambda function holds the model: as {precision}, its weights take {weights // MB:,} MB, and keys and "
        f"values of {spec.context_length:,} tokens {cache // MB:,} MB, of {available // MB:,} MB that the largest "
        f"function, of {LARGEST_MB:,} MB, has for both; {suggest_remedy(config, spec, precision, available)}."
    )


def suggest_remedy(config: DecoderConfig, spec: DecoderSpec, precision: Precision, available: int) -> str:
    """Suggest what would fit: a shorter context, fewer bits, or a smaller model."""
    remedies, shortest = list[str](), min(spec.context_length, SHORTEST_CONTEXT)
    context = (available - estimate_weight_bytes(config, precision)) // spec.cache_bytes_per_token
    if context >= shortest:
        remedies.append(f"with --context {context} it does")
    fewer = estimate_weight_bytes(config, "int4")
    if precision != "int4" and fewer + shortest * spec.cache_bytes_per_token <= available:
        remedies.append(f"--quantize int4 takes {fewer // MB:,} MB of weights")
    return ", or ".join(remedies) or "choose a smaller model"
