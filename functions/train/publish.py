"""From the artifacts of a run to a version in the registry: the only module here that writes one."""

import os
import subprocess
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from msgspec import structs

from functions.train import feature_profile
from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.pixels import iterate_chunks
from functions.train.evaluation import model_card
from functions.train.export.artifacts import TrainingArtifacts
from functions.train.export.onnx_export import get_tensor_names
from functions.train.models.custom import FACTORY_FILE
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import Manifest, ManifestDraft, Precision, Task, Variant
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    ImagePreprocessing,
    TableColumn,
    TablePreprocessing,
)
from pilotlight.contracts.version_files import FileContent
from pilotlight.drift import training_profile
from pilotlight.recipes.data_schema import UnknownCategory, UserDataOptions
from pilotlight.recipes.schema import dump_recipe
from pilotlight.registry.registry import Registry
from pilotlight.runtime import graph_optimization
from pilotlight.runtime.cost_measurement import measure_request_cost
from pilotlight.runtime.onnx_graph import read_onnx_graph
from pilotlight.runtime.output_activation import find_activation

EVALUATION_FILE = "evaluation.npz"
TASKS: Mapping[type, Task] = {TablePreprocessing: "tabular", ImagePreprocessing: "image", type(None): "tensor"}


def publish_artifacts(artifacts: TrainingArtifacts, registry: Registry) -> Manifest:
    """Publish the artifacts as the model's next version; the served graph is optimized to open fast."""
    graph = artifacts.graphs[artifacts.report.serve]
    with TemporaryDirectory(dir=graph.parent) as folder:
        served, extra = graph_optimization.build_variant(graph, graph.name, Path(folder))
        draft = build_draft(artifacts, served)
        profile_document = training_profile.encode_profile(
            feature_profile.profile_splits(draft, artifacts.splits, graph)
        )
        return registry.publish_version(
            draft, collect_files(artifacts, Path(folder)) | extra | {training_profile.PROFILE_FILE: profile_document}
        )


def build_draft(artifacts: TrainingArtifacts, served: Variant) -> ManifestDraft:
    """Build the manifest's draft from the artifacts."""
    steps, text = build_input_steps(artifacts), artifacts.splits.test.text
    classes = () if text else artifacts.splits.test.classes  # the tokenizer has the tokens
    return ManifestDraft(
        name=artifacts.recipe.name,
        task=TASKS[type(steps)],
        inputs=artifacts.inputs,
        outputs=artifacts.outputs,
        preprocess=steps,
        postprocess=build_finish(artifacts) if steps is not None and classes else None,
        labels=classes,
        variants={precision: build_manifest_variant(artifacts, precision, served) for precision in artifacts.graphs},
        serve=artifacts.report.serve,
        metric=artifacts.report.metric,
        budget=artifacts.report.budget,
        input_standardization=artifacts.input_standardization,
        output_standardization=artifacts.output_standardization,
        opset=artifacts.opset,
        evaluation=artifacts.report.evaluation,
        parity=artifacts.parity,
        report="report.json",
        golden="golden.json",
        request_cost=measure_request_cost(artifacts.graphs[artifacts.report.serve], artifacts.golden),
        tokenizer="tokenizer.json" if text else None,
        profile=training_profile.PROFILE_FILE,
        capture=artifacts.recipe.capture.policy if artifacts.recipe.capture else None,
        training=artifacts.training,
        licence=artifacts.recipe.licence,
        by=f"runs/{artifacts.run_name}",
    )


def build_finish(artifacts: TrainingArtifacts) -> ClassificationPostprocessing:
    """Build what comes after the graph: a model of the user's own may give probabilities instead of scores."""
    output = artifacts.outputs[0].name
    found = find_activation(read_onnx_graph(artifacts.graphs["fp32"]), output)
    return ClassificationPostprocessing(output=output, activation=found.activation if found else "softmax")


def build_input_steps(artifacts: TrainingArtifacts) -> TablePreprocessing | ImagePreprocessing | None:
    """Build what comes before the graph: columns by name, or photos as they were trained on; arrays have none.

    The values stay unscaled, since the graph scales.
    """
    train = artifacts.splits.train
    if train.image_steps is not None:
        return structs.replace(train.image_steps, input=artifacts.inputs[0].name)
    if train.text or train.inputs.ndim != 2:
        return None
    data = artifacts.recipe.data
    unknown = data.unknown if isinstance(data, UserDataOptions) else "missing"
    return TablePreprocessing(input=artifacts.inputs[0].name, columns=build_columns(train, unknown))


def build_columns(train: Dataset, unknown: UnknownCategory = "missing") -> tuple[TableColumn, ...]:
    """Build the columns that a caller sends: numbers, and categories as words, whose index the graph takes.

    The graph fills a missing number; a missing category is replaced by the most frequent one. An unknown category is
    treated as a missing one, or is none of the graph's categories where no value may be missing.
    """
    fill = train.statistics.fill_values
    fill_values = [None] * len(train.features) if fill is None else fill.tolist()
    categories = train.categories or ((),) * len(train.features)
    return tuple(
        TableColumn(
            name=name,
            categories=words,
            encoding="index" if words else "onehot",
            missing=get_missing_value(words, value),
            unknown=choose_unknown_treatment(words, value, unknown),
        )
        for name, words, value in zip(train.features, categories, fill_values, strict=True)
    )


def choose_unknown_treatment(categories: Sequence[str], fill: float | None, wanted: UnknownCategory) -> UnknownCategory:
    """Choose what a column's manifest records for unknown categories: zeros where there is no fill for gaps."""
    if not categories:
        return "missing"
    return "zeros" if wanted == "missing" and fill is None else wanted


def get_missing_value(categories: Sequence[str], fill: float | None) -> str | None:
    """Return what a column's manifest records for missing values."""
    if fill is None:
        return None
    return categories[int(fill)] if categories else "nan"


def build_manifest_variant(artifacts: TrainingArtifacts, precision: Precision, served: Variant) -> Variant:
    """Build a variant with its files and its measured numbers."""
    measurement = artifacts.report.variants[precision]
    metrics = measurement.metrics | {"loss": measurement.loss, "latency_ms": measurement.latency_ms}
    if precision == artifacts.report.serve:
        return structs.replace(served, metrics=metrics)
    return Variant(artifacts.graphs[precision].name, metrics)


def collect_files(artifacts: TrainingArtifacts, folder: Path) -> dict[str, FileContent]:
    """Collect the files of the version; the test set is written into `folder`."""
    contents: dict[str, FileContent] = {path.name: path for path in artifacts.graphs.values()}
    if artifacts.source is not None:
        contents[FACTORY_FILE] = artifacts.source.encode()
    if text := artifacts.splits.test.text:
        contents["tokenizer.json"] = text.tokenizer.json_document.encode()
    return (
        contents
        | artifacts.plots
        | {
            "model-card.md": model_card.format_model_card(artifacts).encode(),
            "report.json": encode_document(artifacts.report),
            "golden.json": encode_document(artifacts.golden),
            EVALUATION_FILE: write_test_set(artifacts.splits.test, folder / EVALUATION_FILE),
            "recipe.yaml": dump_recipe(artifacts.recipe).encode(),
        }
    )


def write_test_set(test: Dataset, path: Path) -> Path:
    """Write the test set as npz, raw, images some at a time; nothing in it is pickled.

    Images are `image` float32 (N, C, H, W) with `label` int64 (N,); a table is `features` float32 (N, columns) with
    `target`, int64 (N,) for classes and float32 (N, 1) for numbers; a text is `input_ids` and `target` int64 (N, T).
    """
    (given, _), answer = get_tensor_names(test), "label" if test.inputs.ndim == 4 else "target"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        write_array(archive, given, test.inputs.shape, test.inputs.dtype, iterate_chunks(test.inputs))
        write_array(archive, answer, test.targets.shape, test.targets.dtype, iter([test.targets]))
    return path


def write_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunks: Iterator[Array]
) -> None:
    """Write an array that comes in parts as a member of an npz, as numpy does."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    entry = zipfile.ZipInfo(f"{name}.npy")
    entry.compress_type = archive.compression
    with archive.open(entry, "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for chunk in chunks:
            member.write(np.ascontiguousarray(chunk, dtype).data)


def get_code_revision() -> str:
    """Return the git commit of this code, with `-dirty` when tracked files differ from it.

    The image has no repository, and takes it from the build's argument REVISION. `unknown` without either.
    """
    configured = os.environ.get("PILOTLIGHT_REVISION", "")
    return configured or describe_git_commit(Path(__file__).parent) or "unknown"


def describe_git_commit(folder: Path) -> str:
    """Describe the commit that a folder is at by `git describe`; empty without git or a repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
