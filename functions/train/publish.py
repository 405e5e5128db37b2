"""From the products of a run to a version in the registry: the only module here that writes one."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from functions.train.data import Dataset
from functions.train.export import ends
from functions.train.golden import Golden
from functions.train.recipe import Recipe, dump
from functions.train.report import Report
from pilotlight.contracts import (
    Draft,
    Evaluation,
    Manifest,
    Parity,
    Precision,
    Scaling,
    TensorSpec,
    Training,
    Variant,
    encode,
)
from pilotlight.registry import Content, Registry


@dataclass(frozen=True, kw_only=True)
class Product:
    """Everything that a run made and measured."""

    recipe: Recipe
    run: str  # its folder below runs/ in the store
    graphs: dict[Precision, Path]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    parity: Parity
    report: Report
    golden: Golden
    test: Dataset
    curves: bytes
    training: Training
    preprocessing: Scaling | None
    postprocessing: Scaling | None


def publish(product: Product, registry: Registry) -> Manifest:
    """Make the product the model's next version."""
    return registry.publish(draft(product), files(product))


def draft(product: Product) -> Draft:
    """What the manifest says of the product."""
    return Draft(
        name=product.recipe.name,
        inputs=product.inputs,
        outputs=product.outputs,
        labels=() if product.test.text else product.test.classes,  # tokens are told by the tokenizer
        variants={precision: variant(product, precision) for precision in product.graphs},
        serve=product.report.serve,
        metric=product.report.metric,
        preprocessing=product.preprocessing,
        postprocessing=product.postprocessing,
        opset=product.opset,
        evaluation=Evaluation(product.test.sha256, len(product.test)),
        parity=product.parity,
        report="report.json",
        golden="golden.json",
        tokenizer="tokenizer.json" if product.test.text else None,
        training=product.training,
        licence=product.recipe.licence,
        by=f"runs/{product.run}",
    )


def variant(product: Product, precision: Precision) -> Variant:
    """A variant's graph and its measured numbers."""
    measured = product.report.variants[precision]
    metrics = measured.metrics | {"loss": measured.loss, "latency_ms": measured.latency_ms}
    return Variant(product.graphs[precision].name, metrics)


def files(product: Product) -> dict[str, Content]:
    """The files of the version."""
    made: dict[str, Content] = {path.name: path for path in product.graphs.values()}
    if text := product.test.text:
        made["tokenizer.json"] = text.tokenizer.document.encode()
    return made | {
        "report.json": encode(product.report),
        "golden.json": encode(product.golden),
        "evaluation.npz": archive(product.test),
        "curves.png": product.curves,
        "recipe.yaml": dump(product.recipe).encode(),
    }


def archive(test: Dataset) -> bytes:
    """The test set as npz, raw; nothing in it is pickled.

    Images are `image` float32 (N, C, H, W) with `label` int64 (N,); a table is `features` float32 (N, columns) with
    `target`, int64 (N,) for classes and float32 (N, 1) for numbers; a text is `input_ids` and `target` int64 (N, T).
    """
    target = io.BytesIO()
    (given, _), answer = ends(test), "label" if test.inputs.ndim == 4 else "target"
    np.savez_compressed(target, allow_pickle=False, **{given: test.inputs, answer: test.targets})
    return target.getvalue()
