"""From the products of a run to a version in the registry: the only module here that writes one."""

import io
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import structs

from functions.train import feature_profile
from functions.train.data.dataset import Dataset
from functions.train.evaluation import model_card
from functions.train.export.artifacts import Product
from functions.train.export.onnx_export import ends
from functions.train.models.custom import FILE
from pilotlight.contracts.manifest import Draft, Manifest, Precision, Variant, encode
from pilotlight.contracts.processing import Classification, Column, Table
from pilotlight.drift import training_profile
from pilotlight.recipes.schema import dump
from pilotlight.registry.registry import Content, Registry
from pilotlight.runtime import graph_optimization


def publish(product: Product, registry: Registry) -> Manifest:
    """Make the product the model's next version; the graph that is served is made ready to open fast."""
    graph = product.graphs[product.report.serve]
    with TemporaryDirectory(dir=graph.parent) as folder:
        served, extra = graph_optimization.variant(graph, graph.name, Path(folder))
        described = draft(product, served)
        seen = training_profile.document(feature_profile.profiled(described, product.splits, graph))
        return registry.publish(described, files(product) | extra | {training_profile.FILE: seen})


def draft(product: Product, served: Variant) -> Draft:
    """What the manifest says of the product."""
    table, text = steps(product), product.splits.test.text
    classes = () if text else product.splits.test.classes  # tokens are told by the tokenizer
    return Draft(
        name=product.recipe.name,
        task="tabular" if table is not None else "tensor",
        inputs=product.inputs,
        outputs=product.outputs,
        prepare=table,
        finish=Classification(output=product.outputs[0].name) if table is not None and classes else None,
        labels=classes,
        variants={precision: variant(product, precision, served) for precision in product.graphs},
        serve=product.report.serve,
        metric=product.report.metric,
        budget=product.report.budget,
        preprocessing=product.preprocessing,
        postprocessing=product.postprocessing,
        opset=product.opset,
        evaluation=product.report.evaluation,
        parity=product.parity,
        report="report.json",
        golden="golden.json",
        tokenizer="tokenizer.json" if text else None,
        profile=training_profile.FILE,
        capture=product.recipe.capture.policy if product.recipe.capture else None,
        training=product.training,
        licence=product.recipe.licence,
        by=f"runs/{product.run}",
    )


def steps(product: Product) -> Table | None:
    """A table's columns by their names, unscaled, since the graph scales them; images and tokens stay tensors."""
    train = product.splits.train
    if train.text or train.inputs.ndim != 2:
        return None
    return Table(input=product.inputs[0].name, columns=columns(train))


def columns(train: Dataset) -> tuple[Column, ...]:
    """What a caller sends: numbers, and categories as words, of which the graph takes the index.

    A missing number is left to the graph, which fills it; for a missing category its most frequent one stands in.
    """
    fill = train.profile.fill
    stands = [None] * len(train.features) if fill is None else fill.tolist()
    known = train.categories or ((),) * len(train.features)
    return tuple(
        Column(name=name, categories=words, encoding="index" if words else "onehot", missing=missing(words, value))
        for name, words, value in zip(train.features, known, stands, strict=True)
    )


def missing(categories: Sequence[str], fill: float | None) -> str | None:
    """What a column's manifest says of missing values."""
    if fill is None:
        return None
    return categories[int(fill)] if categories else "nan"


def variant(product: Product, precision: Precision, served: Variant) -> Variant:
    """A variant's files and its measured numbers."""
    measured = product.report.variants[precision]
    metrics = measured.metrics | {"loss": measured.loss, "latency_ms": measured.latency_ms}
    if precision == product.report.serve:
        return structs.replace(served, metrics=metrics)
    return Variant(product.graphs[precision].name, metrics)


def files(product: Product) -> dict[str, Content]:
    """The files of the version."""
    known: dict[str, Content] = {path.name: path for path in product.graphs.values()}
    if product.source is not None:
        known[FILE] = product.source.encode()
    if text := product.splits.test.text:
        known["tokenizer.json"] = text.tokenizer.document.encode()
    return (
        known
        | product.pictures
        | {
            "model-card.md": model_card.write(product).encode(),
            "report.json": encode(product.report),
            "golden.json": encode(product.golden),
            "evaluation.npz": archive(product.splits.test),
            "recipe.yaml": dump(product.recipe).encode(),
        }
    )


def archive(test: Dataset) -> bytes:
    """The test set as npz, raw; nothing in it is pickled.

    Images are `image` float32 (N, C, H, W) with `label` int64 (N,); a table is `features` float32 (N, columns) with
    `target`, int64 (N,) for classes and float32 (N, 1) for numbers; a text is `input_ids` and `target` int64 (N, T).
    """
    target = io.BytesIO()
    (given, _), answer = ends(test), "label" if test.inputs.ndim == 4 else "target"
    np.savez_compressed(target, allow_pickle=False, **{given: test.inputs, answer: test.targets})
    return target.getvalue()
