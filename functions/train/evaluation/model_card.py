"""The model card of a version, `model-card.md`: what it is, how to call it, how good it is, and where it is not.

Every sentence is built from what the run measured; the same artifacts give the same card. The card does not have the
version's number, which is assigned when everything else is written. M. Mitchell and others, Model Cards for Model
Reporting, 2019.
"""

import json
from collections.abc import Iterable, Sequence
from math import prod

from functions.train.data.dataset import Dataset
from functions.train.data.split import Splits
from functions.train.data.split_keys import SETS
from functions.train.evaluation.diagnostics import ClassificationDiagnosis, RegressionDiagnosis
from functions.train.evaluation.markdown_table import format_markdown_table
from functions.train.evaluation.quantization_report import (
    QuantizationReport,
    format_baseline_comparison,
)
from functions.train.evaluation.variant_report import VariantMeasurement
from functions.train.export.artifacts import TrainingArtifacts
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.metric import METRICS, format_value
from pilotlight.recipes.data_schema import Options
from pilotlight.recipes.schema import Recipe
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.golden import GoldenExchange
from pilotlight.training_runs.run_store import format_duration

MAX_INLINE_VALUES = 128  # values that an example request may have to be written out
FEW_EXAMPLES = 30  # test examples of a class, below which its recall is little more than a guess
MAX_NAMES = 10  # classes named in a sentence
MAX_CLASS_ROWS = 100  # classes that get a row of the table

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


def format_model_card(artifacts: TrainingArtifacts) -> str:
    """Format the card as Markdown."""
    recipe, report, test = artifacts.recipe, artifacts.report, artifacts.splits.test
    return TEMPLATE.format(
        name=recipe.name,
        what=describe_trained_model(recipe, artifacts.outputs, test),
        run=artifacts.run_name,
        serve=report.serve,
        signature=format_signature(artifacts),
        scaling=describe_scaling(artifacts),
        curl=format_curl_request(recipe.name, artifacts.golden.exchanges[0]),
        triton=format_triton_request(recipe.name, artifacts.golden.exchanges[0]),
        data=describe_data(recipe, artifacts.splits, report),
        training=describe_training(artifacts),
        examples=f"{report.evaluation.examples:,}",
        results=format_results_table(report),
        verdict=report.verdict,
        parity=f"The graph is within {artifacts.parity.max_abs:.2g} of the trained model.",
        details=format_details(report),
        limitations="\n".join(f"- {fact}" for fact in list_limitations(artifacts)),
        licence=recipe.licence or "None is named in the recipe: ask whoever trained the model before you pass it on.",
        revision=f"revision `{artifacts.training.revision}`",
    )


def describe_trained_model(recipe: Recipe, outputs: Sequence[TensorSpec], test: Dataset) -> str:
    """Describe the model in a sentence."""
    if test.text:
        answer = f"guesses the next of {len(test.classes):,} tokens of a text; it learned from `{recipe.data.name}`."
    elif test.classes:
        names = format_name_list(test.classes)
        answer = f"says which of {len(test.classes)} classes an example of `{recipe.data.name}` is: {names}."
    else:
        answer = f"answers examples of `{recipe.data.name}` with {', '.join(f'`{one.name}`' for one in outputs)}."
    return f"A model ({format_options(recipe.model)}) that {answer}"


def format_signature(artifacts: TrainingArtifacts) -> str:
    """Format the inputs and outputs of the graph."""
    tensors = [("in", one) for one in artifacts.inputs] + [("out", one) for one in artifacts.outputs]
    rows = [(way, f"`{one.name}`", one.datatype, f"`[{', '.join(map(str, one.shape))}]`") for way, one in tensors]
    return format_markdown_table(("", "tensor", "datatype", "shape"), rows)


def describe_scaling(artifacts: TrainingArtifacts) -> str:
    """Describe the scaling that callers need not do themselves."""
    names = artifacts.input_standardization.names if artifacts.input_standardization else ()
    raw = f"Values are sent as they were measured ({format_name_list(names)}): the graph scales them." if names else ""
    if artifacts.splits.test.text:
        return "Tokens are those of `tokenizer.json`. At each, the answer has the logits of the one that follows."
    if artifacts.splits.test.image_steps:
        return (
            "`image` takes a PNG, JPEG or WebP as well (BYTES), turned upright, resized and coloured as in training; "
            "the answer is then `label` and `probability`. To pixels as a tensor the answer is logits."
        )
    if artifacts.splits.test.classes:
        return f"{raw} Answers are logits; the largest is the class, by the order of the manifest's labels.".strip()
    return f"{raw} The answer is in the target's own unit.".strip() if artifacts.output_standardization else raw


def format_curl_request(name: str, exchange: GoldenExchange) -> str:
    """Format a request that works unchanged against `pilotlight serve`."""
    (tensor,) = exchange.request.inputs
    where = f"localhost:8080/v2/models/{name}/infer"
    head = json.dumps({"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}).rstrip("}")
    if len(tensor.data) <= MAX_INLINE_VALUES:
        values = ",".join(str(value) if isinstance(value, int) else f"{value:.7g}" for value in tensor.data)
        return f'curl -s {where} -d \'{{"inputs":[{head},"data":[{values}]}}]}}\''
    body = f'{{"inputs": [{head}, "data": [0] * {prod(tensor.shape)}}}]}}'
    return f"python3 -c 'import json; print(json.dumps({body}))' | curl -s {where} -d @-"


def format_triton_request(name: str, exchange: GoldenExchange) -> str:
    """Format the same request for the unmodified tritonclient."""
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


def describe_data(recipe: Recipe, splits: Splits, report: QuantizationReport) -> str:
    """Describe where the examples come from, what was left out, and how they were split."""
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    sizes = ", ".join(f"{len(part):,} for {name}" for name, part in parts.items())
    facts = [
        f"Source: {format_options(recipe.data)}.",
        f"{describe_split(recipe, splits)}: {sizes}.",
        f"Of the whole data set, sha256 `{splits.sha256}`; of the test set, `{report.evaluation.sha256}`.",
        f"The quantizer was calibrated on {report.calibration.examples:,} of the training examples.",
    ]
    if report.cleaning:
        facts.insert(1, f"Cleaning: {report.cleaning}.")
    facts[1:1] = [f"{note[:1].upper()}{note[1:]}." for note in splits.train.notes]
    return "\n".join(f"- {fact}" for fact in facts)


def describe_split(recipe: Recipe, splits: Splits) -> str:
    """Describe what determined the set of an example; the notes of the data tell of groups, times and files."""
    keys, train = splits.train.keys, splits.train
    if keys.times is not None:
        return "Split by time"
    drawn = f"Split by seed {recipe.data.seed}"
    if train.text:
        return f"{drawn}; whole documents, then cut into windows"
    if keys.groups is not None:
        return f"{drawn}; whole groups"
    if train.passes is not None:
        return f"{drawn}; each example by itself"
    return f"{drawn}; of each class in proportion" if train.classes else drawn


def describe_test_set(splits: Splits, examples: int) -> str:
    """Describe how far the test set is from the data that were learned from."""
    keys = splits.test.keys
    if keys.sets is not None and (keys.sets == SETS.index("test")).any():
        return f"The test set has files of its own, {examples:,} examples; on data from elsewhere expect other numbers."
    if keys.times is not None:
        return (
            f"The test set is the latest part of the same data, {examples:,} examples; the longer ago that is, the "
            "less it says."
        )
    kind = (
        "groups of the same data that were not learned from"
        if keys.groups is not None
        else "a random part of the same data"
    )
    return f"The test set is {kind}, {examples:,} examples; on data from elsewhere expect less."


def describe_training(artifacts: TrainingArtifacts) -> str:
    """Describe how the model was trained, on what, and for how long."""
    recipe, provenance = artifacts.recipe, artifacts.training
    rows = [
        ("model", format_options(recipe.model)),
        ("optimiser", format_options(recipe.optimiser)),
        ("schedule", format_options(recipe.schedule)),
        ("batch size", str(recipe.batch_size)),
        ("epochs", f"at most {recipe.epochs}; {format_options(recipe.early_stopping)}"),
        ("seed", str(provenance.seed)),
        ("device", f"{provenance.device}, {provenance.precision}"),
        ("time", format_duration(provenance.wall_s)),
    ]
    return format_markdown_table(("", ""), rows)


def format_results_table(report: QuantizationReport) -> str:
    """Format every variant's measured numbers, with the served one marked."""
    names = sorted({name for variant in report.variants.values() for name in variant.metrics} - {"loss"})
    rows = [format_variant_row(precision, variant, names, report) for precision, variant in report.variants.items()]
    return (
        format_markdown_table(("variant", *names, "loss", "kB", "median latency"), rows)
        + f"\n\nLatency on {report.machine}."
    )


def format_variant_row(
    precision: str, variant: VariantMeasurement, names: Sequence[str], report: QuantizationReport
) -> tuple[str, ...]:
    """Format one variant's row."""
    values = [format_value(name, variant.metrics[name]) if name in variant.metrics else "" for name in names]
    label = f"**{precision}**, served" if precision == report.serve else precision
    return (label, *values, f"{variant.loss:.4g}", f"{variant.bytes / 1000:,.1f}", f"{variant.latency_ms:.3f} ms")


def format_details(report: QuantizationReport) -> str:
    """Format the results by class, the residuals, or the comparison with a text's baseline; empty without any."""
    diagnosis = report.diagnosis
    if report.baseline:
        return f"### Beside an n-gram model\n\n{format_baseline_comparison(report.baseline, report)}\n"
    if diagnosis.classification:
        pictures = "![Confusion matrix](confusion.png)\n\n![Calibration](calibration.png)"
        return f"### By class\n\n{format_class_table(diagnosis.classification)}\n\n{pictures}\n"
    if diagnosis.regression:
        rows = [(share, f"{value:+.4g}") for share, value in diagnosis.regression.quantiles.items()]
        columns = "share of residuals below", "answer minus truth"
        table = format_markdown_table(columns, rows)
        return f"### Residuals\n\n{table}\n\n![Answers against the truth](predictions.png)\n"
    return ""


def format_class_table(diagnosis: ClassificationDiagnosis) -> str:
    """Format support, precision, recall and F1 of each class; of very many, of the ones with the lowest F1."""
    chosen = list(diagnosis.classes)
    note = ""
    if len(chosen) > MAX_CLASS_ROWS:
        chosen = sorted(chosen, key=lambda one: one.f1 or 0.0)[:MAX_CLASS_ROWS]
        note = f"\n\nThe {MAX_CLASS_ROWS} of {len(diagnosis.classes):,} classes with the lowest F1."
    rows = [(one.name, f"{one.support:,}", *map(format_share, (one.precision, one.recall, one.f1))) for one in chosen]
    return format_markdown_table(("class", "test examples", "precision", "recall", "F1"), rows) + note


def list_limitations(artifacts: TrainingArtifacts) -> Iterable[str]:
    """List what the numbers above do not show, or do not show clearly."""
    report = artifacts.report
    yield describe_test_set(artifacts.splits, report.evaluation.examples)
    if folds := artifacts.folds:
        mean, deviation = format_value(folds.metric, folds.mean), format_value(folds.metric, folds.standard_deviation)
        yield f"Trained anew on {len(folds.values)} folds the recipe gave {folds.metric} {mean}, deviation {deviation}."
    yield from describe_quantization(report)
    if kind := report.diagnosis.classification:
        yield from describe_uncertainty(kind, report)
        yield from describe_class_problems(kind)
    if report.diagnosis.regression:
        yield from describe_residuals(report.diagnosis.regression)
    if artifacts.training.revision.endswith("-dirty") or artifacts.training.revision == "unknown":
        yield "The code was not exactly that of a commit when the model was trained."


def describe_quantization(report: QuantizationReport) -> Iterable[str]:
    """Describe what fewer bits cost."""
    definition = METRICS[report.metric]
    if report.serve == "fp32":
        yield "It is not quantized: fp32 is served, for the reason above."
    else:
        yield (
            f"Against fp32, {report.serve} loses {definition.format_difference(report.points_lost, report.metric)}, "
            "of a budget of "
            f"{report.budget:.{definition.decimals}f}; {describe_agreement(report)}."
        )


def describe_agreement(report: QuantizationReport) -> str:
    """Describe how far both variants' outputs agree."""
    if report.metric == "loss":
        return f"it guesses the same next token in {report.agreement:.2%} of the test set"
    if report.diagnosis.classification:
        return f"it gives the same class to {report.agreement:.2%} of the test examples"
    return f"its outputs are at most {report.max_abs:.3g} apart"


def describe_uncertainty(diagnosis: ClassificationDiagnosis, report: QuantizationReport) -> Iterable[str]:
    """Describe how exactly the accuracy is known, and how far confidence can be trusted."""
    low, high = diagnosis.accuracy.low, diagnosis.accuracy.high
    yield (
        f"So small a test set leaves the accuracy between {low:.1%} and {high:.1%} (Wilson's 95 % interval for "
        f"{diagnosis.calibration.accuracy:.2%} of {report.evaluation.examples:,})."
    )
    calibration = diagnosis.calibration
    mood = "too sure" if calibration.confidence > calibration.accuracy else "not sure enough"
    yield (
        f"Softmax of the logits is off by {100 * calibration.ece:.1f} points on average (expected calibration error); "
        "the "
        f"model is {mood}, by {100 * abs(calibration.confidence - calibration.accuracy):.1f} points in the mean."
    )


def describe_class_problems(diagnosis: ClassificationDiagnosis) -> Iterable[str]:
    """Describe classes that are rare, never predicted, or confused with each other."""
    rare = [one for one in sorted(diagnosis.classes, key=lambda one: one.support) if one.support < FEW_EXAMPLES]
    if rare:
        names = format_name_list([f"{one.name} ({one.support})" for one in rare])
        yield f"Fewer than {FEW_EXAMPLES} test examples stand behind the figures of {names}."
    if diagnosis.collapsed:
        names = format_name_list(diagnosis.collapsed)
        yield f"It never answers {names}, though they occur: these classes have collapsed."
    if diagnosis.worst:
        mixed = [f"{one.actual} for {one.taken_for} ({one.count})" for one in diagnosis.worst[:3]]
        yield f"It most often takes {', '.join(mixed)}."


def describe_residuals(diagnosis: RegressionDiagnosis) -> Iterable[str]:
    """Describe the sizes of the residuals."""
    yield (
        f"Nine of ten answers are {diagnosis.quantiles['5%']:+.4g} to {diagnosis.quantiles['95%']:+.4g} off, the worst "
        f"{diagnosis.largest:.4g}; the truth itself has a standard deviation of {diagnosis.spread:.4g}."
    )


def format_options(options: Options) -> str:
    """Format a part of a recipe: its kind, then its settings, without those that are not set."""
    kind, *rest = options.model_dump(mode="json").items()
    settings = [f"{key} {json.dumps(value)}".replace('"', "") for key, value in rest if value is not None]
    first = f"{kind[0]} {kind[1]}" if not isinstance(kind[1], str) else kind[1]
    return ", ".join([first, *settings])


def format_share(value: float | None) -> str:
    """Format a share in percent, or a dash where there is none."""
    return "-" if value is None else f"{value:.1%}"


def format_name_list(names: Sequence[str]) -> str:
    """Join names with commas; of many, the first ones and a count."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
