"""What `pilotlight publish` does for a graph that is a classifier: labels and probabilities by themselves.

It also finds other names for a step's outputs where the graph has outputs of theirs.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from pilotlight.cli.console import ERRORS
from pilotlight.cli.inferred_steps import GraphFacts
from pilotlight.contracts.manifest import ManifestDraft, Task
from pilotlight.contracts.processing import ClassificationPostprocessing, Postprocessing
from pilotlight.runtime.classifier_graph import ClassifierOutputs
from pilotlight.runtime.datatypes import Array

# The names that a step's outputs have where the graph has the usual ones. The graph's names stay, since golden requests
# and repositories of Triton name them.
OTHER_NAMES = {
    "label": "predicted_label",
    "probability": "predicted_probability",
    "probabilities": "predicted_probabilities",
    "prediction": "predicted_value",
    "embedding": "text_embedding",
}
SUM_TOLERANCE = 1e-3  # of a row's probabilities, which are float32


def add_postprocessing(
    draft: ManifestDraft, classifier: ClassifierOutputs | None, task: Task | None, facts: GraphFacts
) -> ManifestDraft:
    """Add the finish of a classifier whose scores are probabilities, unless it has one or the graph is asked for."""
    if classifier is None or task == "tensor" or draft.postprocess is not None:
        return draft
    if not gives_probabilities(classifier, facts):
        return draft
    finish = ClassificationPostprocessing(output=classifier.scores, activation="none")
    return msgspec.structs.replace(draft, postprocess=finish)


def complete_finish(steps: dict[str, Any], classifier: ClassifierOutputs | None) -> dict[str, Any]:
    """Let a publisher's classification read the classifier's scores, unless it names an output."""
    finish = steps.get("finish")
    if classifier is None or not finish or finish.get("kind") != "classification":
        return steps
    return steps | {"finish": {"output": classifier.scores} | finish}


def gives_probabilities(classifier: ClassifierOutputs, facts: GraphFacts) -> bool:
    """Return whether the scores are a probability for each class: by their shape, and by what the graph answers.

    A graph that answers no made-up request is believed.
    """
    spec = facts.find_output(classifier.scores)
    if spec is None or spec.datatype not in {"FP32", "FP64"} or len(spec.shape) != 2 or not classifier.labels:
        return False
    if spec.shape[1] != len(classifier.labels) and isinstance(spec.shape[1], int):
        return False
    if any(each.name != spec.name and len(each.shape) == 2 and 1 not in each.v2_shape for each in facts.outputs):
        return False  # a label for each of several targets
    return all(is_distribution(scores, len(classifier.labels)) for scores in facts.answers.get(spec.name, ()))


def is_distribution(scores: Array, classes: int) -> bool:
    """Return whether every row is a distribution over the classes."""
    fits = scores.ndim == 2 and scores.shape[1] == classes and bool(np.isfinite(scores).all())
    return fits and bool((scores >= -SUM_TOLERANCE).all() and (np.abs(scores.sum(axis=1) - 1) <= SUM_TOLERANCE).all())


def resolve_output_names(draft: ManifestDraft) -> ManifestDraft:
    """Give the step's outputs other names where the graph's outputs have theirs, and say so."""
    finish = draft.postprocess
    if finish is None:
        return draft
    taken = {spec.name for spec in draft.outputs}
    if taken.isdisjoint(finish.output_names):
        return draft
    changed = {name: find_free_name(name, taken) for name in finish.output_names}  # all, so that they go together
    pairs = ", ".join(f"{old!r} is {new!r}" for old, new in changed.items())
    ERRORS.print(
        f"The graph has outputs named as those of {finish.__struct_config__.tag}, and keeps their names: {pairs}.",
        style="yellow",
        soft_wrap=True,
    )
    return msgspec.structs.replace(draft, postprocess=rename_outputs(finish, changed))


def rename_outputs(finish: Postprocessing, names: Mapping[str, str]) -> Postprocessing:
    """Return the step with other names for its outputs."""
    fields = [field for field in finish.__struct_fields__ if field in {"label", "probability", "probabilities", "name"}]
    return msgspec.structs.replace(
        finish, **{field: names.get(getattr(finish, field), getattr(finish, field)) for field in fields}
    )


def find_free_name(name: str, taken: set[str]) -> str:
    """Find a name that the graph does not have."""
    other = OTHER_NAMES.get(name, f"predicted_{name}")
    while other in taken:
        other += "_"
    return other
