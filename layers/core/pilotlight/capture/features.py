"""The features of a request and its answer: a few numbers and categories for each example.

    a table           its columns as they are: numbers with NaN for missing, categories with None
    [batch, few]      each number by itself; of more than `MAX_LISTED_NUMBERS`, a summary
    images, tensors   mean, spread, least, most and roughness, and the first two by channel
    tokens            how many, the share of different ones, and how rare they are
    answers           class and score, numbers, or the length of a vector

The training job describes its data with this module too, so that both use the same features. It depends on arrays and
manifests only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pilotlight.contracts.manifest import ManifestDraft, TensorSpec
from pilotlight.contracts.processing import (
    AudioPreprocessing,
    ClassificationPostprocessing,
    ImagePreprocessing,
    RegressionPostprocessing,
    TableColumn,
    TablePreprocessing,
)
from pilotlight.processing import classification, regression, tabular
from pilotlight.runtime.datatypes import Array

MAX_LISTED_NUMBERS = 64  # numbers of an example that are listed one by one
MAX_CHANNELS = 16  # of an image or tensor that are listed one by one, at most
TOKENS_INPUT, MASK_INPUT = "input_ids", "attention_mask"  # a text's feeds


@dataclass(frozen=True)
class Feature:
    """One feature of some examples: `values` is (N,) float64, or object with strings and None.

    `field_names` are the names under which the policy may list it: columns, inputs, outputs.
    """

    field_names: tuple[str, ...]
    name: str
    values: Array


def is_batched(draft: ManifestDraft) -> bool:
    """Return whether the first dimension of every input is the number of examples; not where one carries a state."""
    if isinstance(draft.preprocess, AudioPreprocessing) and draft.preprocess.states:
        return False
    return bool(draft.inputs) and all(spec.v2_shape[:1] == [-1] for spec in draft.inputs)


def extract_request_features(
    draft: ManifestDraft, tensors: Mapping[str, Array], feeds: Mapping[str, Array]
) -> list[Feature]:
    """Extract the features of a request: the caller's tensors if the model takes a table, else the graph's feeds."""
    table = draft.preprocess if isinstance(draft.preprocess, TablePreprocessing) else None
    if table is None:
        return [feature for spec in draft.inputs for feature in describe_input(draft, spec, feeds)]
    sent_names = set(tensors)
    is_by_column = sent_names == {column.name for column in table.columns}
    if is_by_column or sent_names == {table.name} != {table.input}:
        columns = tabular.split_columns(table, tensors)
        return [
            Feature(get_field_names(table, one), one.name, parse_column(one, columns[one.name]))
            for one in table.columns
        ]
    return list(restore_columns(table, feeds[table.input]))


def get_field_names(table: TablePreprocessing, column: TableColumn) -> tuple[str, ...]:
    """Return the names under which a policy may list a column: its own, and those of the whole table."""
    return column.name, table.name, table.input


def parse_column(column: TableColumn, values: Array) -> Array:
    """Parse a column as it was sent, with its missing values."""
    if column.categories:
        texts = [tabular.format_category(value) for value in values.tolist()]
        return np.array([text if text in column.categories else None for text in texts], object)
    return tabular.parse_numbers(column, values) if values.dtype == object else values.astype(np.float64)


def restore_columns(table: TablePreprocessing, rows: Array) -> Iterator[Feature]:
    """Restore the columns from which a table's rows were prepared; imputed values stay as they are."""
    begin = 0
    for column in table.columns:
        part = rows[:, begin : begin + column.width].astype(np.float64)
        begin += column.width
        if column.categories:
            yield Feature(get_field_names(table, column), column.name, decode_categories(column, part))
        else:
            yield Feature(get_field_names(table, column), column.name, part[:, 0] * column.deviation + column.mean)


def decode_categories(column: TableColumn, part: Array) -> Array:
    """Decode categories from their indices or from one-hot columns; None for what is no category."""
    categories = np.array([*column.categories, None], object)
    if column.encoding == "index":
        places = np.nan_to_num(part[:, 0], nan=-1, posinf=-1, neginf=-1).astype(np.int64)
    else:
        places = np.where(part.max(axis=1) > 0, part.argmax(axis=1), -1)
    return np.asarray(categories[np.where((places >= 0) & (places < len(categories) - 1), places, -1)], object)


def ensure_example_axis(draft: ManifestDraft, spec: TensorSpec, values: Array) -> Array:
    """Add an example axis to an input or output that has none; decode the bits of BF16 to float32."""
    if spec.datatype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values if is_batched(draft) else values[None]


def describe_input(draft: ManifestDraft, spec: TensorSpec, feeds: Mapping[str, Array]) -> Iterator[Feature]:
    """Describe one of the graph's inputs; raw texts have no features."""
    values = ensure_example_axis(draft, spec, feeds[spec.name])
    field_names = (spec.name, draft.preprocess.name) if draft.preprocess is not None else (spec.name,)
    if values.dtype == object or (spec.name != TOKENS_INPUT and TOKENS_INPUT in feeds):
        return
    if spec.name == TOKENS_INPUT:
        yield from describe_tokens(field_names, values, feeds.get(MASK_INPUT))
        return
    layout = draft.preprocess.layout if isinstance(draft.preprocess, ImagePreprocessing) else "NCHW"
    yield from describe_numbers(field_names, spec, values, -1 if layout == "NHWC" else 1)


def describe_numbers(field_names: tuple[str, ...], spec: TensorSpec, values: Array, channel: int) -> Iterator[Feature]:
    """Yield each number if there are few, else a summary."""
    flat = values.reshape(len(values), -1)
    if values.ndim <= 2 and flat.shape[1] <= MAX_LISTED_NUMBERS:
        for place in range(flat.shape[1]):
            name = spec.name if flat.shape[1] == 1 else f"{spec.name}[{place}]"
            yield Feature(field_names, name, flat[:, place].astype(np.float64))
        return
    wide = values.astype(np.float64)
    for name, found in summarize_rows(wide.reshape(len(wide), -1)).items():
        yield Feature(field_names, f"{spec.name} {name}", found)
    rough = np.abs(np.diff(wide, axis=-1 if channel == 1 else -2)) if wide.ndim > 2 else np.abs(np.diff(wide))
    yield Feature(field_names, f"{spec.name} roughness", rough.reshape(len(wide), -1).mean(axis=1))
    if wide.ndim == 4 and 1 < wide.shape[channel] <= MAX_CHANNELS:
        yield from describe_channels(field_names, spec, np.moveaxis(wide, channel, 1))


def describe_channels(field_names: tuple[str, ...], spec: TensorSpec, images: Array) -> Iterator[Feature]:
    """Yield mean and spread of each channel of (N, C, H, W)."""
    for place in range(images.shape[1]):
        pixels = images[:, place].reshape(len(images), -1)
        yield Feature(field_names, f"{spec.name} mean[{place}]", pixels.mean(axis=1))
        yield Feature(field_names, f"{spec.name} spread[{place}]", pixels.std(axis=1))


def summarize_rows(values: Array) -> dict[str, Array]:
    """Summarize each row of (N, many) in four numbers."""
    return {
        "mean": values.mean(axis=1),
        "spread": values.std(axis=1),
        "least": values.min(axis=1),
        "most": values.max(axis=1),
    }


def describe_tokens(field_names: tuple[str, ...], tokens: Array, mask: Array | None) -> Iterator[Feature]:
    """Yield the number of tokens, the share of different ones, and their rarity: the mean of ln(1 + id).

    Byte-pair and word-piece tokenizers number tokens roughly in the order of their frequency. Without a mask the tokens
    are a language model's, whose training windows all have the same length: only the rarity is yielded.
    """
    there = np.ones(tokens.shape, bool) if mask is None else mask != 0
    counts = np.maximum(there.sum(axis=1), 1)
    different = [len(np.unique(row[kept])) for row, kept in zip(tokens, there, strict=True)]
    rarity = (np.log1p(np.maximum(tokens, 0)) * there).sum(axis=1) / counts
    yield Feature(field_names, "rarity of tokens", rarity)
    if mask is not None:
        yield Feature(field_names, "tokens", there.sum(axis=1).astype(np.float64))
        yield Feature(field_names, "different tokens", np.array(different, np.float64) / counts)


def extract_answer_features(draft: ManifestDraft, results: Mapping[str, Array]) -> list[Feature]:
    """Extract the features of the answer, from the output that `postprocess` uses, else from the graph's first one."""
    postprocess = draft.postprocess
    name = postprocess.output if postprocess is not None else draft.outputs[0].name
    if name not in results or results[name].dtype == object:
        return []
    values = ensure_example_axis(draft, next(spec for spec in draft.outputs if spec.name == name), results[name])
    if isinstance(postprocess, ClassificationPostprocessing) and values.ndim == 2:
        probabilities = classification.compute_probabilities(postprocess, values, len(draft.labels))
        return describe_classes((name, *postprocess.output_names), draft.labels, probabilities, postprocess.probability)
    if isinstance(postprocess, RegressionPostprocessing):
        values = regression.restore_units(postprocess, values)
    elif postprocess is None and draft.labels and values.shape[1:] == (len(draft.labels),):
        return describe_classes((name,), draft.labels, values, "score")
    field_names = (name, *(postprocess.output_names if postprocess is not None else ()))
    return list(
        describe_outputs(field_names, values, "prediction" if values.ndim == 1 or values.shape[1:] == (1,) else name)
    )


def describe_classes(field_names: tuple[str, ...], labels: Sequence[str], scores: Array, name: str) -> list[Feature]:
    """Return the class with the highest score, and that score."""
    best = scores.argmax(axis=1)
    names = labels if len(labels) == scores.shape[1] else list(map(str, range(scores.shape[1])))
    words = np.array(names, object)[best]
    return [Feature(field_names, "class", words), Feature(field_names, name, scores[np.arange(len(scores)), best])]


def describe_outputs(field_names: tuple[str, ...], values: Array, name: str) -> Iterator[Feature]:
    """Yield numbers as they are if there are few, the length of a vector, or mean and spread of anything larger."""
    wide = values.astype(np.float64)
    flat = wide.reshape(len(wide), -1)
    if wide.ndim <= 2 and flat.shape[1] <= MAX_CHANNELS:
        for place in range(flat.shape[1]):
            yield Feature(field_names, name if flat.shape[1] == 1 else f"{name}[{place}]", flat[:, place])
    elif wide.ndim == 2:
        yield Feature(field_names, f"{name} length", np.linalg.norm(flat, axis=1))
    if flat.shape[1] > MAX_CHANNELS:
        yield Feature(field_names, f"{name} mean", flat.mean(axis=1))
        yield Feature(field_names, f"{name} spread", flat.std(axis=1))
