"""The model card of a graph that is published as it is, `model-card.md`: what can be said of it without measuring."""

from pathlib import Path

from pilotlight.contracts.manifest import ManifestDraft, TensorSpec

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


def format_graph_card(draft: ManifestDraft, graph: Path) -> str:
    """The card as Markdown."""
    rows = [format_tensor_row("in", spec) for spec in draft.inputs] + [
        format_tensor_row("out", spec) for spec in draft.outputs
    ]
    made_up = "Golden requests, made up within its signature, were recorded and repeated."
    return CARD_TEMPLATE.format(
        name=draft.name,
        file=graph.name,
        opset=draft.opset or "unknown",
        serve=draft.serve,
        signature="\n".join(rows),
        size=graph.stat().st_size / 1000,
        golden=made_up if draft.golden else "It has no golden requests.",
    )


def format_tensor_row(direction: str, spec: TensorSpec) -> str:
    """A tensor as a line of the table."""
    return f"| {direction} | `{spec.name}` | {spec.datatype} | `[{', '.join(map(str, spec.shape))}]` |"
