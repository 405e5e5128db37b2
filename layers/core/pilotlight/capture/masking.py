"""Mask a request by its manifest's capture policy. Everything that is written passes through `build_record`."""

import base64
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite

import numpy as np

from pilotlight.capture import features
from pilotlight.capture.features import Feature
from pilotlight.capture.hashing import hash_value
from pilotlight.capture.record import CaptureRecord, RawInput
from pilotlight.contracts.capture_policy import CapturePolicy
from pilotlight.contracts.manifest import Manifest, ManifestDraft
from pilotlight.contracts.processing import TablePreprocessing
from pilotlight.drift.histograms import to_float32
from pilotlight.processing import DATATYPES_BY_DTYPE
from pilotlight.runtime.datatypes import Array

MAX_EXAMPLES = 64  # of a request, at most: one caller's batch must not outweigh all others


@dataclass(frozen=True)
class CaptureSample:
    """A request and the graph's results, as the handler had them."""

    manifest: Manifest
    tensors: Mapping[str, Array]  # as the caller sent them; none if the policy does not need them
    feeds: Mapping[str, Array]
    results: Mapping[str, Array]
    at: float  # s since 1970
    tenant: str = ""  # whose request it is

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return sum(map(count_array_bytes, (*self.tensors.values(), *self.feeds.values(), *self.results.values())))


def count_array_bytes(array: Array) -> int:
    """Count the bytes of an array, including those of the texts and files in it."""
    elements = [one for one in array.ravel().tolist() if isinstance(one, bytes | str)] if array.dtype == object else []
    return array.nbytes + sum(map(len, elements))


def needs_tensors(draft: ManifestDraft) -> bool:
    """Return whether the policy needs what the caller sent, besides what the graph was fed with."""
    return isinstance(draft.preprocess, TablePreprocessing) or get_capture_policy(draft).keep == "whole"


def get_capture_policy(draft: ManifestDraft) -> CapturePolicy:
    """Return the manifest's policy, or the default one."""
    return draft.capture or CapturePolicy()


def has_hashed_fields(draft: ManifestDraft) -> bool:
    """Return whether the policy hashes anything."""
    return "hash" in get_capture_policy(draft).mask.values()


def build_record(sample: CaptureSample, key: bytes | None) -> CaptureRecord:
    """Build the record of what the policy keeps of a request; without a key, fields to be hashed are dropped."""
    rules, rows, sampled = get_capture_policy(sample.manifest), count_examples(sample), sample_examples(sample)
    observed = features.extract_request_features(sampled.manifest, sampled.tensors, sampled.feeds)
    answered = features.extract_answer_features(sampled.manifest, sampled.results)
    whole = rules.keep == "whole" and not isinstance(
        sampled.manifest.preprocess, TablePreprocessing
    )  # a table's features are all of it
    return CaptureRecord(
        at=datetime.fromtimestamp(sample.at, UTC).isoformat(),
        rows=rows,
        features=to_json_features(select_kept_features(rules, observed)),
        answers=to_json_features(select_kept_features(rules, answered)),
        hashed=hash_features(rules, [*observed, *answered], key) if key else {},
        inputs=mask_inputs(rules, sampled, key) if whole else {},
    )


def count_examples(sample: CaptureSample) -> int:
    """Count the examples of the request."""
    return len(next(iter(sample.feeds.values()))) if features.is_batched(sample.manifest) else 1


def sample_examples(sample: CaptureSample) -> CaptureSample:
    """Draw at most `MAX_EXAMPLES` examples of the sample at random."""
    total = count_examples(sample)
    if total <= MAX_EXAMPLES:
        return sample
    chosen = np.sort(random.sample(range(total), MAX_EXAMPLES))

    def select_rows(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: array[chosen] for name, array in arrays.items() if array.shape[:1] == (total,)}

    return replace(
        sample,
        tensors=select_rows(sample.tensors),
        feeds=select_rows(sample.feeds),
        results=select_rows(sample.results),
    )


def select_kept_features(rules: CapturePolicy, candidates: Iterable[Feature]) -> list[Feature]:
    """Select the features that are kept unmasked, and that a profile may contain."""
    return [feature for feature in candidates if rules.get_treatment(*feature.field_names) == "keep"]


def hash_features(rules: CapturePolicy, candidates: Iterable[Feature], key: bytes) -> dict[str, list[str | None]]:
    """Hash the features of which only hashes are kept."""
    chosen = [feature for feature in candidates if rules.get_treatment(*feature.field_names) == "hash"]
    return {
        feature.name: [hash_value(key, feature.name, value) for value in to_json_values(feature.values)]
        for feature in chosen
    }


def to_json_features(kept_features: Iterable[Feature]) -> dict[str, list[float | str | None]]:
    """Convert features to JSON values."""
    return {feature.name: to_json_values(feature.values) for feature in kept_features}


def to_json_values(array: Array) -> list[float | str | None]:
    """Convert numbers to float32, whatever type was sent; NaN and infinity become None, since JSON has neither."""
    if array.dtype == object:
        return list(array.tolist())
    return [value if isfinite(value) else None for value in to_float32(array).tolist()]


def mask_inputs(rules: CapturePolicy, sample: CaptureSample, key: bytes | None) -> dict[str, RawInput]:
    """Return the inputs as sent, masked by the policy; a rule for the caller's input also covers the graph's inputs."""
    own = (sample.manifest.preprocess.name,) if sample.manifest.preprocess is not None else ()
    raw_inputs: dict[str, RawInput] = {}
    for name, array in sample.tensors.items():
        treatment = rules.get_treatment(name, *own)
        if treatment == "keep":
            raw_inputs[name] = RawInput(
                DATATYPES_BY_DTYPE[array.dtype],
                array.shape,
                [to_json_element(value) for value in array.ravel().tolist()],
            )
        elif treatment == "hash" and key is not None:
            rows = [hash_value(key, name, to_bytes(row)) for row in (array if array.ndim else array[None])]
            raw_inputs[name] = RawInput("HASH", (len(rows),), rows)
    return raw_inputs


def to_bytes(row: Array | object) -> bytes:
    """Return the bytes of one example's value, of any type."""
    value = np.asarray(row)
    return repr(value.tolist()).encode() if value.dtype == object else value.tobytes()


def to_json_element(value: object) -> object:
    """Convert an element to its JSON form: BYTES in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
