"""A version's profile, from examples and the answers to others: what the training job and `pilotlight publish` make."""

from collections.abc import Mapping

import msgspec
import numpy as np

from pilotlight.capture import features, masking
from pilotlight.capture.features import Feature
from pilotlight.contracts.feature_profile import Histogram, Profile
from pilotlight.contracts.manifest import Draft
from pilotlight.drift.histograms import Array, bins_each, sketch

FILE = "profile.json"  # among the files of a version
MOST_FEATURES = 512
EXAMPLES = 20_000  # that the features of a large set are counted in, drawn by chance
ANSWERED = 4096  # that the answers are counted in


def profile(draft: Draft, feeds: Mapping[str, Array], results: Mapping[str, Array]) -> Profile:
    """What the draft's policy lets be told of (N, ...) feeds, and of the graph's answers to others."""
    rules = masking.policy(draft)
    observed = masking.kept(rules, features.observed(draft, {}, feeds))
    answered = masking.kept(rules, features.answered(draft, results))
    return Profile(
        examples=length(observed),
        answered=length(answered),
        features=sketched(observed[:MOST_FEATURES]),
        answers=sketched(answered[:MOST_FEATURES]),
        left_out=max(0, len(observed) - MOST_FEATURES),
    )


def sketched(found: list[Feature]) -> dict[str, Histogram]:
    """A histogram of each feature."""
    return {feature.name: sketch(feature.values, bins_each(len(found))) for feature in found}


def length(found: list[Feature]) -> int:
    """How many examples the features are of."""
    return len(found[0].values) if found else 0


def some(count: int, most: int) -> Array:
    """Which of so many examples are counted: all, or as many as are enough, the same ones each time."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def document(found: Profile) -> bytes:
    """As a file; on one line, since indented it would be twice as large."""
    return msgspec.json.encode(found) + b"\n"
