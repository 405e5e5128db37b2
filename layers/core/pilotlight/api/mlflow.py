"""MLflow's scoring protocol: what a body of `/invocations` means for a manifest's inputs, and how its answer reads.

It knows manifests and arrays, not stores or sessions. Source: mlflow/pyfunc/scoring_server (reference/protocols.md, 7).
A body names rows (`dataframe_split`, `dataframe_records`, `instances`, CSV) or whole tensors (`inputs`). Columns that
are called as the model's inputs are those inputs; any other columns are the features of its only input, in their order.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pilotlight.api import compression, missing, v2, v2_tensors
from pilotlight.api.http import Request, Response
from pilotlight.api.router import Endpoint, status_of
from pilotlight.contracts.manifest import Datatype, Manifest, TensorSpec
from pilotlight.contracts.processing import Table
from pilotlight.errors import InvalidInputError, PilotlightError, UnsupportedTypeError
from pilotlight.processing.signature import Input, signatures
from pilotlight.processing.tabular import TRUTHS
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.session import Array

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
LANGUAGE = ("messages", "prompt", "input")  # bodies of language models, which another function answers
TYPES = ("application/json", "text/csv")
MODEL = "x-pilotlight-model"  # header of a request: which model is meant; of an answer: which version it was
ERROR_CODES = {
    404: "RESOURCE_DOES_NOT_EXIST", 409: "RESOURCE_CONFLICT", 501: "NOT_IMPLEMENTED", 503: "TEMPORARILY_UNAVAILABLE",
}  # fmt: skip
# Cells of a CSV that pandas.read_csv takes for missing, as MLflow's server does.
MISSING = frozenset(
    {
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
        "NULL", "NaN", "None", "n/a", "nan", "null",
    }
)  # fmt: skip
Columns = Mapping[str, Sequence[Any]]


class Split(Struct):
    """A data frame as pandas writes it in the orientation `split`; its index says nothing to a model."""

    data: list[list[Any]]
    columns: list[str | int] | None = None


SPLIT = msgspec.json.Decoder(Split)
RECORDS = msgspec.json.Decoder(list[dict[str, Any]])
INSTANCES = msgspec.json.Decoder(Annotated[list[Any], Meta(min_length=1)])
INPUTS = msgspec.json.Decoder(dict[str, Any] | list[Any])
BODY = msgspec.json.Decoder(dict[str, msgspec.Raw])


def answering(endpoint: Endpoint) -> Endpoint:
    """The endpoint, with its errors in MLflow's words: an error code beside the message."""

    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except PilotlightError as exc:
            status = status_of(exc)
            return Response.json({"error_code": ERROR_CODES.get(status, "BAD_REQUEST"), "message": str(exc)}, status)

    return answer


def decode(body: bytes, headers: Mapping[str, str], manifest: Manifest) -> dict[str, Array]:
    """Arrays by input name; `InvalidInputError` says what was expected, `UnsupportedTypeError` which types are read."""
    kind = media_type(headers.get("content-type", ""))
    body = compression.decompress(body, headers.get("content-encoding", ""))
    if kind == "text/csv":
        return from_columns(csv_columns(body), manifest, strict=False)
    form, data = the_form(body)
    try:
        return READERS[form](bytes(data), manifest)
    except msgspec.MsgspecError as exc:
        raise InvalidInputError(f"{form!r} does not read: {exc}.") from exc


def encode(manifest: Manifest, results: Mapping[str, Array], accepted: str = "") -> Response:
    """The predictions: the only output's rows, or each output by its name; NaN and infinities are null."""
    kinds = {spec.name: spec.datatype for way in signatures(manifest) for spec in (*way.outputs, *way.more)}
    lists = {name: plain(array, kinds[name]) for name, array in results.items()}
    predictions = next(iter(lists.values())) if len(lists) == 1 else lists
    answer = Response.json({"predictions": predictions}, 200, **{MODEL: f"{manifest.name}:{manifest.version}"})
    body, encoding = compression.compress(answer.body, accepted)
    if encoding is None:
        return answer
    return Response(200, body, {**answer.headers, "content-encoding": encoding}, binary=True)


def media_type(text: str) -> str:
    """The body's media type, JSON if there is none; its charset must be UTF-8."""
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    charset = next((p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset=")), "utf-8")
    if kind not in ("", *TYPES):
        raise UnsupportedTypeError(f"Content-Type {kind!r} is not served under /invocations; use {' or '.join(TYPES)}.")
    if charset not in ("utf-8", "utf8"):
        raise UnsupportedTypeError(f"The charset {charset!r} is not served; use utf-8.")
    return kind or TYPES[0]


def the_form(body: bytes) -> tuple[str, msgspec.Raw]:
    """Which of the forms the body is, and its undecoded data."""
    try:
        content = the_fields(body)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The body is not an object with one of {', '.join(FORMS)}: {exc}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"The body is not JSON (which has no Infinity): {exc}.") from exc
    found = [form for form in FORMS if form in content]
    if not found and any(word in content for word in LANGUAGE):
        raise InvalidInputError("/invocations takes tensors and tables; language models answer under /v1.")
    if len(found) != 1:
        has = f"has {' and '.join(found)}" if found else f"has {sorted(content) or 'nothing'}"
        raise InvalidInputError(f"The body must have exactly one of {', '.join(FORMS)}; it {has}.")
    return found[0], content[found[0]]


def the_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The fields of the body; a NaN in it, as MLflow's own client writes an empty cell, is null."""
    try:
        return BODY.decode(body)
    except msgspec.DecodeError:
        mended = missing.as_null(body)
        if mended is None:
            raise
    return BODY.decode(mended)


def split(data: bytes, manifest: Manifest) -> dict[str, Array]:
    """`dataframe_split`: column names beside rows."""
    frame = SPLIT.decode(data)
    width = len(frame.data[0]) if frame.data else 0
    names = [str(name) for name in (frame.columns if frame.columns is not None else range(width))]
    return from_columns(columns(names, frame.data), manifest)


def records(data: bytes, manifest: Manifest) -> dict[str, Array]:
    """`dataframe_records`: one object for each row."""
    return from_columns(turned(RECORDS.decode(data)), manifest)


def instances(data: bytes, manifest: Manifest) -> dict[str, Array]:
    """`instances`: rows, as objects or as bare values of the only input."""
    rows = INSTANCES.decode(data)
    return from_columns(turned(rows), manifest) if isinstance(rows[0], dict) else only_input(rows, manifest)


def inputs(data: bytes, manifest: Manifest) -> dict[str, Array]:
    """`inputs`: whole tensors by name, or that of the only input."""
    found = INPUTS.decode(data)
    if isinstance(found, dict):
        return from_columns({name: as_list(value) for name, value in found.items()}, manifest)
    return (
        from_columns(turned(found), manifest) if found and isinstance(found[0], dict) else only_input(found, manifest)
    )


READERS: Mapping[str, Callable[[bytes, Manifest], dict[str, Array]]] = {
    "dataframe_split": split,
    "dataframe_records": records,
    "instances": instances,
    "inputs": inputs,
}


def csv_columns(body: bytes) -> Columns:
    """CSV with a header; an empty cell is a missing number, and a truth value among numbers is 1 or 0."""
    import csv  # few callers need it, and no cold start waits for it

    try:
        rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidInputError(f"The body is not CSV in utf-8: {exc}.") from exc
    if not rows:
        raise InvalidInputError("The CSV is empty; its first line names the columns.")
    return columns(rows[0], [row for row in rows[1:] if row])


def columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Columns:
    """Rows as columns by name; every row must be as long as there are names, and no name may come twice."""
    if len(set(names)) != len(names):
        raise InvalidInputError(f"The columns {list(names)} name one twice.")
    wrong = next((place for place, row in enumerate(rows) if len(row) != len(names)), None)
    if wrong is not None:
        raise InvalidInputError(f"Row {wrong} has {len(rows[wrong])} values, but there are {len(names)} columns.")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def turned(rows: Sequence[Any]) -> Columns:
    """Records as columns; each must have the fields of the first."""
    names = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != set(names):
            found = sorted(row) if isinstance(row, dict) else row
            raise InvalidInputError(f"Row {place} is {found!r}, but the first row has the fields {names}.")
    return {name: [row[name] for row in rows] for name in names}


def from_columns(table: Columns, manifest: Manifest, *, strict: bool = True) -> dict[str, Array]:
    """Columns that are called as the inputs as those inputs, else all of them as features of the only input."""
    ways = signatures(manifest)
    for way in ways:
        if set(way.names) == set(table):
            return {given.spec.name: tensor(table[given.spec.name], given, strict=strict) for given in way.inputs}
    names, only = ways[0].names, ways[-1].inputs[0] if len(ways[-1].inputs) == 1 else None
    if only is None or only.spec.name in table or not table or isinstance(manifest.prepare, Table):
        raise InvalidInputError(f"{manifest.name} has the inputs {names}; the body has {list(table)}.")
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"The columns differ in length: {lengths}.")
    ordered = [table[name] for name in feature_order(list(table), manifest)]
    return {only.spec.name: tensor([list(row) for row in zip(*ordered, strict=True)], only, strict=strict)}


def feature_order(names: list[str], manifest: Manifest) -> list[str]:
    """The columns as the model was trained on them, where the manifest knows their names and they are these."""
    known = list(manifest.preprocessing.names) if manifest.preprocessing is not None else []
    if set(known) & set(names) and set(known) != set(names):
        missing, extra = sorted(set(known) - set(names)), sorted(set(names) - set(known))
        raise InvalidInputError(f"{manifest.name} takes the columns {known}; missing {missing}, not known {extra}.")
    return known if known and set(known) == set(names) else names


def only_input(values: list[Any], manifest: Manifest) -> dict[str, Array]:
    """Bare values as the only input: texts, images in base64, the rows of a table, or the graph's own."""
    given = next((way.inputs[0] for way in signatures(manifest) if len(way.inputs) == 1), None)
    if given is None:
        names = [spec.name for spec in manifest.inputs]
        raise InvalidInputError(f"{manifest.name} has the inputs {names}; give values by those names.")
    return {given.spec.name: tensor(values, given)}


def as_list(value: object) -> list[Any]:
    """A tensor's nested list; a bare value is a tensor of one."""
    return value if isinstance(value, list) else [value]


def tensor(values: Sequence[Any], given: Input, *, strict: bool = True) -> Array:
    """Nested values as the input's array, with the model's own dimensions where a row is as long but flat."""
    spec = given.spec
    if spec.datatype == "BF16":
        raise InvalidInputError(f"Input {spec.name!r} is BF16, which only V2's binary tensors carry.")
    depth, probe = 1, values
    while len(probe) and isinstance(probe[0], list):
        depth, probe = depth + 1, probe[0]
    kind: Any = element(given)
    for _ in range(depth):
        kind = list[kind]
    try:
        known = values if strict else cells(values, given)
        if depth == 1 and NUMPY_DTYPES[spec.datatype].kind == "f":
            known = truths(known, {} if strict else TRUTHS)
        checked = msgspec.convert(known, kind, strict=strict)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"Input {spec.name!r} is not {spec.datatype}: {exc}.") from exc
    return fitted(v2_tensors.to_array(checked, spec.name, spec.datatype, nullable=True), spec)


def element(given: Input) -> Any:  # noqa: ANN401 - a type, or an annotated one
    """A cell of the input's; a missing number, null in JSON, is a float's NaN, and some inputs take a missing text."""
    kind = v2_tensors.element(given.spec.datatype)
    taken = "fO" if given.nullable else "f"
    return kind | None if NUMPY_DTYPES[given.spec.datatype].kind in taken else kind


def cells(values: Sequence[Any], given: Input) -> list[Any]:
    """Cells of a CSV: an empty one is missing, where the input takes that; of numbers, so is each word for it."""
    if given.spec.datatype != "BYTES":
        return [cells(value, given) if isinstance(value, list) else number(value.strip()) for value in values]
    empty = None if given.nullable else ""
    return [cells(value, given) if isinstance(value, list) else value or empty for value in values]


def number(cell: str) -> str | None:
    """A cell of numbers, None where it is missing."""
    return None if cell in MISSING else cell


def truths(values: Sequence[Any], words: Mapping[str, float]) -> list[Any]:
    """Truth values of a column of numbers as 1 and 0, as training takes them; in CSV they are words."""
    return [
        float(value) if isinstance(value, bool) else words.get(value, value) if isinstance(value, str) else value
        for value in values
    ]


def fitted(array: Array, spec: TensorSpec) -> Array:
    """Rows of the right length in the model's dimensions; anything else as it is, for the model's check to refuse."""
    inner = spec.free_shape[1:]
    if array.ndim == len(spec.shape) or -1 in inner or prod(array.shape[1:]) != prod(inner) or not spec.shape:
        return array
    return array.reshape((len(array), *inner))


def plain(array: Array, datatype: Datatype) -> Any:  # noqa: ANN401 - nested lists of any depth
    """An output as nested lists; texts decoded."""
    if array.dtype == object:
        array = np.vectorize(lambda value: value.decode() if isinstance(value, bytes) else str(value), otypes="O")(
            array
        )
    return v2.numbers(array, datatype).tolist()
