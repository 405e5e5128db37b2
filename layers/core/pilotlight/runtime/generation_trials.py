"""Canaries, splits and shadows of language models: choose the version of a request, and record how it went.

What `runtime.traffic` does around one inference happens here in two steps, since a stream ends long after its version
was chosen. Versions are compared by the time to the first text for as many tokens of prompt, by the time for each
further token, by the share of answers that reach their limit, and by failures.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument, Canary
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import ModelRefusedError
from pilotlight.generation.request import FinishReason, GenerationRequest
from pilotlight.registry import alias_updates
from pilotlight.runtime.canary_monitor import (
    GENERATION_KINDS,
    Answer,
    CanaryMonitor,
    Failure,
    Finding,
    TrialRequest,
)
from pilotlight.runtime.generation_shadow import GenerationShadow
from pilotlight.runtime.measured_generation import MS_PER_S, GenerationOutcome
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.traffic import draw_slot, report_finding
from pilotlight.runtime.trial_callers import TrialCaller

LOG = logging.getLogger("pilotlight.runtime")
COMPARED_REASONS = (FinishReason.STOP, FinishReason.LENGTH)


@dataclass(frozen=True)
class Trial:
    """A canary in this environment, and how one request counts in it."""

    canary: Canary
    monitor: CanaryMonitor
    request: TrialRequest
    drawn_for_canary: bool
    failure: Failure | None = None  # of the canary, in whose place the alias's version answers


@dataclass
class GenerationSide:
    """The version that answers a request, and the trial that its outcome counts in."""

    reference: ModelReference
    model: LoadedModel
    is_other: bool = False  # than the version that the alias points to
    trial: Trial | None = None
    has_fallback: bool = False  # whether the alias's version answers if this one fails now
    shadow: int | None = None  # the version that gets a copy of the request


class GenerationTrials:
    """Chooses versions of language models by the traffic of their aliases, and judges canaries in one environment."""

    def __init__(self, model_manager: ModelManager, draw: Callable[[], int] = draw_slot) -> None:
        """Choose by `draw`, which draws the slots of requests that are not sticky."""
        self._model_manager = model_manager
        self._draw_slot = draw
        self.shadow = GenerationShadow(model_manager)
        self._monitors: dict[tuple[str, str], tuple[int, CanaryMonitor]] = {}  # by alias, with its document's number

    def choose_side(self, reference: ModelReference, caller: TrialCaller, deadline: float) -> GenerationSide:
        """Open the version that is drawn for a request; the alias's own if a trial's version is not open."""
        document = self._model_manager.get_alias_document(reference)
        if document is None or not (document.shares or document.shadow):
            return GenerationSide(reference, self._model_manager.get_model(reference, deadline))
        if document.canary is not None:
            slot = self._draw_slot()
            side = self._choose_in_canary(reference, document, document.canary, caller, slot, deadline)
        else:
            key = caller.get_sticky_key() if document.split_salt else None
            slot = self._draw_slot() if key is None else alias_updates.hash_to_slot(document.split_salt, key)
            side = self._choose_in_split(reference, document, slot, deadline)
        shadow = document.shadow
        if shadow is not None and not side.is_other and slot >= TOTAL_WEIGHT - shadow.weight:
            side.shadow = shadow.version
        return side

    def open_own_side(self, failed: GenerationSide, deadline: float) -> GenerationSide:
        """Open the version that the alias points to, for a request that a trial's version has failed."""
        model = self._model_manager.get_model(failed.reference, deadline)
        return GenerationSide(failed.reference, model, trial=failed.trial)

    def record_failure(self, side: GenerationSide, error: Exception) -> None:
        """Note that a trial's version failed where the alias's version answers; it is judged by that answer."""
        LOG.info("%s:%d failed, and the alias's version answers: %s", *side.model.key, error)
        if side.trial is not None:
            side.trial = replace(side.trial, failure=Failure.from_error(error, 0.0, inf))

    def record_outcome(self, side: GenerationSide, request: GenerationRequest, outcome: GenerationOutcome) -> None:
        """Record how a request of a canary's trial went, and copy it to the shadow; a cancelled one tells nothing."""
        if side.shadow is not None and outcome.error is None and not outcome.is_cancelled:
            self.shadow.enqueue_copy(side.shadow, side.model, request, outcome)
        trial = side.trial
        if trial is None or outcome.is_cancelled or (side.has_fallback and outcome.error is not None):
            return
        report_finding(side.reference, trial.canary, judge_outcome(trial, outcome, is_canary=side.is_other))

    def _choose_in_canary(
        self,
        reference: ModelReference,
        document: AliasDocument,
        canary: Canary,
        caller: TrialCaller,
        slot: int,
        deadline: float,
    ) -> GenerationSide:
        """Open the canary or the version that the alias points to, as drawn."""
        monitor = self._get_monitor(reference, document, canary)
        if monitor.is_stopped:
            return GenerationSide(reference, self._model_manager.get_model(reference, deadline))
        request = monitor.start_request(caller)
        if alias_updates.choose_version(document, slot) == document.version:
            model = self._model_manager.get_model(reference, deadline)
            return GenerationSide(reference, model, trial=Trial(canary, monitor, request, drawn_for_canary=False))
        trial = Trial(canary, monitor, request, drawn_for_canary=True)
        try:
            other = self._model_manager.load_beside(
                (reference.name, canary.version), (reference.name, document.version)
            )
        except ModelRefusedError as exc:
            report_finding(reference, canary, monitor.stop("refused", str(exc)))
            other = None
        monitor.record_opening(is_open=other is not None)
        if other is not None:
            return GenerationSide(reference, other, is_other=True, trial=trial)
        return GenerationSide(reference, self._model_manager.get_model(reference, deadline), trial=trial)

    def _choose_in_split(
        self, reference: ModelReference, document: AliasDocument, slot: int, deadline: float
    ) -> GenerationSide:
        """Open the version at the slot of a split, or the alias's own while the other is not open."""
        model = self._load_beside(reference, document, alias_updates.choose_version(document, slot))
        if model is not None:
            return GenerationSide(reference, model, is_other=True)
        return GenerationSide(reference, self._model_manager.get_model(reference, deadline))

    def _load_beside(self, reference: ModelReference, document: AliasDocument, version: int) -> LoadedModel | None:
        """Return another version than the alias's if it is open; one that is refused counts as not open."""
        if version == document.version:
            return None
        with suppress(ModelRefusedError):
            return self._model_manager.load_beside((reference.name, version), (reference.name, document.version))
        return None

    def _get_monitor(self, reference: ModelReference, document: AliasDocument, canary: Canary) -> CanaryMonitor:
        """Return the canary's monitor; a new document of the alias starts a new one."""
        key = reference.name, reference.alias
        number, monitor = self._monitors.get(key, (0, None))
        if monitor is None or number != document.number:
            share = sum(each.weight for each in document.shares) / TOTAL_WEIGHT
            monitor = CanaryMonitor(canary, share, kinds=GENERATION_KINDS)
            self._monitors[key] = document.number, monitor
        return monitor


def judge_outcome(trial: Trial, outcome: GenerationOutcome, *, is_canary: bool) -> Finding | None:
    """Record an outcome in the canary's monitor; return what follows."""
    monitor = trial.monitor
    if is_canary:
        if outcome.error is None:
            return monitor.record_canary(trial.request, build_answer(outcome))
        return monitor.record_failure(trial.request, describe_error(outcome.error)) if outcome.is_failure else None
    if outcome.error is not None:  # the alias's own version fails on it too, or its caller is wrong
        return None
    if trial.drawn_for_canary:
        return monitor.record_fallback(trial.request, build_answer(outcome), trial.failure)
    return monitor.record_champion(trial.request, build_answer(outcome))


def build_answer(outcome: GenerationOutcome) -> Answer:
    """Build what versions are compared by: times, the tokens of the prompt that were computed, and finish reasons."""
    first, speed = outcome.first_token_seconds, outcome.tokens_per_second
    return Answer(
        MS_PER_S * (outcome.seconds if first is None else first),
        max(1, outcome.usage.prompt_tokens - outcome.usage.cached_tokens),
        np.array([[float(reason is one) for one in COMPARED_REASONS] for reason in outcome.finish_reasons], np.float32),
        token_ms=None if speed is None else MS_PER_S / speed,
    )


def describe_error(error: Exception) -> str:
    """Describe an error that ended a generation."""
    return f"{type(error).__name__}: {error}"
