"""Run copies of requests for text on a shadow version, and count how its answers compare.

A copy is the beginning of an answer, written greedily behind the same prompt, so that it ends soon: it takes CPU time
from the requests after it. Its text is compared where the answer was greedy too; its times and its failures always. It
needs the tokens of the active version, so a shadow with another tokenizer is counted as failed.
"""

from msgspec.structs import replace

from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import ModelRefusedError
from pilotlight.generation.request import GenerationRequest, SamplingOptions
from pilotlight.observability.emf import count
from pilotlight.runtime.measured_generation import (
    COMPARED_TOKENS,
    MS_PER_S,
    GenerationOutcome,
    MeasuredGeneration,
)
from pilotlight.runtime.model_cache import LoadedModel, VersionKey
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.traffic import ShadowRunner

GREEDY = SamplingOptions(temperature=0.0)


class GenerationShadow:
    """The shadows of language models in one environment, run one after the other in a thread of their own."""

    def __init__(self, model_manager: ModelManager) -> None:
        self._model_manager = model_manager
        self._runner = ShadowRunner(model_manager)

    def enqueue_copy(
        self, version: int, active: LoadedModel, request: GenerationRequest, outcome: GenerationOutcome
    ) -> None:
        """Queue a copy of an answered request; drop it if too many wait."""
        key = active.key[0], version
        self._runner.enqueue(key, lambda: self._run_copy(key, active, request, outcome))

    def wait_until_idle(self) -> None:
        """Wait until all queued copies have run."""
        self._runner.wait_until_idle()

    def _run_copy(
        self, key: VersionKey, active: LoadedModel, request: GenerationRequest, expected: GenerationOutcome
    ) -> None:
        """Write the beginning of the answer, unless the shadow is still being opened; count what came of it."""
        try:
            model = self._model_manager.load_beside(key, active.key)
            outcome = None if model is None else generate_copy(model, active.manifest, request)
        except Exception as exc:  # noqa: BLE001 - finding such errors is the shadow's purpose
            count("ShadowFailed", {"version": key[1], "why": f"{type(exc).__name__}: {exc}"}, model=key[0])
            return
        if outcome is not None:
            is_greedy = request.sampling == GREEDY and request.constraint is None
            count_comparison(key, expected, outcome, is_greedy=is_greedy)


def generate_copy(model: LoadedModel, active: Manifest, request: GenerationRequest) -> GenerationOutcome:
    """Write the beginning of an answer on the shadow, and give back its keys and values."""
    language_model = model.language_model
    if language_model is None or not model.manifest.has_same_tokenizer(active):
        raise ModelRefusedError("it has other tokens than the version that answers, so no copy can be compared")
    copy = replace(
        request, max_tokens=min(request.max_tokens, COMPARED_TOKENS), min_tokens=0, sampling=GREEDY, choices=1,
        constraint=None, top_logprobs=None, prompt_lookup=False, deadline=float("inf"),
    )  # fmt: skip
    outcomes: list[GenerationOutcome] = []
    with MeasuredGeneration(lambda: language_model.generate(copy), outcomes.append) as generation:
        for _ in generation:
            pass
    language_model.release_cache()
    return outcomes[0]


def count_comparison(
    key: VersionKey, expected: GenerationOutcome, actual: GenerationOutcome, *, is_greedy: bool
) -> None:
    """Count an answer of the shadow, with its times beside those of the version that answered."""
    same = actual.beginning == expected.beginning[: len(actual.beginning)]
    name = "ShadowAnswered" if not is_greedy else "ShadowAgreed" if same else "ShadowDiffered"
    properties = {
        "version": key[1],
        "first_token_ms": to_ms(actual.first_token_seconds),
        "active_first_token_ms": to_ms(expected.first_token_seconds),
        "tokens_per_second": actual.tokens_per_second,
        "active_tokens_per_second": expected.tokens_per_second,
        "finish_reasons": list(actual.finish_reasons),
        "active_finish_reasons": list(expected.finish_reasons),
    }
    count(name, properties, model=key[0])


def to_ms(seconds: float | None) -> float | None:
    """Convert seconds to ms, to the microsecond."""
    return None if seconds is None else round(MS_PER_S * seconds, 3)
