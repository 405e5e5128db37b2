"""Build a version's profile from examples and from answers, in the training job and in `pilotlight publish`."""

from collections.abc import Mapping

import msgspec
import numpy as np

from pilotlight.capture import features, masking
from pilotlight.capture.features import Feature
from pilotlight.contracts.feature_profile import FeatureProfile, Histogram
from pilotlight.contracts.manifest import ManifestDraft
from pilotlight.drift.histograms import build_histogram, choose_bin_count
from pilotlight.runtime.datatypes import Array

PROFILE_FILE = "profile.json"  # among the files of a version
MAX_FEATURES = 512
EXAMPLES = 20_000  # in which the features of a large set are counted, drawn at random
ANSWERED = 4096  # in which the answers are counted


def build_profile(draft: ManifestDraft, feeds: Mapping[str, Array], results: Mapping[str, Array]) -> FeatureProfile:
    """Build the profile that the draft's policy allows, from (N, ...) feeds and from the graph's answers."""
    rules = masking.get_capture_policy(draft)
    observed = masking.select_kept_features(rules, features.extract_request_features(draft, {}, feeds))
    answered = masking.select_kept_features(rules, features.extract_answer_features(draft, results))
    return FeatureProfile(
        examples=count_rows(observed),
        answered=count_rows(answered),
        features=build_histograms(observed[:MAX_FEATURES]),
        answers=build_histograms(answered[:MAX_FEATURES]),
        left_out=max(0, len(observed) - MAX_FEATURES),
    )


def build_histograms(observed: list[Feature]) -> dict[str, Histogram]:
    """Build a histogram of each feature."""
    return {feature.name: build_histogram(feature.values, choose_bin_count(len(observed))) for feature in observed}


def count_rows(observed: list[Feature]) -> int:
    """Count the examples of the features."""
    return len(observed[0].values) if observed else 0


def sample_row_indices(count: int, limit: int) -> Array:
    """Choose which of `count` examples are counted, at most `limit` of them, the same ones each time."""
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])


def encode_profile(built_profile: FeatureProfile) -> bytes:
    """Encode a profile on one line, since indented JSON would be twice as large."""
    return msgspec.json.encode(built_profile) + b"\n"
