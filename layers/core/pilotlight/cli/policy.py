"""What may be kept of requests, in the words of `pilotlight publish`; and the profile that they are compared with."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from pilotlight.contracts.capture_policy import Capture, Extent
from pilotlight.contracts.manifest import Draft
from pilotlight.drift import training_profile
from pilotlight.errors import InvalidInputError
from pilotlight.registry.registry import Content
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.session import Array, Session

BATCH = 64  # examples asked at once
OTHERS = "*"  # stands for every field that no --mask names


def policy(draft: Draft, keep: Extent | None, masks: Sequence[str]) -> Draft:
    """The draft with the policy that --capture and --mask FIELD=WORD tell of; as it was where they tell nothing."""
    if keep is None and not masks:
        return draft
    words = dict(split(mask) for mask in masks)
    others = words.pop(OTHERS, "keep")
    try:
        capture = msgspec.convert({"keep": keep or "summary", "mask": words, "others": others}, Capture)
        capture.check(draft.fields)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"--mask {' '.join(masks)} is wrong: {exc}.") from exc
    except ValueError as exc:
        raise InvalidInputError(f"--mask {exc}.") from exc
    return msgspec.structs.replace(draft, capture=capture)


def split(mask: str) -> tuple[str, str]:
    """FIELD=WORD in two; a field's name may have the sign in it."""
    field, mark, word = mask.rpartition("=")
    if not (field and mark):
        raise InvalidInputError(f"--mask {mask!r} is not FIELD=WORD, as in age=drop; WORD is keep, hash or drop.")
    return field, word


def profiled(draft: Draft, evaluation: Path | None, session: Session) -> tuple[Draft, dict[str, Content]]:
    """The draft with a profile of the publisher's examples, if there are some, and the file that it is."""
    if evaluation is None:
        return draft, {}
    with np.load(evaluation, allow_pickle=False) as held:
        feeds = {spec.name: held[spec.name].astype(NUMPY_DTYPES[spec.datatype]) for spec in session.inputs}
    chosen = training_profile.some(len(next(iter(feeds.values()))), training_profile.EXAMPLES)
    feeds = {name: values[chosen] for name, values in feeds.items()}
    found = training_profile.profile(draft, feeds, answers(session, feeds))
    return msgspec.structs.replace(draft, profile=training_profile.FILE), {
        training_profile.FILE: training_profile.document(found)
    }


def answers(session: Session, feeds: dict[str, Array]) -> dict[str, Array]:
    """What the graph answers to the first examples, some at a time."""
    count = min(training_profile.ANSWERED, len(next(iter(feeds.values()))))
    parts = [
        session.run({name: values[start : min(start + BATCH, count)] for name, values in feeds.items()})
        for start in range(0, count, BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
