"""MLflow's scoring protocol: how a body of `/invocations` is decoded to a model's inputs, and its answer encoded.

This module depends on manifests and arrays, not on stores or sessions. A body has rows (`dataframe_split`,
`dataframe_records`, `instances`, CSV) or whole tensors (`inputs`). Columns with the names of the model's inputs are
those inputs; any other columns are the features of its only input, in their order.

Source: mlflow/pyfunc/scoring_server of mlflow/mlflow.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pilotlight.api import compression, v2, v2_json, v2_tensors
from pilotlight.api.http import Request, Response, is_sendable
from pilotlight.api.request_limits import (
    CSV_COST,
    UNLIMITED,
    UNTYPED_COST,
    WEIGHED_BYTES,
    RequestLimits,
    pause_garbage_collection,
)
from pilotlight.api.router import Endpoint, get_status_code
from pilotlight.contracts.manifest import Datatype, Manifest, TensorSpec
from pilotlight.contracts.processing import TablePreprocessing
from pilotlight.errors import (
    InvalidInputError,
    PilotlightError,
    TooLargeError,
    UnsupportedTypeError,
    shorten_message,
)
from pilotlight.processing.signature import SignatureInput, list_signatures
from pilotlight.processing.tabular import BOOLEAN_WORDS
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

BODY_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
LANGUAGE_MODEL_FIELDS = ("messages", "prompt", "input")  # of bodies for language models, which another function answers
MEDIA_TYPES = ("application/json", "text/csv")
MODEL_HEADER = "x-pilotlight-model"  # the requested model in a request; model and version in an answer
ERROR_CODES = {
    404: "RESOURCE_DOES_NOT_EXIST", 409: "RESOURCE_CONFLICT", 501: "NOT_IMPLEMENTED", 503: "TEMPORARILY_UNAVAILABLE",
}  # fmt: skip
# Cells of a CSV that pandas.read_csv, and so MLflow's server, treats as missing.
MISSING_WORDS = frozenset(
    {
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
        "NULL", "NaN", "None", "n/a", "nan", "null",
    }
)  # fmt: skip
ColumnValues = Mapping[str, Sequence[Any]]


class DataFrameSplit(Struct):
    """A data frame as pandas writes it in the orientation `split`; the index is ignored."""

    data: list[list[Any]]
    columns: list[str | int] | None = None


SPLIT_DECODER = msgspec.json.Decoder(DataFrameSplit)
RECORDS_DECODER = msgspec.json.Decoder(list[dict[str, Any]])
INSTANCES_DECODER = msgspec.json.Decoder(Annotated[list[Any], Meta(min_length=1)])
INPUTS_DECODER = msgspec.json.Decoder(dict[str, Any] | list[Any])
BODY_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


def wrap_mlflow_errors(endpoint: Endpoint) -> Endpoint:
    """Wrap an endpoint to return errors in MLflow's form: an error code beside the message."""

    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except PilotlightError as exc:
            status, message = get_status_code(exc), shorten_message(str(exc))
            return Response.json({"error_code": ERROR_CODES.get(status, "BAD_REQUEST"), "message": message}, status)

    return answer


def decode_request(
    body: bytes, headers: Mapping[str, str], manifest: Manifest, limits: RequestLimits = UNLIMITED
) -> dict[str, Array]:
    """Decode a body to arrays by input name.

    Raises `InvalidInputError` for a body that does not fit the model, `TooLargeError` for one that decodes to more than
    the `limits`, `UnsupportedTypeError` for another media type.
    """
    kind = parse_content_type(headers.get("content-type", ""))
    body = v2.decompress_within_limits(body, headers, limits)
    limits.check_text(body, CSV_COST if kind == "text/csv" else UNTYPED_COST)
    if len(body) <= WEIGHED_BYTES:
        return decode_text(body, kind, manifest)
    with pause_garbage_collection():
        return decode_text(body, kind, manifest)


def decode_text(body: bytes, kind: str, manifest: Manifest) -> dict[str, Array]:
    """Decode a body of the media type `kind`: CSV, or JSON in any of its forms."""
    if kind == "text/csv":
        return tensors_from_columns(parse_csv(body), manifest, strict=False)
    body_format, data = find_body_format(body)
    try:
        return READERS[body_format](bytes(data), manifest)
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
    return content_type.partition(";")[0].strip().lower() in ("", *MEDIA_TYPES)


def parse_content_type(content_type: str) -> str:
    """Parse the body's media type, JSON by default; the charset must be UTF-8."""
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charset = next((p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset=")), "utf-8")
    if kind not in ("", *MEDIA_TYPES):
        raise UnsupportedTypeError(
            f"Content-Type {kind!r} is not served under /invocations; use {' or '.join(MEDIA_TYPES)}."
        )
    if charset not in ("utf-8", "utf8"):
        raise UnsupportedTypeError(f"The charset {charset!r} is not served; use utf-8.")
    return kind or MEDIA_TYPES[0]


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
    """Decode `inputs`: whole tensors by name, or the tensor of the only input."""
    content = INPUTS_DECODER.decode(data)
    if isinstance(content, dict):
        return tensors_from_columns({name: to_list(value) for name, value in content.items()}, manifest)
    return (
        tensors_from_columns(columns_from_records(content), manifest)
        if content and isinstance(content[0], dict)
        else tensors_from_values(content, manifest)
    )


READERS: Mapping[str, Callable[[bytes, Manifest], dict[str, Array]]] = {
    "dataframe_split": decode_split_body,
    "dataframe_records": decode_records_body,
    "instances": decode_instances_body,
    "inputs": decode_inputs_body,
}


def parse_csv(body: bytes) -> ColumnValues:
    """Parse CSV with a header to columns of texts."""
    import csv  # few requests need it, so it is not part of a cold start

    try:
        rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidInputError(f"The body is not CSV in utf-8: {exc}.") from exc
    if not rows:
        raise InvalidInputError("The CSV is empty; its first line names the columns.")
    return columns_from_rows(rows[0], [row for row in rows[1:] if row])


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
    """Convert records to columns by name; each record must have the fields of the first."""
    names = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != set(names):
            found = sorted(row) if isinstance(row, dict) else row
            raise InvalidInputError(f"Row {place} is {found!r}, but the first row has the fields {names}.")
    return {name: [row[name] for row in rows] for name in names}


def tensors_from_columns(table: ColumnValues, manifest: Manifest, *, strict: bool = True) -> dict[str, Array]:
    """Build tensors from columns with the names of the inputs, else from all columns as features of the only input."""
    candidates = list_signatures(manifest)
    for signature in candidates:
        if set(signature.input_names) == set(table):
            return {
                given.spec.name: build_tensor(table[given.spec.name], given, strict=strict)
                for given in signature.inputs
            }
    names, only = candidates[0].input_names, candidates[-1].inputs[0] if len(candidates[-1].inputs) == 1 else None
    if only is None or only.spec.name in table or not table or isinstance(manifest.preprocess, TablePreprocessing):
        raise InvalidInputError(f"{manifest.name} has the inputs {names}; the body has {list(table)}.")
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"The columns differ in length: {lengths}.")
    ordered = [table[name] for name in order_features(list(table), manifest)]
    return {only.spec.name: build_tensor([list(row) for row in zip(*ordered, strict=True)], only, strict=strict)}


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


def build_tensor(values: Sequence[Any], model_input: SignatureInput, *, strict: bool = True) -> Array:
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
        cell_values = values if strict else parse_cells(values, model_input)
        if depth == 1 and NUMPY_DTYPES[spec.datatype].kind == "f":
            cell_values = convert_booleans(cell_values, {} if strict else BOOLEAN_WORDS)
        checked = msgspec.convert(cell_values, kind, strict=strict)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"Input {spec.name!r} is not {spec.datatype}: {exc}.") from exc
    return reshape_rows(v2_tensors.to_array(checked, spec.name, spec.datatype, nullable=True), spec)


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
    return None if cell in MISSING_WORDS else cell


def convert_booleans(values: Sequence[Any], words: Mapping[str, float]) -> list[Any]:
    """Convert truth values in a column of numbers to 1 and 0, as training does; in CSV they are words."""
    return [
        float(value) if isinstance(value, bool) else words.get(value, value) if isinstance(value, str) else value
        for value in values
    ]


def reshape_rows(array: Array, spec: TensorSpec) -> Array:
    """Reshape rows of the right length to the model's dimensions; the model's check refuses others."""
    inner = spec.v2_shape[1:]
    if array.ndim == len(spec.shape) or -1 in inner or prod(array.shape[1:]) != prod(inner) or not spec.shape:
        return array
    return array.reshape((len(array), *inner))


def to_nested_list(array: Array, datatype: Datatype) -> Any:  # noqa: ANN401 - nested lists of any depth
    """Convert an output to nested lists, with texts decoded."""
    if array.dtype == object:
        array = np.vectorize(v2_tensors.encode_json_element, otypes="O")(array)
    return v2.expand_bf16(array, datatype).tolist()
