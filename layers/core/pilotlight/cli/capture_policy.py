"""Parse the capture policy, and build the profile with which requests are compared, for `pilotlight publish`."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from pilotlight.contracts.capture_policy import CaptureExtent, CapturePolicy
from pilotlight.contracts.manifest import ManifestDraft
from pilotlight.contracts.version_files import FileContent
from pilotlight.drift import training_profile
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.example_batches import AXIS_SUFFIX, STACKED, BatchLayout, find_layout, run_examples
from pilotlight.runtime.session import Session

OTHER_FIELDS = "*"  # every field that no --mask names


def apply_capture_policy(draft: ManifestDraft, extent: CaptureExtent | None, masks: Sequence[str]) -> ManifestDraft:
    """Apply the policy of --capture and --mask FIELD=WORD to the draft; return it unchanged if neither is given."""
    if extent is None and not masks:
        return draft
    words = dict(parse_mask(mask) for mask in masks)
    others = words.pop(OTHER_FIELDS, "keep")
    try:
        capture = msgspec.convert({"keep": extent or "summary", "mask": words, "others": others}, CapturePolicy)
        capture.check_fields(draft.maskable_fields)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"--mask {' '.join(masks)} is wrong: {exc}.") from exc
    except ValueError as exc:
        raise InvalidInputError(f"--mask {exc}.") from exc
    return msgspec.structs.replace(draft, capture=capture)


def parse_mask(mask: str) -> tuple[str, str]:
    """Parse FIELD=WORD; the name of a field may contain the sign."""
    field, mark, word = mask.rpartition("=")
    if not (field and mark):
        raise InvalidInputError(f"--mask {mask!r} is not FIELD=WORD, as in age=drop; WORD is keep, hash or drop.")
    return field, word


def add_feature_profile(
    draft: ManifestDraft, evaluation: Path | None, session: Session | None
) -> tuple[ManifestDraft, dict[str, FileContent]]:
    """Add a profile of the publisher's examples, if there are any, to the draft, and return its file.

    A graph that is published with examples is open.
    """
    if evaluation is None or session is None:
        return draft, {}
    with np.load(evaluation, allow_pickle=False) as arrays:
        feeds = {spec.name: arrays[spec.name].astype(NUMPY_DTYPES[spec.datatype]) for spec in session.inputs}
        told = {name: int(arrays[name + AXIS_SUFFIX]) for name in feeds if name + AXIS_SUFFIX in arrays.files}
    try:
        layout = find_layout(session, feeds, told)
    except InvalidInputError:  # only with the right answers, which a profile does not know, the axes can be told apart
        return draft, {}
    if any(axis not in {0, STACKED} for axis in layout.inputs.values()):
        return draft, {}  # a profile divides requests by their first dimension
    examples = layout.count_examples(feeds)[0]
    feeds = layout.take(feeds, training_profile.sample_row_indices(examples, training_profile.EXAMPLES))
    feature_profile = training_profile.build_profile(draft, feeds, compute_outputs(session, feeds, layout))
    return msgspec.structs.replace(draft, profile=training_profile.PROFILE_FILE), {
        training_profile.PROFILE_FILE: training_profile.encode_profile(feature_profile)
    }


def compute_outputs(session: Session, feeds: dict[str, Array], layout: BatchLayout) -> dict[str, Array]:
    """Compute the graph's outputs for the first examples, as many at a time as it takes."""
    count = min(training_profile.ANSWERED, layout.count_examples(feeds)[0])
    answers = run_examples(session, layout.take(feeds, range(count)), layout)
    return {name: values for name, values in answers.items() if len(values) == count}
