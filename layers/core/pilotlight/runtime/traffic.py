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

from pilotlight.contracts.manifest import WHOLE, AliasDocument, Reference
from pilotlight.errors import ModelRefusedError
from pilotlight.observability.emf import count
from pilotlight.registry import alias_updates
from pilotlight.runtime.canary_monitor import Trial, unusable
from pilotlight.runtime.model_cache import WarmModel
from pilotlight.runtime.model_manager import Catalog
from pilotlight.runtime.session import Array

LOG = logging.getLogger("pilotlight.runtime")
COPIES = 16  # most requests that may wait for the shadow; more are dropped, since it is too slow for its share
CLOSE = 1e-3  # |difference| of two answers that counts as none, relative and absolute
Body = TypeVar("Body")


@dataclass(frozen=True)
class Answered(Generic[Body]):
    """A version's answer: what the caller gets, and the outputs in it, by which versions are compared."""

    body: Body
    outputs: Mapping[str, Array]


Ask = Callable[[WarmModel], Answered[Body]]


class Experiments:
    """The shares, canaries and shadows of all aliases, as one environment carries them out."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._trials: dict[tuple[str, str], tuple[int, Trial]] = {}  # by alias: number of its document, and the trial
        self._shadow = Shadow(catalog)

    def answer(
        self,
        reference: Reference,
        caller: str,
        own: Callable[[], WarmModel],
        ask: Ask[Body],
        copy: Ask[Body],
        attempt: Ask[Body] | None = None,
    ) -> Answered[Body]:
        """The answer for a `caller`, who meets the same version each time.

        `own` opens the version that the alias points to, `ask` puts the request to it. `attempt` puts it to another
        one, and leaves time to ask the own version all the same; so does `copy`, from another thread and for nobody.
        """
        document = self._catalog.document(reference)
        if document is None or not (document.shares or document.shadow):
            return ask(own())
        place = alias_updates.place(reference.name, reference.alias, caller)
        trial = self._trial(reference, document)
        chosen, failure = self._chosen(reference, document, place, trial, attempt or ask)
        if chosen is not None:
            return chosen
        answered = self._own(own(), ask, trial)
        # The champion answered, so the canary is at fault; unless that answer is no number either.
        if failure is not None and trial is not None and failure != unusable(answered.outputs):
            self._report(reference, document, trial.failed(failure))
        if document.shadow is not None and place >= WHOLE - document.shadow.weight:
            self._shadow.compare((reference.name, document.shadow.version), document.version, answered, copy)
        return answered

    def _own(self, model: WarmModel, ask: Ask[Body], trial: Trial | None) -> Answered[Body]:
        """The answer of the version that the alias points to."""
        began = time.perf_counter()
        answered = ask(model)
        if trial is not None:
            trial.champion(1000 * (time.perf_counter() - began), first(answered.outputs))
        return answered

    def _chosen(
        self, reference: Reference, document: AliasDocument, place: int, trial: Trial | None, ask: Ask[Body]
    ) -> tuple[Answered[Body] | None, str | None]:
        """The answer of the version that the share at this place belongs to, or why there is none."""
        version = alias_updates.choose(document, place)
        if version == document.version or (trial is not None and trial.stopped is not None):
            return None, None
        began = time.perf_counter()
        try:
            model = self._catalog.beside((reference.name, version), (reference.name, document.version))
            if model is None:
                return None, None
            answered = ask(model)
        except ModelRefusedError as exc:
            self._report(reference, document, trial.stop(str(exc)) if trial is not None else None)
            return None, None
        except Exception as exc:  # noqa: BLE001 - whatever it is, the alias's own version answers, and says if it is ours
            return None, f"{type(exc).__name__}: {exc}"
        if (why := unusable(answered.outputs)) is not None:
            return None, why
        if trial is not None:
            milliseconds = 1000 * (time.perf_counter() - began)
            self._report(reference, document, trial.answered(milliseconds, first(answered.outputs)))
        return answered, None

    def _trial(self, reference: Reference, document: AliasDocument) -> Trial | None:
        """The trial of this very document, begun anew when another took its place."""
        if document.canary is None:
            return None
        key = reference.name, reference.alias
        number, trial = self._trials.get(key, (0, None))
        if trial is None or number != document.number:
            trial = Trial(document.canary)
            self._trials[key] = document.number, trial
        return trial

    def _report(self, reference: Reference, document: AliasDocument, why: str | None) -> None:
        """Say once that a canary was stopped here: a line of the log that starts functions/promote."""
        if why is None or document.canary is None:
            return
        LOG.warning("%s: the canary %d is stopped: %s", reference, document.canary.version, why)
        properties = {"alias": reference.alias, "version": document.canary.version, "why": why}
        count("CanaryStopped", properties, model=reference.name)


class Shadow:
    """Copies of requests that another version answers for nobody, one after the other in a thread of its own.

    Lambda may freeze the thread between requests; then the comparison is made during a later one.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._copies: queue.Queue[Callable[[], None]] = queue.Queue(COPIES)
        self._thread: threading.Thread | None = None

    def compare(self, key: tuple[str, int], serving: int, answered: Answered[Body], ask: Ask[Body]) -> None:
        """Have the version answer too, and note how its answer differs; nothing is done when too many wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="pilotlight-shadow")
            self._thread.start()
        try:
            self._copies.put_nowait(lambda: self._compare(key, serving, answered.outputs, ask))
        except queue.Full:
            LOG.info("%s:%d is too slow for its share of copies; one is left out", *key)

    def settle(self) -> None:
        """Wait until no copy waits."""
        self._copies.join()

    def _work(self) -> None:
        while True:
            job = self._copies.get()
            try:
                job()
            except Exception:  # the last resort: nobody awaits this thread
                LOG.exception("A copy for a shadow failed")
            finally:
                self._copies.task_done()

    def _compare(self, key: tuple[str, int], serving: int, expected: Mapping[str, Array], ask: Ask[Body]) -> None:
        try:
            model = self._catalog.beside(key, (key[0], serving))
        except ModelRefusedError as exc:
            count("ShadowFailed", {"version": key[1], "why": str(exc)}, model=key[0])
            return
        if model is None:
            return
        try:
            outputs = ask(model).outputs
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is what the shadow is there to find out
            count("ShadowFailed", {"version": key[1], "why": f"{type(exc).__name__}: {exc}"}, model=key[0])
            return
        found = differences(expected, outputs)
        count("ShadowDiffered" if found else "ShadowAgreed", {"version": key[1], "differences": found}, model=key[0])


def first(outputs: Mapping[str, Array]) -> Array | None:
    """The output by which answers are compared."""
    return next(iter(outputs.values()), None)


def differences(expected: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, str]:
    """How the outputs differ, by name; empty when they do not, beyond rounding."""
    said: dict[str, str] = {}
    for name, values in expected.items():
        other = found.get(name)
        if other is None or other.shape != values.shape:
            said[name] = "missing" if other is None else f"shape {list(other.shape)}, not {list(values.shape)}"
        elif values.dtype.kind == "f" and other.dtype.kind == "f":
            if not np.allclose(values, other, rtol=CLOSE, atol=CLOSE, equal_nan=True):
                said[name] = f"up to {float(np.nanmax(np.abs(values.astype(np.float64) - other))):.3g} apart"
        elif not np.array_equal(values, other):
            said[name] = f"{int((values != other).sum())} of {values.size} values differ"
    return said
