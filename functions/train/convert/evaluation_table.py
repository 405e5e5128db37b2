"""Examples in tables, as CSV, Parquet or lines of JSON: rows become what the graph takes by the code that serves them.

What is left of a row, once the model has its columns, is the right answer.
"""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from functions.train.data import Array
from functions.train.data.readers import EXTENSIONS
from functions.train.data.target import is_numeric_text
from pilotlight.api import mlflow
from pilotlight.api.text_encoding import convert_to_utf8
from pilotlight.contracts.manifest import Manifest, ManifestFile, Precision, Variant
from pilotlight.contracts.processing import Preprocessing, TextPreprocessing
from pilotlight.errors import InvalidInputError
from pilotlight.processing import preprocess_inputs
from pilotlight.processing.signature import list_signatures
from pilotlight.runtime.model_cache import Assets
from pilotlight.runtime.session import Session

TABLE_FORMATS = ("csv", "parquet", "jsonl")
ANSWER_NAMES = ("target", "label", "class", "y")  # of the column with the right answers, where several are left
RECORD_DECODER = msgspec.json.Decoder(dict[str, Any])
Columns = Mapping[str, Sequence[Any]]


def find_table_format(file: Path) -> str | None:
    """Find the format of a table by the end of its name; None of other files."""
    name = file.name.lower()
    return next((kind for kind in TABLE_FORMATS if name.endswith(EXTENSIONS[kind])), None)


def read_table_columns(file: Path) -> Columns:
    """Read the columns of a table; `InvalidInputError` says what is wrong with the file."""
    kind = find_table_format(file)
    if kind == "parquet":
        return read_parquet_columns(file)
    content = read_text_content(file)
    try:
        return mlflow.parse_csv(content) if kind == "csv" else read_json_columns(content)
    except InvalidInputError as exc:
        raise InvalidInputError(f"{file}: {exc}") from exc


def read_text_content(file: Path) -> bytes:
    """Read a file of text, decompressed and in UTF-8."""
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if file.name.lower().endswith(".gz") else content
    except (OSError, EOFError, zlib.error) as exc:
        raise InvalidInputError(f"Cannot read {file}: {getattr(exc, 'strerror', None) or exc}.") from exc
    return convert_to_utf8(content, "")


def read_json_columns(content: bytes) -> Columns:
    """Read lines of JSON, an object in each."""
    rows = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            rows += [RECORD_DECODER.decode(line)] if line.strip() else []
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise InvalidInputError(f"Line {number} is no JSON object: {exc}.") from exc
    return mlflow.columns_from_records(rows)


def read_parquet_columns(file: Path) -> Columns:
    """Read a Parquet file to plain values; NaN, as pandas writes a gap, becomes None."""
    from functions.train.data import tabular_files  # it brings pyarrow

    if not file.is_file():
        raise InvalidInputError(f"Cannot read {file}: there is no such file.")
    table = tabular_files.read_parquet_values(file)
    return {
        str(name): [None if isinstance(value, float) and value != value else value for value in values]
        for name, values in table.items()
    }


def build_served_manifest(session: Session, steps: Preprocessing | None) -> Manifest:
    """Build a manifest that says how requests are prepared for a graph, and no more."""
    graph, variants = "model.onnx", dict[Precision, Variant]({"fp32": Variant("model.onnx", {})})
    names = [graph, *([steps.tokenizer] if isinstance(steps, TextPreprocessing) else [])]
    if isinstance(steps, TextPreprocessing):  # a file may hold more texts than a request
        steps = msgspec.structs.replace(steps, max_characters=2**40)
    return Manifest(
        name="model",
        task="tensor" if steps is None else steps.__struct_config__.tag,  # type: ignore[arg-type]  # is a task's name
        inputs=session.inputs,
        outputs=session.outputs,
        preprocess=steps,
        variants=variants,
        serve="fp32",
        version=1,
        created="",
        nonce="",
        files=tuple(ManifestFile(name, 0, "0" * 64) for name in names),
    )


def convert_table(
    file: Path,
    session: Session,
    steps: Preprocessing | None,
    assets: Assets,
    labels: Sequence[str] = (),
    *,
    with_targets: bool,
) -> dict[str, Array]:
    """Convert a table to arrays by the names of the graph's inputs, and with the right answers by their column's name.

    Raises `InvalidInputError` for columns that the model does not have, and for cells that a request may not have.
    """
    columns, manifest = read_table_columns(file), build_served_manifest(session, steps)
    if not next(iter(columns.values()), ()):
        raise InvalidInputError(f"{file} has no rows.")
    given, answer = divide_columns(file, columns, manifest, with_targets=with_targets)
    try:
        tensors = mlflow.tensors_from_columns(given, manifest, is_text=find_table_format(file) == "csv")
        feeds = {name: to_texts(array) for name, array in preprocess_inputs(manifest, tensors, assets).items()}
    except InvalidInputError as exc:
        raise InvalidInputError(f"{file}: {exc}") from exc
    return feeds if answer is None else feeds | {answer: convert_answers(file, answer, columns[answer], labels)}


def to_texts(array: Array) -> Array:
    """Convert an array of texts to numpy's own type of them, as files of arrays have it; others stay."""
    if array.dtype != object:
        return array
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in array.flat]
    return np.array(texts, np.str_).reshape(array.shape)


def divide_columns(
    file: Path, columns: Columns, manifest: Manifest, *, with_targets: bool
) -> tuple[Columns, str | None]:
    """Divide the columns into those that the model takes and that of the right answers, which may be None."""
    found = [way.input_names for way in list_signatures(manifest) if set(way.input_names) <= set(columns)]
    named = [name for name in columns if name]
    others = [name for name in named if name not in found[0]] if found else named
    answers = [name for name in (*(spec.name for spec in manifest.outputs), *ANSWER_NAMES) if name in others]
    answer = answers[0] if answers else others[0] if found and len(others) == 1 else None
    if with_targets and answer is None:
        listed = ", ".join(list_signatures(manifest)[0].input_names)
        raise InvalidInputError(
            f"{file} has the columns {', '.join(named)}, the model takes {listed}; which other column has the right "
            "answers is not plain: call it target."
        )
    taken = found[0] if found else [name for name in named if name != answer]
    return {name: columns[name] for name in taken}, answer if with_targets else None


def convert_answers(file: Path, name: str, values: Sequence[Any], labels: Sequence[str]) -> Array:
    """Convert right answers (N,): names of labels to texts, other numbers to numbers; a missing one is refused."""
    texts = ["" if value is None else format_answer(value) for value in values]
    if "" in texts:
        raise InvalidInputError(f"{file}: row {texts.index('')} has no right answer in {name!r}; leave it out.")
    if labels and set(texts) <= set(labels):
        return np.array(texts, np.str_)
    if all(map(is_numeric_text, texts)):
        numbers = np.array(texts, np.float64)
        return numbers.astype(np.int64) if (np.rint(numbers) == numbers).all() else numbers
    return np.array(texts, np.str_)


def format_answer(value: object) -> str:
    """Format an answer as classes are called: truth values in small letters, whole numbers without a point."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
