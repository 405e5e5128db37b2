"""Evaluate a version: run the gate's checks in order and store the verdict."""

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from pilotlight.contracts.codec import format_utc_now
from pilotlight.contracts.manifest import Manifest, Precision
from pilotlight.contracts.metric import NUMBER_METRICS
from pilotlight.errors import BrokenDocumentError, NotFoundError
from pilotlight.gate import checks, metrics
from pilotlight.gate.answers import AnswerStatistics, EvaluationOutputs, load_statistics
from pilotlight.gate.probe import EVALUATION_FILE, ProbeRequest, run_probe
from pilotlight.gate.probe_result import ProbeResult, TextTimes
from pilotlight.gate.verdict import APPROVAL_CHECK, GateCheck, GateLimits, Verdict, open_verdict
from pilotlight.registry.approval import blocking_reason
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.example_batches import AXIS_SUFFIX
from pilotlight.runtime.model_files import find_mismatch, open_model_files

DEFAULT_LIMITS = GateLimits()


@dataclass(frozen=True)
class ProbedVersion:
    """A version, the result of its probe, and what is kept of its answers to the test set, by variant."""

    manifest: Manifest
    probe_result: ProbeResult
    outputs: dict[Precision, AnswerStatistics]

    def pair_with_targets(self, targets: Array, precision: Precision | None = None) -> EvaluationOutputs:
        """Pair a variant's answers with the targets; the default is the served variant."""
        return EvaluationOutputs(np.zeros(0), targets, self.outputs[precision or self.manifest.serve])

    def is_judged_by(self, metric: str) -> bool:
        """Whether its answers to the test set are what the metric is of: classes, or a number."""
        kept = self.outputs[self.manifest.serve]
        return bool((kept.numbers if metric in NUMBER_METRICS else kept.predicted).size)

    def describe_answers(self) -> str:
        """Describe the shape of one answer to the test set; empty if there is none."""
        kept = self.outputs.get(self.manifest.serve)
        return "" if kept is None else str(kept.shape.tolist())


@dataclass(frozen=True)
class QualityGate:
    """The gate of a registry, for functions with `memory_mb` of memory."""

    registry: Registry
    memory_mb: int
    limits: GateLimits = DEFAULT_LIMITS
    requires_approval: bool = False  # whether a version also needs a person's approval
    generation_memory_mb: int | None = None  # of functions that generate text; None if it is the same

    def evaluate(
        self, name: str, version: int, alias: str, *, actor: str, ignore_broken_champion: bool = False
    ) -> Verdict:
        """Run every check on the version, store the verdict beside it, and return it.

        The champion is the version that the alias points to now. Both versions answer the champion's test set, so that
        a version cannot bring an easier one. Without a champion, or if the champion has no test set, the version's own
        is used. A champion that cannot be read is an error, unless it is to be replaced whatever it is.
        """
        started = time.monotonic()
        manifest = self.registry.load_manifest(name, version)
        try:
            champion = self._load_champion(name, version, alias)
        except BrokenDocumentError:
            if not ignore_broken_champion:
                raise
            champion = None
        test_set_owner = next((one for one in (champion, manifest) if one and has_test_set(one)), None)
        ours, theirs = self._probe_both(manifest, champion, test_set_owner)
        targets = self._load_targets(test_set_owner) if test_set_owner else None
        verdict = Verdict(
            name=name,
            version=version,
            champion=champion.version if champion else None,
            alias=alias,
            passed=False,
            checks=(*self._check_approval(name, version), *self._run_checks(ours, theirs, targets)),
            limits=self.limits,
            memory_mb=self._get_memory_mb(manifest),
            machine=f"{platform.machine()}, {os.cpu_count()} CPUs",
            at=format_utc_now(),
            by=actor,
            seconds=round(time.monotonic() - started, 3),
        )
        verdict = msgspec.structs.replace(verdict, passed=all(check.passed for check in verdict.checks))
        open_verdict(self.registry.store, name, version).write(verdict)
        return verdict

    def _load_champion(self, name: str, version: int, alias: str) -> Manifest | None:
        """Load the version to compare against; None if the alias is new or already points to this version."""
        try:
            current = self.registry.load_alias(name, alias).version
        except NotFoundError:
            return None
        return self.registry.load_manifest(name, current) if current != version else None

    def _load_targets(self, test_set_owner: Manifest) -> Array:
        """Load the targets of a test set: the array of the npz file that is not named after an input of the graph."""
        inputs = {spec.name for spec in test_set_owner.inputs}
        with (
            open_model_files(self.registry.store, test_set_owner, test_set_owner.get_file(EVALUATION_FILE)) as path,
            np.load(path) as held,
        ):
            (name,) = {name for name in set(held.files) - inputs if not name.endswith(AXIS_SUFFIX)}
            return np.asarray(held[name])

    def _probe_both(
        self, manifest: Manifest, champion: Manifest | None, test_set_owner: Manifest | None
    ) -> tuple[ProbedVersion, ProbedVersion | None]:
        """Probe both versions twice in turn and keep the shorter times, because the disk is cold at first."""
        ours = self._probe_once(manifest, test_set_owner)
        if champion is None or ours.probe_result.error is not None:
            return ours, None
        theirs = self._probe_once(champion, test_set_owner)
        again, they_again = self._probe_once(manifest, test_set_owner), self._probe_once(champion, test_set_owner)
        if again.probe_result.error is not None:  # what opens once need not open in a function
            return again, theirs
        return keep_shorter_times(ours, again), keep_shorter_times(theirs, they_again)

    def _probe_once(self, manifest: Manifest, test_set_owner: Manifest | None) -> ProbedVersion:
        with TemporaryDirectory(prefix="pilotlight-gate-") as folder:
            evaluation_version = test_set_owner.version if test_set_owner else None
            request = ProbeRequest(
                self.registry.store.address,
                manifest.name,
                manifest.version,
                self._get_memory_mb(manifest),
                evaluation_version,
                folder,
            )
            found = run_probe(request)
            outputs = {precision: load_statistics(Path(folder, f"{precision}.npz")) for precision in found.answered}
        return ProbedVersion(manifest, found, outputs)

    def _get_memory_mb(self, manifest: Manifest) -> int:
        """Return the memory of the function that serves the version."""
        return self.memory_mb if manifest.decoder is None else self.generation_memory_mb or self.memory_mb

    def _check_approval(self, name: str, version: int) -> Iterator[GateCheck]:
        """Check a person's approval; no check if none is required and the version was not rejected."""
        why = blocking_reason(self.registry, name, version, required=self.requires_approval)
        if why is not None or self.requires_approval:
            yield GateCheck(APPROVAL_CHECK, why is None, why or "It was approved.")

    def _run_checks(
        self, ours: ProbedVersion, theirs: ProbedVersion | None, targets: Array | None
    ) -> Iterator[GateCheck]:
        """Run the checks in order; a version that does not open gets no further ones."""
        yield checks.check_opens(ours.manifest, ours.probe_result)
        if ours.probe_result.error is not None:
            return
        yield checks.check_files(ours.manifest, self._find_changed_files(ours.manifest))
        yield checks.check_golden(ours.manifest, ours.probe_result)
        yield checks.check_memory(ours.manifest, ours.probe_result, self._get_memory_mb(ours.manifest))
        if theirs is not None:
            yield checks.check_signature(ours.manifest, theirs.manifest)
        if ours.manifest.decoder is not None:
            yield from self._check_language_model(ours, theirs)
        elif targets is not None and ours.outputs:
            yield from self._check_against_test_set(ours, theirs, targets)
        elif ours.probe_result.finite is not None:
            yield checks.check_finite_probes(ours.probe_result, theirs.probe_result if theirs else None)
        if (
            theirs is not None
            and theirs.probe_result.error is None
            and ours.probe_result.latency_ms
            and theirs.probe_result.latency_ms
        ):
            yield checks.check_latency(ours.probe_result, theirs.probe_result, self.limits)
            yield checks.check_load_time(ours.probe_result, theirs.probe_result, self.limits)

    def _check_language_model(self, ours: ProbedVersion, theirs: ProbedVersion | None) -> Iterator[GateCheck]:
        """Run the checks of a language model, whose quality its publisher has measured."""
        yield checks.check_finite_scores(ours.probe_result)
        yield checks.check_perplexity(ours.manifest, self.limits)
        if theirs is None:
            return
        yield checks.check_champion_perplexity(ours.manifest, theirs.manifest, self.limits)
        mine, other = ours.probe_result.text_times, theirs.probe_result.text_times
        if mine is not None and other is not None:
            yield from checks.check_text_times(mine, other, self.limits)
            yield checks.check_load_time(ours.probe_result, theirs.probe_result, self.limits)

    def _find_changed_files(self, manifest: Manifest) -> list[str]:
        """List the files that differ from what was published: a sentence for each, without its full stop."""
        found = ((file.path, find_mismatch(self.registry.store, manifest, file)) for file in manifest.files)
        return [f"{path} {why}" for path, why in found if why]

    def _check_against_test_set(
        self, ours: ProbedVersion, theirs: ProbedVersion | None, targets: Array
    ) -> Iterator[GateCheck]:
        """Run the checks that need a test set and answers of the right shape."""
        yield checks.check_finite_examples(ours.outputs[ours.manifest.serve].finite)
        answers = ours.pair_with_targets(targets)
        name = (theirs or ours).manifest.metric or ours.manifest.metric or "accuracy"
        chosen_metric = metrics.find_metric(name)
        if theirs is not None and not has_same_shape(ours, theirs):
            yield checks.skip_quality(ours.describe_answers(), theirs.describe_answers(), theirs.probe_result)
        elif theirs is not None:
            yield checks.check_quality(chosen_metric, name, answers, theirs.pair_with_targets(targets), self.limits)
            if ours.manifest.labels:
                yield checks.check_class_recalls(
                    answers, theirs.pair_with_targets(targets), ours.manifest.labels, self.limits
                )
        if "fp32" in ours.outputs and ours.manifest.serve != "fp32" and ours.is_judged_by(name):
            budget = checks.get_quantization_budget(ours.manifest, name, self.limits)
            yield checks.check_quantization(
                chosen_metric, name, answers, ours.pair_with_targets(targets, "fp32"), budget
            )


def has_test_set(manifest: Manifest) -> bool:
    """Return whether the version has a test set."""
    return EVALUATION_FILE in {file.path for file in manifest.files}


def has_same_shape(ours: ProbedVersion, theirs: ProbedVersion) -> bool:
    """Return whether both versions answered the test set, with outputs of the same shape."""
    mine, other = ours.outputs.get(ours.manifest.serve), theirs.outputs.get(theirs.manifest.serve)
    return mine is not None and other is not None and np.array_equal(mine.shape, other.shape)


def keep_shorter_times(first: ProbedVersion, second: ProbedVersion) -> ProbedVersion:
    """Combine two probes of a version: the first one's result with the shorter times of both, if both opened it."""
    if second.probe_result.error is not None:
        return first
    found = msgspec.structs.replace(
        first.probe_result,
        load_s=min(first.probe_result.load_s, second.probe_result.load_s),
        latency_ms=min(first.probe_result.latency_ms, second.probe_result.latency_ms),
        text_times=keep_shorter_text_times(first.probe_result.text_times, second.probe_result.text_times),
    )
    return ProbedVersion(first.manifest, found, first.outputs)


def keep_shorter_text_times(first: TextTimes | None, second: TextTimes | None) -> TextTimes | None:
    """Combine the times of two probes of a language model."""
    if first is None or second is None:
        return first or second
    return TextTimes(min(first.first_token_ms, second.first_token_ms), min(first.token_ms, second.token_ms))
