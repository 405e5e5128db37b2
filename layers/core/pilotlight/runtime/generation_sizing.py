"""Estimate what a language model needs of a function, and what its texts cost: by context length, and by memory size.

The numbers are measured when a version is published, with one thread and with several; between and beyond these, speeds
follow the power of the threads that fits them. Without a measurement they are formulas over the bytes of the weights,
which every token reads (calibrated on decoders of 86 to 301 MB with onnxruntime 1.32 on AMD Zen 3).
"""

from collections.abc import Callable, Iterator, Sequence
from math import log
from typing import Literal

from msgspec import Struct

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import GenerationCost, GenerationSpeed, Manifest
from pilotlight.costs import prices
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.load_time import predict_load_seconds
from pilotlight.runtime.session import MB_PER_VCPU
from pilotlight.runtime.sizing import MAX_MEMORY_MB, choose_memory_mb

BASE_BYTES = 150_000_000  # python, numpy, onnxruntime, obstore, and a tokenizer with what llguidance makes of it
SESSION_FACTOR, WORKING_FACTOR = 2.4, 0.6  # of the weights' bytes: mapped and packed; and at the peak of the opening
PROMPT_BYTES_PER_S, ANSWER_BYTES_PER_S = 2.5e10, 9e9  # of weights times tokens, on one vCPU
PROMPT_EXPONENT, ANSWER_EXPONENT = 0.58, 0.32  # of the threads: twice as many are 1.5 and 1.25 times as fast
EXAMPLE_PROMPT_TOKENS = 512
SHORTEST_CONTEXT_TOKENS = 1024
MEMORY_SIZES_MB = (1769, 3538, 5307, 7076, 10_240)
MILLION = 1e6


class ContextNeeds(Struct, frozen=True):
    """What an environment needs for so many tokens of prompt and answer together."""

    tokens: int
    cache_bytes: int
    peak_bytes: int
    memory_mb: int | None  # the smallest safe MemorySize; None if no function is large enough


class MemorySpeed(Struct, frozen=True):
    """How fast a function of so much memory is, and what it costs."""

    memory_mb: int
    prompt_tokens_per_second: float
    answer_tokens_per_second: float
    first_token_seconds: float  # of a prompt of `EXAMPLE_PROMPT_TOKENS`
    usd_per_million_prompt_tokens: float
    usd_per_million_answer_tokens: float


class GenerationSizing(Struct, frozen=True, kw_only=True):
    """The resources that a language model needs."""

    model: str
    version: str
    source: Literal["measured", "formula"]
    model_bytes: int
    cache_bytes_per_token: int
    load_seconds: float  # on Lambda, by formula
    contexts: tuple[ContextNeeds, ...]
    speeds: tuple[MemorySpeed, ...]
    architecture: str
    prices_as_of: str = prices.AS_OF
    warnings: tuple[str, ...] = ()


def build_generation_sizing(
    manifest: Manifest, measured: GenerationCost | None = None, architecture: str = "x86_64"
) -> GenerationSizing:
    """Build the report from a measurement, that of the manifest if no other is given, or else by formula."""
    if manifest.decoder is None:
        raise InvalidInputError(f"{manifest.name}:{manifest.version} is a model for {manifest.task}, without tokens.")
    cost, size = measured or manifest.generation_cost, manifest.served_bytes
    needs = tuple(list_context_needs(manifest.decoder, size, cost or estimate_cost(size)))
    smallest = next((each.memory_mb for each in needs if each.memory_mb is not None), None)
    curve = SpeedCurve((cost or estimate_cost(size)).speeds)
    sizes = sorted({smallest, *(each for each in MEMORY_SIZES_MB if each > smallest)}) if smallest else ()
    return GenerationSizing(
        model=manifest.name,
        version=str(manifest.version),
        source="measured" if cost else "formula",
        model_bytes=size,
        cache_bytes_per_token=manifest.decoder.cache_bytes_per_token,
        load_seconds=round(predict_load_seconds(size), 3),
        contexts=needs,
        speeds=tuple(build_memory_speed(curve, memory_mb, architecture) for memory_mb in sizes),
        architecture=architecture,
        warnings=tuple(list_warnings(needs, manifest.decoder)),
    )


def estimate_cost(size: int) -> GenerationCost:
    """Estimate by the bytes of the weights what a measurement would find."""
    speed = GenerationSpeed(1, PROMPT_BYTES_PER_S / max(1, size), ANSWER_BYTES_PER_S / max(1, size))
    return GenerationCost(
        prompt_tokens=EXAMPLE_PROMPT_TOKENS,
        first_token_ms=1000 * EXAMPLE_PROMPT_TOKENS / speed.prompt,
        session_bytes=round(SESSION_FACTOR * size),
        working_bytes=round(WORKING_FACTOR * size),
        speeds=(speed,),
    )


def list_context_needs(decoder: DecoderSpec, size: int, cost: GenerationCost) -> Iterator[ContextNeeds]:
    """List what contexts need, from a short one in steps of twice the tokens to the longest."""
    tokens = min(SHORTEST_CONTEXT_TOKENS, decoder.context_length)
    while True:
        cache_bytes = decoder.cache_bytes_per_token * tokens
        peak_bytes = BASE_BYTES + cost.session_bytes + cost.working_bytes + cache_bytes
        yield ContextNeeds(tokens, cache_bytes, peak_bytes, choose_memory_mb(peak_bytes, size))
        if tokens == decoder.context_length:
            return
        tokens = min(2 * tokens, decoder.context_length)


class SpeedCurve:
    """Tokens per second by vCPUs: a power of them, and in proportion below one."""

    def __init__(self, speeds: Sequence[GenerationSpeed]) -> None:
        self._first = speeds[0]
        self._prompt_exponent = fit_exponent(speeds, lambda speed: speed.prompt, PROMPT_EXPONENT)
        self._answer_exponent = fit_exponent(speeds, lambda speed: speed.answer, ANSWER_EXPONENT)

    def estimate(self, memory_mb: int) -> tuple[float, float]:
        """Estimate the tokens per second of prompts and of answers in a function of so much memory."""
        vcpus = memory_mb / MB_PER_VCPU
        share, ratio = min(1.0, vcpus), max(1.0, vcpus) / self._first.threads
        return (
            self._first.prompt * share * ratio**self._prompt_exponent,
            self._first.answer * share * ratio**self._answer_exponent,
        )


def fit_exponent(
    speeds: Sequence[GenerationSpeed], get_speed: Callable[[GenerationSpeed], float], default: float
) -> float:
    """Fit the power of the threads to the first and the last measurement.

    More threads are never slower, and never more than so many times as fast: such numbers were measured while others
    used the machine, and the default counts in their place.
    """
    first, last = speeds[0], speeds[-1]
    if last.threads <= first.threads:
        return default
    exponent = log(get_speed(last) / get_speed(first)) / log(last.threads / first.threads)
    return exponent if 0 < exponent <= 1 else default


def build_memory_speed(curve: SpeedCurve, memory_mb: int, architecture: str) -> MemorySpeed:
    """Estimate speeds and prices for a memory size; an environment answers one request at a time."""
    prompt, answer = curve.estimate(memory_mb)
    usd_per_second = prices.compute_gb_seconds(memory_mb, prices.MS_PER_S) * prices.LAMBDA_GB_SECOND[architecture]
    return MemorySpeed(
        memory_mb,
        round(prompt, 1),
        round(answer, 1),
        round(EXAMPLE_PROMPT_TOKENS / prompt, 3),
        round(MILLION * usd_per_second / prompt, 3),
        round(MILLION * usd_per_second / answer, 3),
    )


def list_warnings(needs: Sequence[ContextNeeds], decoder: DecoderSpec) -> Iterator[str]:
    """List the reasons why the version cannot be served, or not with its whole context."""
    fitting = [each.tokens for each in needs if each.memory_mb is not None]
    if not fitting:
        yield f"No function is large enough: Lambda ends at {MAX_MEMORY_MB:,} MB."
    elif fitting[-1] < decoder.context_length:
        yield (
            f"No function holds its context of {decoder.context_length:,} tokens; {fitting[-1]:,} fit into "
            f"{MAX_MEMORY_MB:,} MB."
        )
