"""MLflow's scoring protocol: how a body of `/invocations` is decoded to a model's inputs, and its answer encoded.

This module depends on manifests and arrays, not on stores or sessions. A body has rows (`dataframe_split`,
`dataframe_records`, `instances`, CSV) or whole tensors (`inputs`). Columns with the names of the model's inputs are
those inputs; any other columns are the features of its only input, in their order.

Source: mlflow/pyfunc/scoring_server of mlflow/mlflow.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pilotlight.api import compression, csv_table, v2, v2_json, v2_tensors, written_numbers
from pilotlight.api.http import Response, is_sendable
from pilotlight.api.request_limits import (
    CSV_COST,
    UNLIMITED,
    UNTYPED_COST,
    WEIGHED_BYTES,
    RequestLimits,
    pause_garbage_collection,
)
from pilotlight.api.text_encoding import convert_to_utf8
from pilotlight.contracts.manifest import Datatype, Manifest, TensorSpec
from pilotlight.contracts.processing import TablePreprocessing
from pilotlight.errors import InvalidInputError, TooLargeError, UnsupportedTypeError
from pilotlight.processing.signature import SignatureInput, list_signatures
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

BODY_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
LANGUAGE_MODEL_FIELDS = ("messages", "prompt", "input")  # of bodies for language models, which another function answers
MEDIA_TYPES = ("application/json", "text/csv")
# Other names of them, in old programs and in the suffixes of RFC 6839: application/vnd.api+json.
JSON_NAMES, CSV_NAMES = frozenset({"text/json", "text/x-json", "application/x-json"}), frozenset({"application/csv"})
MODEL_HEADER = "x-pilotlight-model"  # the requested model in a request; model and version in an answer
ColumnValues = Mapping[str, Sequence[Any]]


class DataFrameSplit(Struct):
    """A data frame as pandas writes it in the orientation `split`; the index is ignored."""

    data: list[list[Any]]
    columns: list[str | int | float] | None = None


SPLIT_DECODER = msgspec.json.Decoder(DataFrameSplit)
RECORDS_DECODER = msgspec.json.Decoder(list[dict[str, Any]])
INSTANCES_DECODER = msgspec.json.Decoder(Annotated[list[Any], Meta(min_length=1)])
INPUTS_DECODER = msgspec.json.Decoder(dict[str, Any] | list[Any] | bool | float | str)
EXACT_DECODER = msgspec.json.Decoder(float_hook=written_numbers.keep_digits)
BODY_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_request(
    body: bytes, headers: Mapping[str, str], manifest: Manifest, limits: RequestLimits = UNLIMITED
) -> dict[str, Array]:
    """Decode a body to arrays by input name.

    Raises `InvalidInputError` for a body that does not fit the model, `TooLargeError` for one that decodes to more than
    the `limits`, `UnsupportedTypeError` for another media type.
    """
    kind = parse_content_type(headers.get("content-type", ""))
    body = convert_to_utf8(v2.decompress_within_limits(body, headers, limits), headers.get("content-type", ""))
    limits.check_text(body, CSV_COST if kind == "text/csv" else UNTYPED_COST)
    if len(body) <= WEIGHED_BYTES:
        return decode_text(body, kind, manifest)
    with pause_garbage_collection():
        return decode_text(body, kind, manifest)


def decode_text(body: bytes, kind: str, manifest: Manifest) -> dict[str, Array]:
    """Decode a body of the media type `kind`: CSV, or JSON in any of its forms."""
    if kind == "text/csv":
        return tensors_from_columns(parse_csv(body), manifest, is_text=True)
    body_format, raw = find_body_format(body)
    data = bytes(raw)
    try:
        try:
            return READERS[body_format](data, manifest)
        except InexactNumberError:
            if len(data) > written_numbers.MAX_EXACT_BYTES:
                raise
            return READERS[body_format](msgspec.json.encode(EXACT_DECODER.decode(data)), manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"{body_format!r} does not read: {exc}.") from exc


def encode_response(manifest: Manifest, results: Mapping[str, Array], accept_encoding: str = "") -> Response:
    """Encode the predictions: the rows of a single output, or each output by name; NaN and infinities become null."""
    kinds = {
        spec.name: spec.datatype for way in list_signatures(manifest) for spec in (*way.outputs, *way.extra_outputs)
    }
    lists = {name: to_nested_list(array, kinds[name]) for name, array in results.items()}
    predictions = next(iter(lists.values())) if len(lists) == 1 else list_rows(manifest, lists) or lists
    response = Response.json({"predictions": predictions}, 200, **{MODEL_HEADER: f"{manifest.name}:{manifest.version}"})
    body, encoding = compression.compress_body(response.body, accept_encoding)
    if not is_sendable(body, binary=encoding is not None):
        raise TooLargeError(
            f"The predictions have {len(response.body):,} bytes, more than Lambda sends; ask for fewer rows at once, "
            "or by POST /v1/batches."
        )
    if encoding is None:
        return response
    return Response(200, body, {**response.headers, "content-encoding": encoding}, binary=True)


def list_rows(manifest: Manifest, lists: Mapping[str, Any]) -> list[Any]:
    """List what an image has in a row of its own, without padding; return nothing for other finishes.

    Objects are a list of {label, score, box} each, several labels of {label, probability}; a mask has its classes
    beside it.
    """
    steps = manifest.postprocess
    count: str = getattr(steps, "count", "")  # only of finishes whose lists differ in length
    if steps is None or count not in steps.output_names or count not in lists:
        return []
    single = [name for name in lists if name == getattr(steps, "mask", None)]
    names = [name for name in lists if name not in (count, *single)]
    rows = []
    for place, number in enumerate(lists[count]):
        columns = [lists[name][place][:number] for name in names]
        rows.append([dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)])
    if not single:
        return rows
    return [{single[0]: lists[single[0]][place], "classes": row} for place, row in enumerate(rows)]


def is_text_type(content_type: str) -> bool:
    """Return whether a body is one of the protocol's own, JSON or CSV; JSON by default."""
    return find_text_type(content_type) is not None


def parse_content_type(content_type: str) -> str:
    """Parse the body's media type, JSON by default, to one of `MEDIA_TYPES`."""
    kind = find_text_type(content_type)
    if kind is None:
        raise UnsupportedTypeError(
            f"Content-Type {content_type[:100]!r} is not served under /invocations; use {' or '.join(MEDIA_TYPES)}."
        )
    return kind


def find_text_type(content_type: str) -> str | None:
    """Find which of `MEDIA_TYPES` a `Content-Type` is by any of its names; None if it is neither."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("", *MEDIA_TYPES):
        return kind or MEDIA_TYPES[0]
    if kind in JSON_NAMES or (kind.startswith("application/") and kind.endswith("+json")):
        return MEDIA_TYPES[0]
    return MEDIA_TYPES[1] if kind in CSV_NAMES else None


def find_body_format(body: bytes) -> tuple[str, msgspec.Raw]:
    """Find which form the body has; return the form and its undecoded data."""
    try:
        content = decode_fields(body)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The body is not an object with one of {', '.join(BODY_FORMATS)}: {exc}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"The body is not JSON (which has no Infinity): {exc}.") from exc
    formats = [form for form in BODY_FORMATS if form in content]
    if not formats and any(word in content for word in LANGUAGE_MODEL_FIELDS):
        raise InvalidInputError("/invocations takes tensors and tables; language models answer under /v1.")
    if len(formats) != 1:
        has = f"has {' and '.join(formats)}" if formats else f"has {sorted(content) or 'nothing'}"
        raise InvalidInputError(f"The body must have exactly one of {', '.join(BODY_FORMATS)}; it {has}.")
    return formats[0], content[formats[0]]


def decode_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """Decode the fields of the body; NaN, which MLflow's client writes for an empty cell, becomes null."""
    try:
        return BODY_DECODER.decode(body)
    except msgspec.DecodeError:
        replaced = v2_json.replace_nan_with_null(body)
        if replaced is None:
            raise
    return BODY_DECODER.decode(replaced)


def decode_split_body(data: bytes, manifest: Manifest) -> dict[str, Array]:
    """Decode `dataframe_split`: column names beside rows."""
    frame = SPLIT_DECODER.decode(data)
    width = len(frame.data[0]) if frame.data else 0
    names = [str(name) for name in (frame.columns if frame.columns is not None else range(width))]
    return tensors_from_columns(columns_from_rows(names, frame.data), manifest)


def decode_records_body(data: bytes, manifest: Manifest) -> dict[str, Array]:
    """Decode `dataframe_records`: one object for each row."""
    return tensors_from_columns(columns_from_records(RECORDS_DECODER.decode(data)), manifest)


def decode_instances_body(data: bytes, manifest: Manifest) -> dict[str, Array]:
    """Decode `instances`: rows, as objects or as values of the only input."""
    rows = INSTANCES_DECODER.decode(data)
    return (
        tensors_from_columns(columns_from_records(rows), manifest)
        if isinstance(rows[0], dict)
        else tensors_from_values(rows, manifest)
    )


def decode_inputs_body(data: bytes, manifest: Manifest) -> dict[str, Array]:
    """Decode `inputs`: whole tensors by name, or the tensor of the only input, which may be a single value."""
    content = INPUTS_DECODER.decode(data)
    if isinstance(content, dict):
        return tensors_from_columns({name: to_list(value) for name, value in content.items()}, manifest)
    return (
        tensors_from_columns(columns_from_records(content), manifest)
        if isinstance(content, list) and content and isinstance(content[0], dict)
        else tensors_from_values(to_list(content), manifest)
    )


READERS: Mapping[str, Callable[[bytes, Manifest], dict[str, Array]]] = {
    "dataframe_split": decode_split_body,
    "dataframe_records": decode_records_body,
    "instances": decode_instances_body,
    "inputs": decode_inputs_body,
}


def parse_csv(body: bytes) -> ColumnValues:
    """Parse CSV with a header to columns of texts."""
    names, rows = csv_table.parse_table(body)
    return columns_from_rows(names, rows)


def columns_from_rows(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> ColumnValues:
    """Convert rows to columns by name; raise `InvalidInputError` for rows of another length and for duplicate names."""
    if len(set(names)) != len(names):
        raise InvalidInputError(f"The columns {list(names)} name one twice.")
    wrong_index = next((place for place, row in enumerate(rows) if len(row) != len(names)), None)
    if wrong_index is not None:
        raise InvalidInputError(
            f"Row {wrong_index} has {len(rows[wrong_index])} values, but there are {len(names)} columns."
        )
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def columns_from_records(rows: Sequence[Any]) -> ColumnValues:
    """Convert records to columns by name; a field that a record lacks is null, as pandas writes and reads it."""
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInputError(f"Row {place} is {row!r}, but the first row is an object.")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def tensors_from_columns(table: ColumnValues, manifest: Manifest, *, is_text: bool = False) -> dict[str, Array]:
    """Build tensors from columns with the names of the inputs, else from all columns as features of the only input.

    If they come from a format that `is_text` alone, words in a column of numbers are parsed.
    """
    candidates = list_signatures(manifest)
    if is_text and "" in table:
        table = drop_unnamed_column(table, manifest)
    for signature in candidates:
        if set(signature.input_names) == set(table):
            return {
                given.spec.name: build_tensor(table[given.spec.name], given, is_text=is_text)
                for given in signature.inputs
            }
    names, only = candidates[0].input_names, candidates[-1].inputs[0] if len(candidates[-1].inputs) == 1 else None
    if only is None or only.spec.name in table or not table or isinstance(manifest.preprocess, TablePreprocessing):
        raise InvalidInputError(f"{manifest.name} has the inputs {names}; the body has {list(table)}.")
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"The columns differ in length: {lengths}.")
    if is_text:
        refuse_numeric_names(list(table), manifest)
    ordered = [table[name] for name in order_features(list(table), manifest)]
    return {only.spec.name: build_tensor([list(row) for row in zip(*ordered, strict=True)], only, is_text=is_text)}


def drop_unnamed_column(table: ColumnValues, manifest: Manifest) -> ColumnValues:
    """Drop the column without a name of a CSV, unless the model has room for it.

    It is the row names of R's write.csv, the index of pandas' to_csv, or empty, behind a comma at the end of each line.
    """
    rest = {name: column for name, column in table.items() if name}
    inputs = list_signatures(manifest)[-1].inputs
    width = inputs[0].spec.v2_shape[-1] if len(inputs) == 1 and len(inputs[0].spec.shape) > 1 else -1
    trained_names = manifest.input_standardization.names if manifest.input_standardization is not None else ()
    is_known = any(
        set(names) == set(rest) for names in (*(way.input_names for way in list_signatures(manifest)), trained_names)
    )
    is_index = next(iter(table)) == "" or not any(table[""])
    return rest if rest and (is_known or (is_index and width != len(table))) else table


def refuse_numeric_names(names: list[str], manifest: Manifest) -> None:
    """Refuse the names of a CSV's columns if they are a record of numbers, which would be lost without a word.

    pandas names the columns of an array 0, 1, 2 and so on; a model may know names that are numbers.
    """
    if manifest.input_standardization is not None and set(manifest.input_standardization.names) == set(names):
        return
    is_record = all(re.fullmatch(written_numbers.NUMBER, name.strip()) for name in names)
    if is_record and names != [str(place) for place in range(len(names))]:
        raise InvalidInputError(
            f"The first line of the CSV is numbers, {','.join(names)[:80]}; it has to name the columns: put a line of "
            "names before it."
        )


def order_features(names: list[str], manifest: Manifest) -> list[str]:
    """Order columns as the model was trained on them, if the manifest has their names; else leave their order."""
    trained_names = list(manifest.input_standardization.names) if manifest.input_standardization is not None else []
    if set(trained_names) & set(names) and set(trained_names) != set(names):
        missing, extra = sorted(set(trained_names) - set(names)), sorted(set(names) - set(trained_names))
        raise InvalidInputError(
            f"{manifest.name} takes the columns {trained_names}; missing {missing}, not known {extra}."
        )
    return trained_names if trained_names and set(trained_names) == set(names) else names


def tensors_from_values(values: list[Any], manifest: Manifest) -> dict[str, Array]:
    """Build the only input from values without a name: texts, images in base64, rows of a table, or a graph's input."""
    model_input = next((way.inputs[0] for way in list_signatures(manifest) if len(way.inputs) == 1), None)
    if model_input is None:
        names = [spec.name for spec in manifest.inputs]
        raise InvalidInputError(f"{manifest.name} has the inputs {names}; give values by those names.")
    return {model_input.spec.name: build_tensor(values, model_input)}


def to_list(value: object) -> list[Any]:
    """Return a tensor's nested list; a single value becomes a list of one."""
    return value if isinstance(value, list) else [value]


class InexactNumberError(InvalidInputError):
    """A whole number was read as a float that may be another one."""


def build_tensor(values: Sequence[Any], model_input: SignatureInput, *, is_text: bool = False) -> Array:
    """Build an input's array from nested values; flat rows of the right length get the model's dimensions."""
    spec = model_input.spec
    if spec.datatype == "BF16":
        raise InvalidInputError(f"Input {spec.name!r} is BF16, which only V2's binary tensors carry.")
    depth, probe = 1, values
    while len(probe) and isinstance(probe[0], list):
        depth, probe = depth + 1, probe[0]
    kind: Any = get_cell_type(model_input)
    for _ in range(depth):
        kind = list[kind]
    try:
        if is_text and NUMPY_DTYPES[spec.datatype].kind in "iu" and written_numbers.has_points_or_exponents(values):
            return reshape_rows(convert_cells(values, model_input, "", is_text=True), spec)  # exactly, unlike msgspec
        checked = msgspec.convert(parse_cells(values, model_input) if is_text else values, kind, strict=not is_text)
    except msgspec.ValidationError as exc:
        return reshape_rows(convert_cells(values, model_input, str(exc), is_text=is_text), spec)
    return reshape_rows(v2_tensors.to_array(checked, spec.name, spec.datatype, nullable=True), spec)


def convert_cells(values: Sequence[Any], model_input: SignatureInput, reason: str, *, is_text: bool) -> Array:
    """Convert cells that are not written as the datatype is; the `reason` is why, for the error."""
    spec = model_input.spec
    try:
        return written_numbers.convert_cells(values, spec.datatype, nullable=model_input.nullable, is_text=is_text)
    except written_numbers.InexactCellError as exc:
        raise InexactNumberError(f"Input {spec.name!r} is not {spec.datatype}: {exc}.") from exc
    except written_numbers.CellError as exc:
        raise InvalidInputError(
            f"Input {spec.name!r} is not {spec.datatype}: {f'{reason}; ' if reason else ''}{exc}."
        ) from exc


def get_cell_type(model_input: SignatureInput) -> Any:  # noqa: ANN401 - a type, or an annotated one
    """Return the type of an input's cell; floats may be None, a missing number, and some inputs take a missing text."""
    kind = v2_tensors.get_element_type(model_input.spec.datatype)
    nullable_kinds = "fO" if model_input.nullable else "f"
    return kind | None if NUMPY_DTYPES[model_input.spec.datatype].kind in nullable_kinds else kind


def parse_cells(values: Sequence[Any], model_input: SignatureInput) -> list[Any]:
    """Parse cells of a CSV: numbers are missing if they are in `MISSING_WORDS`; texts, if empty and `nullable`."""
    if model_input.spec.datatype != "BYTES":
        return [
            parse_cells(value, model_input) if isinstance(value, list) else parse_number_cell(value.strip())
            for value in values
        ]
    empty = None if model_input.nullable else ""
    return [parse_cells(value, model_input) if isinstance(value, list) else value or empty for value in values]


def parse_number_cell(cell: str) -> str | None:
    """Return a number's cell, None if it is missing."""
    return None if cell in written_numbers.MISSING_WORDS else cell


def reshape_rows(array: Array, spec: TensorSpec) -> Array:
    """Reshape rows of the right length to the model's dimensions; the model's check refuses others."""
    if not spec.shape and array.size == 1:
        return array.reshape(())
    inner = spec.v2_shape[1:]
    if array.ndim == len(spec.shape) or -1 in inner or prod(array.shape[1:]) != prod(inner) or not spec.shape:
        return array
    return array.reshape((len(array), *inner))


def to_nested_list(array: Array, datatype: Datatype) -> Any:  # noqa: ANN401 - nested lists of any depth
    """Convert an output to nested lists, with texts decoded."""
    if array.dtype == object:
        array = np.vectorize(v2_tensors.encode_json_element, otypes="O")(array)
    return v2.expand_bf16(array, datatype).tolist()
