"""Which of an alias's versions answers a request, and what becomes of a canary and of a shadow in one environment.

Nobody is failed for an experiment: what another version cannot answer, the alias's own does. It knows versions and
answers, not the protocol that asks.
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
MAX_QUEUED_COPIES = (
    16  # most requests that may wait for the shadow; more are dropped, since it is too slow for its share
)
OUTPUT_TOLERANCE = 1e-3  # |difference| of two answers that counts as none, relative and absolute
Body = TypeVar("Body")


@dataclass(frozen=True)
class InferenceResult(Generic[Body]):
    """A version's answer: what the caller gets, and the outputs in it, by which versions are compared."""

    body: Body
    outputs: Mapping[str, Array]


InferenceCall = Callable[[LoadedModel], InferenceResult[Body]]


class TrafficRouter:
    """The shares, canaries and shadows of all aliases, as one environment carries them out."""

    def __init__(self, model_manager: ModelManager) -> None:
        self._model_manager = model_manager
        self._monitors: dict[
            tuple[str, str], tuple[int, CanaryMonitor]
        ] = {}  # by alias: number of its document, and the trial
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
        """The answer for a `caller`, who meets the same version each time.

        `open_active` opens the version that the alias points to, `infer` puts the request to it. `infer_other` puts it
        to another one, and leaves time to ask the own version all the same; so does `infer_shadow`, from another thread
        and for nobody.
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
        # The champion answered, so the canary is at fault; unless that answer is no number either.
        if failure is not None and monitor is not None and failure != find_non_finite_output(result.outputs):
            self._report_stop(reference, document, monitor.record_failure(failure))
        if document.shadow is not None and bucket >= TOTAL_WEIGHT - document.shadow.weight:
            self._shadow.enqueue_copy((reference.name, document.shadow.version), document.version, result, infer_shadow)
        return result

    def _infer_active(
        self, model: LoadedModel, infer: InferenceCall[Body], monitor: CanaryMonitor | None
    ) -> InferenceResult[Body]:
        """The answer of the version that the alias points to."""
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
        """The answer of the version that the share at this place belongs to, or why there is none."""
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
        except Exception as exc:  # noqa: BLE001 - whatever it is, the alias's own version answers, and says if it is ours
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
        """The trial of this very document, begun anew when another took its place."""
        if document.canary is None:
            return None
        key = reference.name, reference.alias
        number, monitor = self._monitors.get(key, (0, None))
        if monitor is None or number != document.number:
            monitor = CanaryMonitor(document.canary)
            self._monitors[key] = document.number, monitor
        return monitor

    def _report_stop(self, reference: ModelReference, document: AliasDocument, reason: str | None) -> None:
        """Say once that a canary was stopped here: a line of the log that starts functions/promote."""
        if reason is None or document.canary is None:
            return
        LOG.warning("%s: the canary %d is stopped: %s", reference, document.canary.version, reason)
        properties = {"alias": reference.alias, "version": document.canary.version, "why": reason}
        count("CanaryStopped", properties, model=reference.name)


class ShadowRunner:
    """Copies of requests that another version answers for nobody, one after the other in a thread of its own.

    Lambda may freeze the thread between requests; then the comparison is made during a later one.
    """

    def __init__(self, model_manager: ModelManager) -> None:
        self._model_manager = model_manager
        self._copies: queue.Queue[Callable[[], None]] = queue.Queue(MAX_QUEUED_COPIES)
        self._thread: threading.Thread | None = None

    def enqueue_copy(
        self, key: tuple[str, int], active_version: int, expected: InferenceResult[Body], infer: InferenceCall[Body]
    ) -> None:
        """Have the version answer too, and note how its answer differs; nothing is done when too many wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_copies, daemon=True, name="pilotlight-shadow")
            self._thread.start()
        try:
            self._copies.put_nowait(lambda: self._compare_outputs(key, active_version, expected.outputs, infer))
        except queue.Full:
            LOG.info("%s:%d is too slow for its share of copies; one is left out", *key)

    def wait_until_idle(self) -> None:
        """Wait until no copy waits."""
        self._copies.join()

    def _run_copies(self) -> None:
        while True:
            job = self._copies.get()
            try:
                job()
            except Exception:  # the last resort: nobody awaits this thread
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
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is what the shadow is there to find out
            count("ShadowFailed", {"version": key[1], "why": f"{type(exc).__name__}: {exc}"}, model=key[0])
            return
        differences = describe_differences(expected, outputs)
        count(
            "ShadowDiffered" if differences else "ShadowAgreed",
            {"version": key[1], "differences": differences},
            model=key[0],
        )


def get_first_output(outputs: Mapping[str, Array]) -> Array | None:
    """The output by which answers are compared."""
    return next(iter(outputs.values()), None)


def describe_differences(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> dict[str, str]:
    """How the outputs differ, by name; empty when they do not, beyond rounding."""
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
