"""A request as its manifest's policy lets it be kept. Everything that is written passes through `line`."""

import base64
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite

import numpy as np

from pilotlight.capture import features
from pilotlight.capture.features import Feature
from pilotlight.capture.hashing import digest
from pilotlight.capture.record import Kept, Line
from pilotlight.contracts.capture_policy import Capture
from pilotlight.contracts.manifest import Draft, Manifest
from pilotlight.contracts.processing import Table
from pilotlight.drift.histograms import single
from pilotlight.processing import DATATYPES
from pilotlight.runtime.session import Array

ROWS = 64  # of a request, at most: one caller's batch is not to outweigh all others


@dataclass(frozen=True)
class Sample:
    """A request and what the graph made of it, as the handler had them."""

    manifest: Manifest
    tensors: Mapping[str, Array]  # as the caller sent them; none where the policy has no use for them
    feeds: Mapping[str, Array]
    results: Mapping[str, Array]
    at: float  # s since 1970

    @property
    def bytes(self) -> int:
        """What it holds in memory, about."""
        return sum(map(size, (*self.tensors.values(), *self.feeds.values(), *self.results.values())))


def size(array: Array) -> int:
    """The bytes of an array, with those of the texts and files in it."""
    held = [one for one in array.ravel().tolist() if isinstance(one, bytes | str)] if array.dtype == object else []
    return array.nbytes + sum(map(len, held))


def wants_tensors(draft: Draft) -> bool:
    """Whether the policy has a use for what the caller sent, beside what the graph was fed with."""
    return isinstance(draft.prepare, Table) or policy(draft).keep == "whole"


def policy(draft: Draft) -> Capture:
    """The manifest's policy, or that of a manifest that has none."""
    return draft.capture or Capture()


def hashes_any(draft: Draft) -> bool:
    """Whether the policy hashes anything."""
    return "hash" in policy(draft).mask.values()


def line(sample: Sample, key: bytes | None) -> Line:
    """What may be kept of a request; without a key, what is to be hashed is dropped."""
    rules, rows, some = policy(sample.manifest), count(sample), fewer(sample)
    observed = features.observed(some.manifest, some.tensors, some.feeds)
    answered = features.answered(some.manifest, some.results)
    whole = rules.keep == "whole" and not isinstance(some.manifest.prepare, Table)  # whose features are all of it
    return Line(
        at=datetime.fromtimestamp(sample.at, UTC).isoformat(),
        rows=rows,
        features=told(kept(rules, observed)),
        answers=told(kept(rules, answered)),
        hashed=hashed(rules, [*observed, *answered], key) if key else {},
        inputs=inputs(rules, some, key) if whole else {},
    )


def count(sample: Sample) -> int:
    """How many examples the request has."""
    return len(next(iter(sample.feeds.values()))) if features.batched(sample.manifest) else 1


def fewer(sample: Sample) -> Sample:
    """The sample with `ROWS` examples at most, drawn by chance."""
    total = count(sample)
    if total <= ROWS:
        return sample
    chosen = np.sort(random.sample(range(total), ROWS))

    def some(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: array[chosen] for name, array in arrays.items() if array.shape[:1] == (total,)}

    return replace(sample, tensors=some(sample.tensors), feeds=some(sample.feeds), results=some(sample.results))


def kept(rules: Capture, found: Iterable[Feature]) -> list[Feature]:
    """The features that are kept as they are, and that a profile may tell of."""
    return [feature for feature in found if rules.treatment(*feature.fields) == "keep"]


def hashed(rules: Capture, found: Iterable[Feature], key: bytes) -> dict[str, list[str | None]]:
    """The features of which only hashes are kept."""
    chosen = [feature for feature in found if rules.treatment(*feature.fields) == "hash"]
    return {feature.name: [digest(key, feature.name, value) for value in values(feature.values)] for feature in chosen}


def told(found: Iterable[Feature]) -> dict[str, list[float | str | None]]:
    """Features as JSON has them."""
    return {feature.name: values(feature.values) for feature in found}


def values(found: Array) -> list[float | str | None]:
    """Numbers as float32, the same however they were sent; NaN and what is endless have no word in JSON."""
    if found.dtype == object:
        return list(found.tolist())
    return [value if isfinite(value) else None for value in single(found).tolist()]


def inputs(rules: Capture, sample: Sample, key: bytes | None) -> dict[str, Kept]:
    """The inputs as they were sent, but for what is masked; a mask of the caller's input is one of the graph's."""
    own = (sample.manifest.prepare.name,) if sample.manifest.prepare is not None else ()
    found: dict[str, Kept] = {}
    for name, array in sample.tensors.items():
        treatment = rules.treatment(name, *own)
        if treatment == "keep":
            found[name] = Kept(DATATYPES[array.dtype], array.shape, [plain(value) for value in array.ravel().tolist()])
        elif treatment == "hash" and key is not None:
            rows = [digest(key, name, as_bytes(row)) for row in (array if array.ndim else array[None])]
            found[name] = Kept("HASH", (len(rows),), rows)
    return found


def as_bytes(row: Array | object) -> bytes:
    """One example's value, whatever it is."""
    value = np.asarray(row)
    return repr(value.tolist()).encode() if value.dtype == object else value.tobytes()


def plain(value: object) -> object:
    """An element as JSON has it: BYTES in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
