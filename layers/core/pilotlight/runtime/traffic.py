"""Choose which of an alias's versions answers a request, and run its canary and its shadow in one environment.

No request fails because of a canary: if another version cannot answer, the one that the alias points to does. This
module depends on versions and answers, not on the protocol of a request.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import ModelRefusedError
from pilotlight.observability.emf import count
from pilotlight.registry import alias_updates
from pilotlight.runtime.canary_monitor import CanaryMonitor, find_non_finite_output
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_manager import ModelManager

LOG = logging.getLogger("pilotlight.runtime")
MAX_QUEUED_COPIES = 16  # requests that may wait for the shadow; more are dropped, since it is too slow for its share
OUTPUT_TOLERANCE = 1e-3  # |difference| of two answers that still count as equal, relative and absolute
Body = TypeVar("Body")


@dataclass(frozen=True)
class InferenceResult(Generic[Body]):
    """A version's answer: the body for the caller, and its outputs, for the comparison of versions."""

    body: Body
    outputs: Mapping[str, Array]


InferenceCall = Callable[[LoadedModel], InferenceResult[Body]]


class TrafficRouter:
    """Applies the shares, canaries and shadows of all aliases in one environment."""

    def __init__(self, model_manager: ModelManager) -> None:
        self._model_manager = model_manager
        self._monitors: dict[
            tuple[str, str], tuple[int, CanaryMonitor]
        ] = {}  # by alias: its document's number, and the monitor
        self._shadow = ShadowRunner(model_manager)

    def route_request(
        self,
        reference: ModelReference,
        caller: str,
        open_active: Callable[[], LoadedModel],
        infer: InferenceCall[Body],
        infer_shadow: InferenceCall[Body],
        infer_other: InferenceCall[Body] | None = None,
    ) -> InferenceResult[Body]:
        """Answer a request of `caller`, whose requests all go to the same version.

        `open_active` opens the version that the alias points to, and `infer` runs the request on it. `infer_other` runs
        it on another version and leaves time to run it on the alias's version after all; `infer_shadow` runs it on the
        shadow in another thread, where the answer is only compared.
        """
        document = self._model_manager.get_alias_document(reference)
        if document is None or not (document.shares or document.shadow):
            return infer(open_active())
        bucket = alias_updates.hash_to_slot(reference.name, reference.alias, caller)
        monitor = self._get_monitor(reference, document)
        other_result, failure = self._infer_by_share(reference, document, bucket, monitor, infer_other or infer)
        if other_result is not None:
            return other_result
        result = self._infer_active(open_active(), infer, monitor)
        # The champion answered, so the fault is the canary's, unless the champion's answer is not finite either.
        if failure is not None and monitor is not None and failure != find_non_finite_output(result.outputs):
            self._report_stop(reference, document, monitor.record_failure(failure))
        if document.shadow is not None and bucket >= TOTAL_WEIGHT - document.shadow.weight:
            self._shadow.enqueue_copy((reference.name, document.shadow.version), document.version, result, infer_shadow)
        return result

    def _infer_active(
        self, model: LoadedModel, infer: InferenceCall[Body], monitor: CanaryMonitor | None
    ) -> InferenceResult[Body]:
        """Run the request on the version that the alias points to."""
        started_at = time.perf_counter()
        result = infer(model)
        if monitor is not None:
            monitor.record_champion(1000 * (time.perf_counter() - started_at), get_first_output(result.outputs))
        return result

    def _infer_by_share(
        self,
        reference: ModelReference,
        document: AliasDocument,
        bucket: int,
        monitor: CanaryMonitor | None,
        infer: InferenceCall[Body],
    ) -> tuple[InferenceResult[Body] | None, str | None]:
        """Run the request on the version whose share contains `bucket`; return its answer, or why it failed.

        Both are None if the request belongs to the alias's version, or the other one is stopped, not open or refused.
        """
        version = alias_updates.choose_version(document, bucket)
        if version == document.version or (monitor is not None and monitor.stop_reason is not None):
            return None, None
        started_at = time.perf_counter()
        try:
            model = self._model_manager.load_beside((reference.name, version), (reference.name, document.version))
            if model is None:
                return None, None
            result = infer(model)
        except ModelRefusedError as exc:
            self._report_stop(reference, document, monitor.stop(str(exc)) if monitor is not None else None)
            return None, None
        except Exception as exc:  # noqa: BLE001 - the alias's version answers, and raises the error if that is ours
            return None, f"{type(exc).__name__}: {exc}"
        if (reason := find_non_finite_output(result.outputs)) is not None:
            return None, reason
        if monitor is not None:
            milliseconds = 1000 * (time.perf_counter() - started_at)
            self._report_stop(
                reference, document, monitor.record_success(milliseconds, get_first_output(result.outputs))
            )
        return result, None

    def _get_monitor(self, reference: ModelReference, document: AliasDocument) -> CanaryMonitor | None:
        """Return the canary's monitor; a new document of the alias starts a new one."""
        if document.canary is None:
            return None
        key = reference.name, reference.alias
        number, monitor = self._monitors.get(key, (0, None))
        if monitor is None or number != document.number:
            monitor = CanaryMonitor(document.canary)
            self._monitors[key] = document.number, monitor
        return monitor

    def _report_stop(self, reference: ModelReference, document: AliasDocument, reason: str | None) -> None:
        """Log once that a canary was stopped here; the log line starts functions/promote."""
        if reason is None or document.canary is None:
            return
        LOG.warning("%s: the canary %d is stopped: %s", reference, document.canary.version, reason)
        properties = {"alias": reference.alias, "version": document.canary.version, "why": reason}
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
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_copies, daemon=True, name="pilotlight-shadow")
            self._thread.start()
        try:
            self._copies.put_nowait(lambda: self._compare_outputs(key, active_version, expected.outputs, infer))
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


def get_first_output(outputs: Mapping[str, Array]) -> Array | None:
    """Return the output by which answers are compared; None if there is none."""
    return next(iter(outputs.values()), None)


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
