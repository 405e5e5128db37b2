"""What the gate's probe asks of a language model: its golden prompts, finite scores, and how long texts take."""

import time
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from pilotlight.gate.probe_result import TextTimes
from pilotlight.generation.prompt_encoding import encode_prompt
from pilotlight.generation.request import GenerationRequest, SamplingOptions, TextDelta
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.golden_prompts import BEGINNINGS

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

PROMPT_TOKENS, ANSWER_TOKENS = 64, 16  # of the text whose times are measured
ROUNDS = 5  # of which the median counts
GREEDY = SamplingOptions(temperature=0.0)


def list_probe_prompts(language_model: "LanguageModel", recorded: GoldenDocument | str | None) -> list[tuple[int, ...]]:
    """List prompts in tokens that suit the model: the golden ones, else beginnings of texts."""
    if isinstance(recorded, GoldenDocument) and recorded.prompts:
        return [prompt.tokens for prompt in recorded.prompts]
    return [encode_prompt(language_model, text) for text in BEGINNINGS]


def has_finite_scores(language_model: "LanguageModel", prompts: Sequence[tuple[int, ...]]) -> bool:
    """Return whether each token of the prompts has a probability, which NaN or infinity among the logits leave none."""
    return all(np.isfinite(language_model.score(prompt)).all() for prompt in prompts if len(prompt) > 1)


def measure_text_times(language_model: "LanguageModel", prompts: Sequence[tuple[int, ...]]) -> TextTimes | None:
    """Measure a text whose prompt repeats the given ones; None if the context is too short for one."""
    limit = min(PROMPT_TOKENS, language_model.spec.context_length - ANSWER_TOKENS)
    if limit < 1:
        return None
    joined = [token for prompt in prompts for token in prompt]
    prompt = tuple(joined * -(-limit // len(joined)))[:limit]
    times = [time_text(language_model, prompt) for _ in range(ROUNDS)]
    return TextTimes(median(first for first, _ in times), median(token for _, token in times))


def time_text(language_model: "LanguageModel", prompt: tuple[int, ...]) -> tuple[float, float]:
    """Return the ms to the first event, and for each token behind it."""
    language_model.release_cache()  # else the prompt would be known
    request = GenerationRequest(prompt=prompt, max_tokens=ANSWER_TOKENS, sampling=GREEDY, ignore_end=True)
    began = time.perf_counter()
    generation, counts, first_at = language_model.generate(request), list[int](), None
    try:
        for event in generation:
            first_at = first_at or time.perf_counter()
            counts.append(len(event.tokens) if isinstance(event, TextDelta) else 0)
    finally:
        generation.close()
    ended = time.perf_counter()
    first_at = first_at or ended
    return 1000 * (first_at - began), 1000 * (ended - first_at) / max(1, sum(counts[1:]))
