"""One generation on an open language model, as every protocol shares it: choose a version, generate, and measure.

An endpoint opens the model of a request, builds its prompt with that model's template and tokenizer, and iterates over
`OpenedLanguageModel.generate`, which records by itself how the generation went: when it ends, fails or is closed.
"""

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.request_context import RequestContext
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError
from pilotlight.generation.request import GenerationRequest, never_cancelled
from pilotlight.runtime.generation_trials import GenerationSide, GenerationTrials
from pilotlight.runtime.measured_generation import GenerationOutcome, MeasuredGeneration
from pilotlight.runtime.model_cache import LoadedModel, VersionKey
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.traffic import draw_slot
from pilotlight.runtime.trial_callers import TrialCaller

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

Answer = TypeVar("Answer")
NOBODY = TrialCaller()


class GenerationService:
    """Opens language models for requests, and records how their generations went, by version."""

    def __init__(
        self,
        model_manager: ModelManager,
        statistics: ModelStatistics,
        draw: Callable[[], int] = draw_slot,
    ) -> None:
        """Create a service; `draw` draws the slots of requests among an alias's versions."""
        self.model_manager = model_manager
        self.statistics = statistics
        self._trials = GenerationTrials(model_manager, draw)
        # The engine whose keys and values are kept; the model may be evicted to make room for another.
        self._latest: weakref.ref[LanguageModel] | None = None

    def open_language_model(
        self, reference: ModelReference, context: RequestContext, caller: TrialCaller = NOBODY
    ) -> "OpenedLanguageModel":
        """Open the version that answers a request of the reference, and note it in the context.

        A canary, a split or a shadow of the alias is respected. Raises `InvalidInputError` if the model generates no
        text, `LoadingError` while it is being opened, and what `ModelManager.get_model` raises.
        """
        waits = self.model_manager.wait_count
        side = self._trials.choose_side(reference, caller, context.deadline)
        check_generates_text(side.model.manifest)
        self._release_idle_cache(side.model)
        context.model, context.version = side.model.key
        context.cold = self.model_manager.wait_count != waits
        context.mark_stage("load")
        return OpenedLanguageModel(self, side, context)

    def answer(
        self,
        reference: ModelReference,
        context: RequestContext,
        caller: TrialCaller,
        answer: Callable[["OpenedLanguageModel"], Answer],
    ) -> Answer:
        """Answer a request with the version that is chosen for it, and with the alias's own if a trial's version fails.

        `answer` builds the whole answer, or a stream's answer up to its first event: what fails later is the caller's
        to see. It may be called twice.
        """
        answered = self._answer_or_fall_back(reference, context, caller, answer)
        context.mark_stage("infer")
        return answered

    def _answer_or_fall_back(
        self,
        reference: ModelReference,
        context: RequestContext,
        caller: TrialCaller,
        answer: Callable[["OpenedLanguageModel"], Answer],
    ) -> Answer:
        opened = self.open_language_model(reference, context, caller)
        if not opened.is_trial:
            return answer(opened)
        opened.side.has_fallback = True
        try:
            answered = answer(opened)
        except Exception as exc:  # noqa: BLE001 - the alias's version answers, and raises the error if that is ours
            self._trials.record_failure(opened.side, exc)
        else:
            opened.side.has_fallback = False
            return answered
        own = OpenedLanguageModel(self, self._trials.open_own_side(opened.side, context.deadline), context)
        self._release_idle_cache(own.model)
        context.model, context.version = own.model.key
        return answer(own)

    def _release_idle_cache(self, model: LoadedModel) -> None:
        """Give back the keys and values of the model before, if another one answers now.

        They share one budget: a conversation goes on with the same model, and an environment that changes between
        models must not keep those of all. Those of the model in use stay for the next turn, within that budget.
        """
        engine = get_language_model(model)
        latest = None if self._latest is None else self._latest()
        if latest is not None and latest is not engine:
            latest.release_cache()
        self._latest = weakref.ref(engine)

    def record(self, side: GenerationSide, request: GenerationRequest, outcome: GenerationOutcome) -> None:
        """Record how a generation went: in the version's statistics, in the alias's trial, and for its shadow."""
        self.statistics.record_generation(side.model.key, outcome)
        self._trials.record_outcome(side, request, outcome)

    def wait_for_shadow(self) -> None:
        """Wait until all copies of requests for shadows have run."""
        self._trials.shadow.wait_until_idle()


class OpenedLanguageModel:
    """An open version that answers one request."""

    def __init__(self, service: GenerationService, side: GenerationSide, context: RequestContext) -> None:
        self._service = service
        self.side = side
        self._context = context

    @property
    def model(self) -> LoadedModel:
        """The open version."""
        return self.side.model

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        return self.side.model.manifest

    @property
    def key(self) -> VersionKey:
        """Its name and version."""
        return self.side.model.key

    @property
    def language_model(self) -> "LanguageModel":
        """Its tokenizer, template and engine; run requests by `generate`, which records them."""
        return get_language_model(self.side.model)

    @property
    def is_trial(self) -> bool:
        """Whether it is another version than the one that the alias points to."""
        return self.side.is_other

    def generate(
        self, request: GenerationRequest, is_cancelled: Callable[[], bool] = never_cancelled
    ) -> MeasuredGeneration:
        """Generate: iterate over the events, then read `usage`; `close` it if the client leaves before its end."""

        def record(outcome: GenerationOutcome) -> None:
            self._context.has_failed = outcome.is_failure
            self._service.record(self.side, request, outcome)

        return MeasuredGeneration(lambda: self.language_model.generate(request, is_cancelled), record)


def check_generates_text(manifest: Manifest) -> None:
    """Raise `InvalidInputError` if the version is no language model, with the route that answers for it."""
    if manifest.decoder is None:
        raise InvalidInputError(
            f"{manifest.name}:{manifest.version} is a model for {manifest.task}, and generates no text; send it to "
            f"/v2/models/{manifest.name}/infer, or name a model from /v1/models."
        )


def get_language_model(model: LoadedModel) -> "LanguageModel":
    """Return the engine of an open version; `InvalidInputError` if it generates no text."""
    if model.language_model is None:
        check_generates_text(model.manifest)
        raise InvalidInputError(f"{model.manifest.name}:{model.manifest.version} was opened without its engine.")
    return model.language_model
