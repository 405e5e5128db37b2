"""Weigh the keys and values of a request against the memory that is free, before its prompt is run.

A prompt that does not fit with the beginning of its answers is refused, with the numbers. How long answers become is
not known before; so they may be as long as there is memory, and end there as they end with the context.
"""

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.errors import TooLargeError
from pilotlight.generation.key_value_cache import CAPACITY_STEP, round_capacity

UNLIMITED_BYTES = 1 << 62  # free in a process that nobody limits
WORKING_BYTES = 32_000_000  # of a run of the graph, for a chunk of the prompt
LOGITS_COPIES = 6  # of a choice's logits that are there while a token is drawn
MB = 1_000_000


def count_unlimited_bytes() -> int:
    """Return that as much is free as can be asked for."""
    return UNLIMITED_BYTES


def bound_answers(spec: DecoderSpec, prompt_tokens: int, rows: int, limit: int, free_bytes: int) -> int:
    """Return how many tokens each of `rows` answers may have in `free_bytes`, at most `limit`.

    Raises `TooLargeError` if that is less than `limit` and less than a cache grows by at once.
    """
    token_bytes = rows * spec.cache_bytes_per_token
    others = WORKING_BYTES + rows * LOGITS_COPIES * 4 * spec.vocabulary_size
    if rows > 1:  # the prompt is run in a cache of its own, which is copied to each row
        others += round_capacity(prompt_tokens, spec.context_length) * spec.cache_bytes_per_token
    # While a cache grows, one of its arrays is there twice.
    fitting = (free_bytes - others) * 2 * spec.layers // (token_bytes * (2 * spec.layers + 1))
    if fitting < spec.context_length:
        fitting = max(0, fitting // CAPACITY_STEP * CAPACITY_STEP)
    least = min(limit, CAPACITY_STEP)
    if fitting < prompt_tokens + least:
        needed = others + round_capacity(prompt_tokens + least, spec.context_length) * token_bytes
        answers = "an answer" if rows == 1 else f"{rows} answers"
        raise TooLargeError(
            f"A prompt of {prompt_tokens:,} tokens and {answers} of {least:,} take about {needed / MB:,.0f} MB; "
            f"{free_bytes / MB:,.0f} MB are left, enough for {fitting:,} tokens of prompt and answer each. Send a "
            "shorter prompt, ask for fewer choices, or raise MemorySize in template.yaml (parameter GenerateMemory)."
        )
    return min(limit, fitting - prompt_tokens)
