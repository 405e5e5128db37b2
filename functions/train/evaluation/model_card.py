"""The model card of a version, `model-card.md`: what it is, how to call it, how good it is, and where it is not.

Every sentence is put together from what the run measured; the same product gives the same card. The card cannot know
the version's number, which is only given when everything else is written. M. Mitchell and others, Model Cards for
Model Reporting, 2019.
"""

import json
from collections.abc import Iterable, Sequence
from math import prod

from functions.train.data.dataset import Dataset, Splits
from functions.train.evaluation.diagnostics import Classification, Regression
from functions.train.evaluation.metrics import shown
from functions.train.evaluation.quantization_report import Measured, Report, against
from functions.train.export.artifacts import Product
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.metric import METRICS
from pilotlight.recipes.options.part import Options
from pilotlight.recipes.schema import Recipe
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.golden import Exchange
from pilotlight.training_runs.run_store import duration

SHORT = 128  # values that an example request may have to be written out
FEW = 30  # test examples of a class, below which its recall is little more than a guess
NAMED = 10  # classes named in a sentence
ROWS = 100  # classes that get a row of the table

TEMPLATE = """\
# {name}

{what} It was trained by Pilotlight in the run `{run}`; its {serve} variant is served.

## Input and output

{signature}

{scaling}

```console
$ {curl}
```

```python
{triton}
```

## Data

{data}

## Training

{training}

![Learning curves](curves.png)

## Results

On the {examples} examples of the test set, which neither training nor quantization saw:

{results}

{verdict} {parity}

{details}
## Limitations

{limitations}

## Licence

{licence}

## Reproduce

`recipe.yaml` beside this file is the whole recipe, {revision} the code:

```console
$ pilotlight train recipe.yaml
```

On the same kind of CPU the same recipe gives the same weights bit for bit. `evaluation.npz` is the test set,
`golden.json` holds requests with the answers that the served variant must repeat, `report.json` every number above.
"""


def write(product: Product) -> str:
    """The card as Markdown."""
    recipe, report, test = product.recipe, product.report, product.splits.test
    return TEMPLATE.format(
        name=recipe.name,
        what=what(recipe, product.outputs, test),
        run=product.run,
        serve=report.serve,
        signature=signature(product),
        scaling=scaling(product),
        curl=curl(recipe.name, product.golden.exchanges[0]),
        triton=triton(recipe.name, product.golden.exchanges[0]),
        data=data(recipe, product.splits, report),
        training=training(product),
        examples=f"{report.evaluation.examples:,}",
        results=results(report),
        verdict=report.verdict,
        parity=f"The graph is within {product.parity.max_abs:.2g} of the trained model.",
        details=details(report),
        limitations="\n".join(f"- {fact}" for fact in limitations(product)),
        licence=recipe.licence or "None is named in the recipe: ask whoever trained the model before you pass it on.",
        revision=f"revision `{product.training.revision}`",
    )


def what(recipe: Recipe, outputs: Sequence[TensorSpec], test: Dataset) -> str:
    """What the model is, in a sentence."""
    if test.text:
        answer = f"guesses the next of {len(test.classes):,} tokens of a text; it learned from `{recipe.data.name}`."
    elif test.classes:
        names = listed(test.classes)
        answer = f"says which of {len(test.classes)} classes an example of `{recipe.data.name}` is: {names}."
    else:
        answer = f"answers examples of `{recipe.data.name}` with {', '.join(f'`{one.name}`' for one in outputs)}."
    return f"A model ({words(recipe.model)}) that {answer}"


def signature(product: Product) -> str:
    """Both ends of the graph."""
    ends = [("in", one) for one in product.inputs] + [("out", one) for one in product.outputs]
    rows = [(way, f"`{one.name}`", one.datatype, f"`[{', '.join(map(str, one.shape))}]`") for way, one in ends]
    return table(("", "tensor", "datatype", "shape"), rows)


def scaling(product: Product) -> str:
    """What callers need not do themselves."""
    names = product.preprocessing.names if product.preprocessing else ()
    raw = f"Values are sent as they were measured ({listed(names)}): the graph scales them." if names else ""
    if product.splits.test.text:
        return "Tokens are those of `tokenizer.json`. At each, the answer has the logits of the one that follows."
    if product.splits.test.classes:
        return f"{raw} Answers are logits; the largest is the class, by the order of the manifest's labels.".strip()
    return f"{raw} The answer is in the target's own unit.".strip() if product.postprocessing else raw


def curl(name: str, exchange: Exchange) -> str:
    """A request that works as it stands, against `pilotlight serve`."""
    (tensor,) = exchange.request.inputs
    where = f"localhost:8080/v2/models/{name}/infer"
    head = json.dumps({"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}).rstrip("}")
    if len(tensor.data) <= SHORT:
        values = ",".join(str(value) if isinstance(value, int) else f"{value:.7g}" for value in tensor.data)
        return f'curl -s {where} -d \'{{"inputs":[{head},"data":[{values}]}}]}}\''
    body = f'{{"inputs": [{head}, "data": [0] * {prod(tensor.shape)}}}]}}'
    return f"python3 -c 'import json; print(json.dumps({body}))' | curl -s {where} -d @-"


def triton(name: str, exchange: Exchange) -> str:
    """The same with the unmodified tritonclient."""
    (given,), (answer,) = exchange.request.inputs, exchange.response.outputs
    shape, dtype = list(given.shape), NUMPY_DTYPES[given.datatype].name
    return "\n".join(
        [
            "import numpy as np",
            "import tritonclient.http as triton",
            "",
            'with triton.InferenceServerClient("localhost:8080") as client:',
            f"    given = triton.InferInput({json.dumps(given.name)}, {shape}, {json.dumps(given.datatype)})",
            f"    given.set_data_from_numpy(np.zeros({shape}, np.{dtype}))",
            f"    print(client.infer({json.dumps(name)}, [given]).as_numpy({json.dumps(answer.name)}))",
        ]
    )


def data(recipe: Recipe, splits: Splits, report: Report) -> str:
    """Where the examples come from, what was left out, how they were shared out."""
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    sizes = ", ".join(f"{len(part):,} for {name}" for name, part in parts.items())
    kept = "; whole documents, then cut into windows" if splits.test.text else ""
    if splits.test.classes and not splits.test.text:
        kept = "; of each class in proportion"
    facts = [
        f"Source: {words(recipe.data)}.",
        f"Split by seed {recipe.data.seed}{kept}: {sizes}.",
        f"Of the whole data set, sha256 `{splits.sha256}`; of the test set, `{report.evaluation.sha256}`.",
        f"The quantizer was calibrated on {report.calibration.examples:,} of the training examples.",
    ]
    if report.cleaning:
        facts.insert(1, f"Cleaning: {report.cleaning}.")
    return "\n".join(f"- {fact}" for fact in facts)


def training(product: Product) -> str:
    """How it was trained, on what, and for how long."""
    recipe, done = product.recipe, product.training
    rows = [
        ("model", words(recipe.model)),
        ("optimiser", words(recipe.optimiser)),
        ("schedule", words(recipe.schedule)),
        ("batch size", str(recipe.batch_size)),
        ("epochs", f"at most {recipe.epochs}; {words(recipe.early_stopping)}"),
        ("seed", str(done.seed)),
        ("device", f"{done.device}, {done.precision}"),
        ("time", duration(done.wall_s)),
    ]
    return table(("", ""), rows)


def results(report: Report) -> str:
    """Every variant's measured numbers, the served one marked."""
    names = sorted({name for variant in report.variants.values() for name in variant.metrics} - {"loss"})
    rows = [row(precision, variant, names, report) for precision, variant in report.variants.items()]
    return table(("variant", *names, "loss", "kB", "median latency"), rows) + f"\n\nLatency on {report.machine}."


def row(precision: str, variant: Measured, names: Sequence[str], report: Report) -> tuple[str, ...]:
    """One variant's line."""
    said = [shown(name, variant.metrics[name]) if name in variant.metrics else "" for name in names]
    label = f"**{precision}**, served" if precision == report.serve else precision
    return (label, *said, f"{variant.loss:.4g}", f"{variant.bytes / 1000:,.1f}", f"{variant.latency_ms:.3f} ms")


def details(report: Report) -> str:
    """By class, by how far numbers are off, or beside the baseline of a text; empty where there is none of these."""
    found = report.diagnosis
    if report.baseline:
        return f"### Beside an n-gram model\n\n{against(report.baseline, report)}\n"
    if found.classification:
        pictures = "![Confusion matrix](confusion.png)\n\n![Calibration](calibration.png)"
        return f"### By class\n\n{by_class(found.classification)}\n\n{pictures}\n"
    if found.regression:
        rows = [(share, f"{value:+.4g}") for share, value in found.regression.quantiles.items()]
        columns = "share of residuals below", "answer minus truth"
        return f"### Residuals\n\n{table(columns, rows)}\n\n![Answers against the truth](predictions.png)\n"
    return ""


def by_class(found: Classification) -> str:
    """Support, precision, recall and F1 of each class; of very many, the ones with the lowest F1."""
    chosen = list(found.classes)
    note = ""
    if len(chosen) > ROWS:
        chosen = sorted(chosen, key=lambda one: one.f1 or 0.0)[:ROWS]
        note = f"\n\nThe {ROWS} of {len(found.classes):,} classes with the lowest F1."
    rows = [(one.name, f"{one.support:,}", *map(share, (one.precision, one.recall, one.f1))) for one in chosen]
    return table(("class", "test examples", "precision", "recall", "F1"), rows) + note


def limitations(product: Product) -> Iterable[str]:
    """What the numbers above do not show, or show only to those who look closely."""
    report = product.report
    yield (
        f"The test set is a random part of the same data, {report.evaluation.examples:,} examples; on data from "
        "elsewhere expect less."
    )
    if folds := product.folds:
        mean, deviation = shown(folds.metric, folds.mean), shown(folds.metric, folds.sd)
        yield f"Trained anew on {len(folds.values)} folds the recipe gave {folds.metric} {mean}, deviation {deviation}."
    yield from quantized(report)
    if kind := report.diagnosis.classification:
        yield from unsure(kind, report)
        yield from lopsided(kind)
    if report.diagnosis.regression:
        yield from inexact(report.diagnosis.regression)
    if product.training.revision.endswith("-dirty") or product.training.revision == "unknown":
        yield "The code was not exactly that of a commit when the model was trained."


def quantized(report: Report) -> Iterable[str]:
    """What fewer bits cost."""
    known = METRICS[report.metric]
    if report.serve == "fp32":
        yield "It is not quantized: fp32 is served, for the reason above."
    else:
        yield (
            f"Against fp32, {report.serve} loses {known.told(report.points_lost, report.metric)}, of a budget of "
            f"{report.budget:.{known.digits}f}; {likeness(report)}."
        )


def likeness(report: Report) -> str:
    """How alike both variants' answers are."""
    if report.baseline:
        return f"it guesses the same next token in {report.agreement:.2%} of the test set"
    if report.diagnosis.classification:
        return f"it gives the same class to {report.agreement:.2%} of the test examples"
    return f"its outputs are at most {report.max_abs:.3g} apart"


def unsure(found: Classification, report: Report) -> Iterable[str]:
    """How exactly the accuracy is known, and how far confidence can be trusted."""
    low, high = found.accuracy.low, found.accuracy.high
    yield (
        f"So small a test set leaves the accuracy between {low:.1%} and {high:.1%} (Wilson's 95 % interval for "
        f"{found.calibration.accuracy:.2%} of {report.evaluation.examples:,})."
    )
    sure = found.calibration
    mood = "too sure" if sure.confidence > sure.accuracy else "not sure enough"
    yield (
        f"Softmax of the logits is off by {100 * sure.ece:.1f} points on average (expected calibration error); the "
        f"model is {mood}, by {100 * abs(sure.confidence - sure.accuracy):.1f} points in the mean."
    )


def lopsided(found: Classification) -> Iterable[str]:
    """Classes that are rare, never answered, or taken for each other."""
    rare = [one for one in sorted(found.classes, key=lambda one: one.support) if one.support < FEW]
    if rare:
        names = listed([f"{one.name} ({one.support})" for one in rare])
        yield f"Fewer than {FEW} test examples stand behind the figures of {names}."
    if found.collapsed:
        yield f"It never answers {listed(found.collapsed)}, though they occur: these classes have collapsed."
    if found.worst:
        mixed = [f"{one.actual} for {one.taken_for} ({one.count})" for one in found.worst[:3]]
        yield f"It most often takes {', '.join(mixed)}."


def inexact(found: Regression) -> Iterable[str]:
    """How far off numbers are."""
    yield (
        f"Nine of ten answers are {found.quantiles['5%']:+.4g} to {found.quantiles['95%']:+.4g} off, the worst "
        f"{found.largest:.4g}; the truth itself has a standard deviation of {found.spread:.4g}."
    )


def words(options: Options) -> str:
    """A part of a recipe: its kind, then its settings, those that are not set left out."""
    kind, *rest = options.model_dump(mode="json").items()
    said = [f"{key} {json.dumps(value)}".replace('"', "") for key, value in rest if value is not None]
    first = f"{kind[0]} {kind[1]}" if not isinstance(kind[1], str) else kind[1]
    return ", ".join([first, *said])


def share(value: float | None) -> str:
    """A share in percent, a dash where there is none."""
    return "-" if value is None else f"{value:.1%}"


def listed(names: Sequence[str]) -> str:
    """Names in a row, of many the first ones and a count."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in one) + " |" for one in lines
    )
