"""The model card of a version that was brought in, `model-card.md`: what it is, how it is called, what was measured."""

from functions.train.convert.converted_model import Model
from functions.train.convert.variants import Choice
from functions.train.evaluation.metrics import shown
from functions.train.evaluation.model_card import table
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


def write(name: str, model: Model, choice: Choice, session: Session) -> str:
    """The card as Markdown."""
    ends = [("in", one) for one in session.inputs] + [("out", one) for one in session.outputs]
    signature = [(way, f"`{one.name}`", one.datatype, f"`[{', '.join(map(str, one.shape))}]`") for way, one in ends]
    return TEMPLATE.format(
        name=name,
        what=model.what,
        serve=choice.serve,
        signature=table(("", "tensor", "datatype", "shape"), signature),
        results=results(choice),
        verdict=choice.verdict,
        parity=f"The graph is within {model.parity.max_abs:.2g} of the model it was made of." if model.parity else "",
        limitations=limitations(choice),
    )


def results(choice: Choice) -> str:
    """Every variant with its size, and its metrics where there are some."""
    names = sorted({name for metrics in choice.metrics.values() for name in metrics})
    rows = [
        (
            f"**{precision}**, served" if precision == choice.serve else precision,
            f"{path.stat().st_size / 1000:,.1f}",
            *(shown(name, choice.metrics.get(precision, {})[name]) for name in names),
        )
        for precision, path in choice.graphs.items()
    ]
    return table(("variant", "kB", *names), rows)


def limitations(choice: Choice) -> str:
    """What is not known."""
    if choice.test is None:
        return "- Nothing is known here of how good its answers are: no evaluation data was given."
    return (
        f"- Measured on {len(choice.test):,} examples that the publisher brought; where they are from is not recorded."
    )
