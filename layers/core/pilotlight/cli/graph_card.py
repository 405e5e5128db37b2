"""The model card of a graph that is published as it is, and what its golden requests leave unchecked."""

from collections.abc import Sequence
from pathlib import Path

from pilotlight.contracts.manifest import ManifestDraft, TensorSpec
from pilotlight.gate.graph_probe import GraphExamination

# What can be written about a graph that is published as it is, without measuring it.
CARD_TEMPLATE = """\
# {name}

The ONNX graph `{file}`, opset {opset}, published as it is; it was not trained here. Its weights are served in {serve}.

## Input and output of the graph

|  | tensor | datatype | shape |
| --- | --- | --- | --- |
{signature}

## Results

The graph has {size:,.1f} kB. {golden}

## Limitations

- Nothing is known here of how good its answers are: no evaluation data was given.
"""


def format_graph_card(draft: ManifestDraft, graph: Path, unchecked: str, left_out: Sequence[str]) -> str:
    """Format the model card, `model-card.md`."""
    rows = [format_tensor_row("in", spec) for spec in draft.inputs] + [
        format_tensor_row("out", spec) for spec in draft.outputs
    ]
    recorded = "Golden requests, made up within its signature or brought with it, were recorded and repeated."
    golden = " ".join(filter(None, [recorded if draft.golden else "", unchecked]))
    return CARD_TEMPLATE.format(
        name=draft.name,
        file=graph.name,
        opset=draft.opset or "unknown",
        serve=draft.serve,
        signature="\n".join([*rows, *(f"| left out | `{one}` | | |" for one in left_out)]),
        size=graph.stat().st_size / 1000,
        golden=golden,
    )


def format_tensor_row(direction: str, spec: TensorSpec) -> str:
    """Format a tensor as a row of the table."""
    return f"| {direction} | `{spec.name}` | {spec.datatype} | `[{', '.join(map(str, spec.shape))}]` |"


def describe_unchecked(examination: GraphExamination) -> str:
    """Describe what golden requests leave unchecked, in a sentence; empty if it is nothing."""
    recording = examination.recording
    if recording.document is None:
        reason = recording.reason
        if examination.tries and examination.refusal and not examination.input_shapes:
            reason = (
                f"the graph answers none of {examination.tries:,} made-up requests, the last: {examination.refusal}"
            )
        return (
            f"Not checked. No golden requests are recorded: {reason.rstrip('.')}. Nothing will tell that it computes "
            "wrongly one day; --sample brings a request of yours."
        )
    if recording.unchecked:
        return f"Not checked by golden requests: {'; '.join(sorted(recording.unchecked.values()))}."
    return ""
