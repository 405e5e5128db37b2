"""The examination of a version, in the order in which the gate goes through it."""

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from pilotlight.contracts.manifest import Manifest, Precision, encode
from pilotlight.errors import NotFoundError
from pilotlight.gate import checks, metrics
from pilotlight.gate.metrics import Answers
from pilotlight.gate.probe import EVALUATION, Order, Probe, probe
from pilotlight.gate.verdict import APPROVAL, Check, Limits, Verdict, verdict_path
from pilotlight.registry.alias_updates import now
from pilotlight.registry.approval import objection
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_files import fetched, unlike
from pilotlight.runtime.session import Array

DEFAULT = Limits()


@dataclass(frozen=True)
class Examined:
    """A version with what its probe found, and its answers to the test set by variant."""

    manifest: Manifest
    found: Probe
    outputs: dict[Precision, Array]

    def answers(self, targets: Array, precision: Precision | None = None) -> Answers:
        """The answers of a variant, the served one unless named, beside the truth."""
        return Answers(self.outputs[precision or self.manifest.serve], targets)


@dataclass(frozen=True)
class Gate:
    """Examines versions of a registry's models for functions of that memory."""

    registry: Registry
    memory_mb: int
    limits: Limits = DEFAULT
    approval: bool = False  # whether somebody must have approved what passes

    def examine(self, name: str, version: int, alias: str, *, by: str) -> Verdict:
        """Put every question to the version, keep the verdict beside it, and give it.

        The champion is whatever the alias points to now. Both are asked the champion's test set, so that no version
        brings an easier one along; without a champion, or if it has none, the version's own.
        """
        started = time.monotonic()
        manifest, champion = self.registry.manifest(name, version), self._champion(name, version, alias)
        holder = next((one for one in (champion, manifest) if one and holds(one)), None)
        ours, theirs = self._probed(manifest, champion, holder)
        truth = self._targets(holder) if holder else None
        verdict = Verdict(
            name=name,
            version=version,
            champion=champion.version if champion else None,
            alias=alias,
            passed=False,
            checks=(*self._wanted(name, version), *self._checks(ours, theirs, truth)),
            limits=self.limits,
            memory_mb=self.memory_mb,
            machine=f"{platform.machine()}, {os.cpu_count()} CPUs",
            at=now(),
            by=by,
            seconds=round(time.monotonic() - started, 3),
        )
        verdict = msgspec.structs.replace(verdict, passed=all(check.passed for check in verdict.checks))
        self.registry.store.put(verdict_path(name, version), encode(verdict))
        return verdict

    def _champion(self, name: str, version: int, alias: str) -> Manifest | None:
        """What the version is measured against; nothing when the alias is new or points to it already."""
        try:
            current = self.registry.alias(name, alias).version
        except NotFoundError:
            return None
        return self.registry.manifest(name, current) if current != version else None

    def _targets(self, holder: Manifest) -> Array:
        """The truth of a test set: the array of the npz that no input of the graph is named after."""
        inputs = {spec.name for spec in holder.inputs}
        with fetched(self.registry.store, holder, holder.file(EVALUATION)) as path, np.load(path) as held:
            (name,) = set(held.files) - inputs
            return np.asarray(held[name])

    def _probed(
        self, manifest: Manifest, champion: Manifest | None, holder: Manifest | None
    ) -> tuple[Examined, Examined | None]:
        """Both versions, each opened twice in turn; the shorter times count, for the disk was cold at first."""
        ours = self._once(manifest, holder)
        if champion is None or ours.found.error is not None:
            return ours, None
        theirs = self._once(champion, holder)
        again, they_again = self._once(manifest, holder), self._once(champion, holder)
        return better(ours, again), better(theirs, they_again)

    def _once(self, manifest: Manifest, holder: Manifest | None) -> Examined:
        with TemporaryDirectory(prefix="pilotlight-gate-") as folder:
            brings = holder.version if holder else None
            order = Order(self.registry.store.address, manifest.name, manifest.version, self.memory_mb, brings, folder)
            found = probe(order)
            outputs = {precision: np.load(Path(folder, f"{precision}.npy")) for precision in found.answered}
        return Examined(manifest, found, outputs)

    def _wanted(self, name: str, version: int) -> Iterator[Check]:
        """Whether people want it; no check where nobody has to say so and nobody has said no."""
        why = objection(self.registry, name, version, required=self.approval)
        if why is not None or self.approval:
            yield Check(APPROVAL, why is None, why or "It was approved.")

    def _checks(self, ours: Examined, theirs: Examined | None, truth: Array | None) -> Iterator[Check]:
        """The questions; what does not open is asked nothing more."""
        yield checks.opens(ours.manifest, ours.found)
        if ours.found.error is not None:
            return
        yield checks.files(ours.manifest, self._changed(ours.manifest))
        yield checks.golden(ours.manifest, ours.found)
        yield checks.memory(ours.manifest, ours.found, self.memory_mb)
        if theirs is not None:
            yield checks.signature(ours.manifest, theirs.manifest)
        if truth is not None and ours.outputs:
            yield from self._judged(ours, theirs, truth)
        elif ours.found.finite is not None:
            yield checks.numbers(ours.found, theirs.found if theirs else None)
        if theirs is not None and theirs.found.error is None and ours.found.latency_ms and theirs.found.latency_ms:
            yield checks.latency(ours.found, theirs.found, self.limits)
            yield checks.loading(ours.found, theirs.found, self.limits)

    def _changed(self, manifest: Manifest) -> list[str]:
        """How files differ from what was published: a sentence each, without its full stop."""
        found = ((file.path, unlike(self.registry.store, manifest, file)) for file in manifest.files)
        return [f"{path} {why}" for path, why in found if why]

    def _judged(self, ours: Examined, theirs: Examined | None, truth: Array) -> Iterator[Check]:
        """The questions that need a test set and an answer of the right shape to it."""
        yield checks.finite(ours.outputs[ours.manifest.serve])
        answers = ours.answers(truth)
        name = (theirs or ours).manifest.metric or ours.manifest.metric or "accuracy"
        judged = metrics.find(name)
        if theirs is not None and same_shape(ours, theirs):
            yield checks.quality(judged, name, answers, theirs.answers(truth), self.limits)
            if ours.manifest.labels:
                yield checks.classes(answers, theirs.answers(truth), ours.manifest.labels, self.limits)
        if "fp32" in ours.outputs and ours.manifest.serve != "fp32":
            budget = checks.allowed(ours.manifest, name, self.limits)
            yield checks.quantized(judged, name, answers, ours.answers(truth, "fp32"), budget)


def holds(manifest: Manifest) -> bool:
    """Whether the version brings a test set."""
    return EVALUATION in {file.path for file in manifest.files}


def same_shape(ours: Examined, theirs: Examined) -> bool:
    """Whether both answered the test set, alike."""
    mine, other = ours.outputs.get(ours.manifest.serve), theirs.outputs.get(theirs.manifest.serve)
    return mine is not None and other is not None and mine.shape == other.shape


def better(first: Examined, again: Examined) -> Examined:
    """What was found, with the shorter times of two probes."""
    found = msgspec.structs.replace(
        first.found,
        load_s=min(first.found.load_s, again.found.load_s),
        latency_ms=min(first.found.latency_ms, again.found.latency_ms),
    )
    return Examined(first.manifest, found, first.outputs)
