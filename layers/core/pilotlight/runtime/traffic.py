"""Choose which of an alias's versions answers a request, and run its canary and its shadow in one environment.

No request fails because of a canary: if another version cannot answer, the one that the alias points to does. This
module depends on versions and answers, not on the protocol of a request.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

import numpy as np
from msgspec import Struct

from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument, Canary
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import DeadlineError, ModelRefusedError
from pilotlight.observability.emf import count
from pilotlight.registry import alias_updates
from pilotlight.runtime.canary_monitor import (
    ALPHA,
    Answer,
    CanaryMonitor,
    Failure,
    Finding,
    TrialRequest,
    find_non_finite_output,
)
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.trial_callers import TrialCaller

LOG = logging.getLogger("pilotlight.runtime")
MAX_QUEUED_COPIES = 16  # requests that may wait for the shadow; more are dropped, since it is too slow for its share
OUTPUT_TOLERANCE = 1e-3  # |difference| of two answers that still count as equal, relative and absolute
UNKNOWN_ROWS = 0  # of a request whose time is over
Body = TypeVar("Body")


@dataclass(frozen=True)
class InferenceResult(Generic[Body]):
    """A version's answer: the body for the caller, and outputs and rows, for the comparison of versions."""

    body: Body
    outputs: Mapping[str, Array]
    rows: int = 1


InferenceCall = Callable[[LoadedModel], InferenceResult[Body]]


class RoutedRequest(Struct, Generic[Body], frozen=True):
    """A request of an alias, and how to run it on the version that is chosen for it.

    `open_active` opens the version that the alias points to, and `infer` runs the request on it. `infer_other` runs it
    on another version and leaves time to run it on the alias's version after all; `infer_shadow` runs it on the shadow
    in another thread, where the answer is only compared.
    """

    reference: ModelReference
    get_caller: Callable[[], TrialCaller]
    open_active: Callable[[], LoadedModel]
    infer: InferenceCall[Body]
    infer_other: InferenceCall[Body]
    infer_shadow: InferenceCall[Body]
    get_seconds_left: Callable[[], float] = lambda: inf  # before the caller is answered that the time is over


def draw_slot() -> int:
    """Draw a slot that nobody can foretell.

    The gateway's request id would not do: a client sets it by the header x-amzn-RequestId (Amazon API Gateway, Set up
    access logging). A generator seeded before a snapshot would draw the same in every environment restored from it.
    """
    return int.from_bytes(os.urandom(8), "big") % TOTAL_WEIGHT


class TrafficRouter:
    """Applies the shares, canaries and shadows of all aliases in one environment."""

    def __init__(
        self,
        model_manager: ModelManager,
        clock: Callable[[], float] = time.perf_counter,
        draw: Callable[[], int] = draw_slot,
    ) -> None:
        """Route requests; `clock` counts seconds, and `draw` draws the slots of requests that are not sticky."""
        self._model_manager = model_manager
        self._clock = clock
        self._draw_slot = draw
        self._monitors: dict[
            tuple[str, str], tuple[int, CanaryMonitor]
        ] = {}  # by alias: its document's number, and the monitor
        self._shadow = ShadowRunner(model_manager)

    def route_request(self, request: RoutedRequest[Body]) -> InferenceResult[Body]:
        """Answer a request with the version that is drawn for it.

        A canary's side is drawn for each request. A split keeps an authenticated caller's user at one version.
        """
        reference = request.reference
        document = self._model_manager.get_alias_document(reference)
        if document is None or not (document.shares or document.shadow):
            return request.infer(request.open_active())
        if document.canary is not None:
            slot = self._draw_slot()
            result, is_other = self._infer_in_canary(request, document, document.canary, slot)
        else:
            slot = self._choose_slot(request, document)
            result, is_other = self._infer_in_split(request, document, slot)
        shadow = document.shadow
        if shadow is not None and not is_other and slot >= TOTAL_WEIGHT - shadow.weight:
            self._shadow.enqueue_copy((reference.name, shadow.version), document.version, result, request.infer_shadow)
        return result

    def _choose_slot(self, request: RoutedRequest[Body], document: AliasDocument) -> int:
        key = request.get_caller().get_sticky_key() if document.split_salt else None
        return self._draw_slot() if key is None else alias_updates.hash_to_slot(document.split_salt, key)

    def _infer_in_split(
        self, request: RoutedRequest[Body], document: AliasDocument, slot: int
    ) -> tuple[InferenceResult[Body], bool]:
        """Return the answer, and whether another version than the alias's gave it."""
        version = alias_updates.choose_version(document, slot)
        if version != document.version:
            with suppress(ModelRefusedError):
                model = self._load_beside(request.reference, document, version)
                result = self._infer_other(request, model)[0] if model is not None else None
                if result is not None:
                    return result, True
        return request.infer(request.open_active()), False

    def _infer_in_canary(
        self, request: RoutedRequest[Body], document: AliasDocument, canary: Canary, slot: int
    ) -> tuple[InferenceResult[Body], bool]:
        """Return the answer, and whether the canary gave it; record it either way."""
        monitor = self._get_monitor(request.reference, document, canary)
        if monitor.is_stopped:
            return request.infer(request.open_active()), False
        trial = monitor.start_request(request.get_caller())
        if alias_updates.choose_version(document, slot) == document.version:
            return self._infer_champion(request, canary, monitor.record_champion, trial), False
        model = None
        try:
            model = self._load_beside(request.reference, document, canary.version)
        except ModelRefusedError as exc:
            report_finding(request.reference, canary, monitor.stop("refused", str(exc)))
        monitor.record_opening(is_open=model is not None)
        failure = None
        if model is not None:
            began = self._clock()
            result, failure = self._infer_other(request, model)
            if result is not None:
                answer = build_answer(1000 * (self._clock() - began), result)
                report_finding(request.reference, canary, monitor.record_canary(trial, answer))
                return result, True

        def record_fallback(trial: TrialRequest, answer: Answer) -> Finding | None:
            return monitor.record_fallback(trial, answer, failure)

        return self._infer_champion(request, canary, record_fallback, trial), False

    def _infer_champion(
        self,
        request: RoutedRequest[Body],
        canary: Canary,
        record: Callable[[TrialRequest, Answer], Finding | None],
        trial: TrialRequest,
    ) -> InferenceResult[Body]:
        """Run the request on the version that the alias points to, and record it.

        An answer that is not finite is not recorded: the caller sent what has none. A request whose time is over is
        recorded with the time that it took, since both versions see those.
        """
        model = request.open_active()
        began = self._clock()
        try:
            result = request.infer(model)
        except DeadlineError:
            answer = Answer(1000 * (self._clock() - began), UNKNOWN_ROWS, None, is_failure=True)
            report_finding(request.reference, canary, record(trial, answer))
            raise
        if find_non_finite_output(result.outputs) is None:
            answer = build_answer(1000 * (self._clock() - began), result)
            report_finding(request.reference, canary, record(trial, answer))
        return result

    def _load_beside(self, reference: ModelReference, document: AliasDocument, version: int) -> LoadedModel | None:
        return self._model_manager.load_beside((reference.name, version), (reference.name, document.version))

    def _infer_other(
        self, request: RoutedRequest[Body], model: LoadedModel
    ) -> tuple[InferenceResult[Body] | None, Failure | None]:
        """Run the request on another version than the alias's; return its answer, or why there is none."""
        began, seconds_left = self._clock(), request.get_seconds_left()
        try:
            result = request.infer_other(model)
        except Exception as exc:  # noqa: BLE001 - the alias's version answers, and raises the error if that is ours
            return None, Failure.from_error(exc, 1000 * (self._clock() - began), 1000 * seconds_left / 2)
        reason = find_non_finite_output(result.outputs)
        return (result, None) if reason is None else (None, Failure(reason))

    def _get_monitor(self, reference: ModelReference, document: AliasDocument, canary: Canary) -> CanaryMonitor:
        """Return the canary's monitor; a new document of the alias starts a new one."""
        key = reference.name, reference.alias
        number, monitor = self._monitors.get(key, (0, None))
        if monitor is None or number != document.number:
            monitor = CanaryMonitor(canary, sum(share.weight for share in document.shares) / TOTAL_WEIGHT)
            self._monitors[key] = document.number, monitor
        return monitor


def build_answer(ms: float, result: InferenceResult[Body]) -> Answer:
    """Build what versions are compared by."""
    return Answer(ms, result.rows, next(iter(result.outputs.values()), None))


def report_finding(reference: ModelReference, canary: Canary, finding: Finding | None) -> None:
    """Log once that a canary is stopped here, or suspected; the line of a stop starts functions/promote."""
    if finding is None:
        return
    what = "suspected, on the word of too few callers" if finding.is_suspicion else "stopped"
    LOG.warning("%s: the canary %d is %s: %s", reference, canary.version, what, finding.reason)
    properties = {
        "alias": reference.alias,
        "version": canary.version,
        "until": canary.until,
        "why": finding.reason,
        "kind": finding.kind,
        "e_value": finding.e_value,
        "alpha": ALPHA,
        "callers": finding.callers,
    }
    if finding.is_suspicion:
        count("CanarySuspected", properties, model=reference.name)
    else:
        count("CanaryStopped", properties, model=reference.name)


class ShadowRunner:
    """Runs copies of requests on a shadow version, one after the other in its own thread, and compares the answers.

    Lambda may freeze the thread between requests; then the comparison is made during a later one.
    """

    def __init__(self, model_manager: ModelManager) -> None:
        self._model_manager = model_manager
        self._copies: queue.Queue[Callable[[], None]] = queue.Queue(MAX_QUEUED_COPIES)
        self._thread: threading.Thread | None = None

    def enqueue_copy(
        self, key: tuple[str, int], active_version: int, expected: InferenceResult[Body], infer: InferenceCall[Body]
    ) -> None:
        """Queue a copy of the request for the version, whose answer is compared; drop it if too many wait."""
        self.enqueue(key, lambda: self._compare_outputs(key, active_version, expected.outputs, infer))

    def enqueue(self, key: tuple[str, int], job: Callable[[], None]) -> None:
        """Queue a job of a shadow version; drop it if too many wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_copies, daemon=True, name="pilotlight-shadow")
            self._thread.start()
        try:
            self._copies.put_nowait(job)
        except queue.Full:
            LOG.info("%s:%d is too slow for its share of copies; one is left out", *key)

    def wait_until_idle(self) -> None:
        """Wait until all queued copies have run."""
        self._copies.join()

    def _run_copies(self) -> None:
        while True:
            job = self._copies.get()
            try:
                job()
            except Exception:  # the last resort: no caller waits for this thread
                LOG.exception("A copy for a shadow failed")
            finally:
                del job  # which holds models that may be evicted before the next copy comes
                self._copies.task_done()

    def _compare_outputs(
        self, key: tuple[str, int], active_version: int, expected: Mapping[str, Array], infer: InferenceCall[Body]
    ) -> None:
        try:
            model = self._model_manager.load_beside(key, (key[0], active_version))
        except ModelRefusedError as exc:
            count("ShadowFailed", {"version": key[1], "why": str(exc)}, model=key[0])
            return
        if model is None:
            return
        try:
            outputs = infer(model).outputs
        except Exception as exc:  # noqa: BLE001 - finding such errors is the shadow's purpose
            count("ShadowFailed", {"version": key[1], "why": f"{type(exc).__name__}: {exc}"}, model=key[0])
            return
        differences = describe_differences(expected, outputs)
        count(
            "ShadowDiffered" if differences else "ShadowAgreed",
            {"version": key[1], "differences": differences},
            model=key[0],
        )


def describe_differences(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> dict[str, str]:
    """Describe how the outputs differ, by name; empty if they differ by rounding at most."""
    descriptions: dict[str, str] = {}
    for name, values in expected.items():
        other = actual.get(name)
        if other is None or other.shape != values.shape:
            descriptions[name] = "missing" if other is None else f"shape {list(other.shape)}, not {list(values.shape)}"
        elif values.dtype.kind == "f" and other.dtype.kind == "f":
            if not np.allclose(values, other, rtol=OUTPUT_TOLERANCE, atol=OUTPUT_TOLERANCE, equal_nan=True):
                descriptions[name] = f"up to {float(np.nanmax(np.abs(values.astype(np.float64) - other))):.3g} apart"
        elif not np.array_equal(values, other):
            descriptions[name] = f"{int((values != other).sum())} of {values.size} values differ"
    return descriptions
