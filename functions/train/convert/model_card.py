"""The model card of a converted version, `model-card.md`: its origin, its signature, and its measurements."""

from functions.train.convert.converted_model import ConvertedModel
from functions.train.convert.variants import VariantChoice
from functions.train.evaluation.markdown_table import format_markdown_table
from pilotlight.contracts.metric import format_value
from pilotlight.runtime.session import Session

TEMPLATE = """\
# {name}

{what}, brought in by `pilotlight publish`; it was not trained here. Its {serve} variant is served.

## Input and output of the graph

{signature}

## Results

{results}

{verdict} {parity}

## Limitations

{limitations}
"""


def format_converted_card(name: str, model: ConvertedModel, choice: VariantChoice, session: Session) -> str:
    """Format the card as Markdown."""
    tensors = [("in", one) for one in session.inputs] + [("out", one) for one in session.outputs]
    signature = [(way, f"`{one.name}`", one.datatype, f"`[{', '.join(map(str, one.shape))}]`") for way, one in tensors]
    return TEMPLATE.format(
        name=name,
        what=model.description,
        serve=choice.serve,
        signature=format_markdown_table(("", "tensor", "datatype", "shape"), signature),
        results=format_variant_table(choice),
        verdict=choice.verdict,
        parity=f"The graph is within {model.parity.max_abs:.2g} of the model it was made of." if model.parity else "",
        limitations=describe_limitations(choice),
    )


def format_variant_table(choice: VariantChoice) -> str:
    """Format a table of every variant with its size, and its metrics if there are any."""
    names = sorted({name for metrics in choice.metrics.values() for name in metrics})
    rows = [
        (
            f"**{precision}**, served" if precision == choice.serve else precision,
            f"{path.stat().st_size / 1000:,.1f}",
            *(format_value(name, choice.metrics.get(precision, {})[name]) for name in names),
        )
        for precision, path in choice.graphs.items()
    ]
    return format_markdown_table(("variant", "kB", *names), rows)


def describe_limitations(choice: VariantChoice) -> str:
    """Describe what is not known of the model."""
    if choice.test is None:
        return "- Nothing is known here of how good its answers are: no evaluation data was given."
    return (
        f"- Measured on {len(choice.test):,} examples that the publisher brought; where they are from is not recorded."
    )
