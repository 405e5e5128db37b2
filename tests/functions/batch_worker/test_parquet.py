"""Tables in Parquet: each row is answered once, in its place; a broken table is refused as a whole."""

import datetime
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from arro3.core import Array, DataType, fixed_size_list_array
from arro3.core import Table as Arrow
from arro3.io import write_parquet
from hypothesis import given
from msgspec.structs import replace

from functions.batch_worker import parquet, table_rows
from pilotlight.contracts.processing import TableColumn, TablePreprocessing
from pilotlight.errors import InvalidInputError, StoreError
from pilotlight.native import child_process
from tests import fakes
from tests.functions.batch_worker.conftest import Place

FOREVER = float("inf")


TYPES = {float: DataType.float64(), int: DataType.int64(), str: DataType.utf8()}


def table(columns: dict[str, Any]) -> bytes:
    """A Parquet file of lists, the type of each told by its values, and of arrays."""
    return written(Arrow.from_pydict({name: array(values) for name, values in columns.items()}))


def array(values: Any) -> Any:  # noqa: ANN401 - arro3's, or what it takes
    if not isinstance(values, list):
        return values
    return Array(values, TYPES[type(next(value for value in values if value is not None))])


def written(arrow: Any) -> bytes:  # noqa: ANN401 - whatever speaks Arrow
    target = io.BytesIO()
    write_parquet(arrow, target)
    return target.getvalue()


@pytest.fixture
def houses(place: Place) -> Place:
    """A store with a model over a table of sizes and colours."""
    steps = TablePreprocessing(
        input="x", columns=(TableColumn(name="size"), TableColumn(name="rooms"), TableColumn(name="age"))
    )
    draft = replace(fakes.draft("houses"), task="tabular", preprocess=steps)
    place.registry.publish_version(draft, {"model.onnx": fakes.graph("double")})
    return place


ROWS: dict[str, Any] = {"size": [80.5, 120.0, None], "rooms": [3, 4, 5], "age": [10.0, 20.0, 30.0]}


def test_each_row_is_answered(houses: Place) -> None:
    said = houses.upload("houses/all.parquet", table(ROWS))
    assert said.endswith("is answered: outbox/houses/all.parquet.jsonl.")
    first, second, third = houses.result("houses/all.parquet.jsonl")
    assert first["line"] == 1
    assert first["outputs"][0]["data"] == [161.0, 6.0, 20.0]
    assert second["outputs"][0]["data"] == [240.0, 8.0, 40.0]
    assert (third["line"], "size" in third["error"]) == (3, True)
    manifest = houses.document("houses/all.parquet/manifest.json")
    assert (manifest["lines"], manifest["answered"], manifest["failed"]) == (3, 2, 1)
    laid = houses.store.get(manifest["input"]).data.splitlines()
    assert json.loads(laid[2]) == {"size": None, "rooms": 5, "age": 30.0}


def test_a_column_of_lists_is_an_input(place: Place) -> None:
    threes = fixed_size_list_array(Array.from_numpy(np.arange(1.0, 7.0)), 3)
    place.upload("double/a.PARQUET", table({"x": threes}))
    found = [line["outputs"][0]["data"] for line in place.result("double/a.PARQUET.jsonl")]
    assert found == [[2, 4, 6], [8, 10, 12]]


def test_an_infinite_number_is_refused_in_its_row_and_not_missing(houses: Place) -> None:
    model = replace(
        fakes.draft("houses"),
        task="tabular",
        preprocess=TablePreprocessing(
            input="x", columns=tuple(TableColumn(name=name, missing=0.0) for name in ("size", "rooms", "age"))
        ),
    )
    houses.registry.publish_version(model, {"model.onnx": fakes.graph("double")})
    rows = {"size": [1.0, FOREVER, None, float("nan")], "rooms": [3, 4, 5, 6], "age": [1.0, 2.0, -FOREVER, 4.0]}
    houses.upload("houses:2/b.parquet", table(rows))
    first, second, third, fourth = houses.result("houses:2/b.parquet.jsonl")
    assert (first["outputs"][0]["data"], fourth["outputs"][0]["data"]) == ([2, 6, 2], [0, 12, 8])
    assert "'size', row 0, is 'Infinity'" in second["error"]
    assert "'age', row 0, is '-Infinity'" in third["error"]
    assert table_rows.spell_infinities([[1.0, -FOREVER], None, [2.0]]) == [[1.0, "-Infinity"], None, [2.0]]


def test_the_index_of_pandas_is_no_column(place: Place) -> None:
    rows = {"a": [1.0, 4.0], "b": [2.0, 5.0], "c": [3.0, 6.0], "__index_level_0__": [7, 8]}
    place.upload("double/a.parquet", table(rows))
    assert [line["outputs"][0]["data"] for line in place.result("double/a.parquet.jsonl")] == [[2, 4, 6], [8, 10, 12]]


def test_rows_are_laid_out_once_for_a_state_of_the_table(houses: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    as_it_was = parquet.iterate_json_lines

    def counted(file: Path, ends: float) -> Iterator[bytes]:
        read.append(file)
        return as_it_was(file, ends)

    monkeypatch.setattr(parquet, "iterate_json_lines", counted)
    houses.upload("houses/a.parquet", table(ROWS))
    uri = f"{houses.store.url}/inbox/houses/a.parquet"
    assert houses.tell(uri).endswith("is answered already.")
    houses.handle = houses.environment()
    assert houses.tell(uri).endswith("is answered already.")
    assert len(read) == 1
    houses.upload("houses/a.parquet", table({name: values[:2] for name, values in ROWS.items()}))
    assert len(read) == 2
    assert [line["line"] for line in houses.result("houses/a.parquet.jsonl")] == [1, 2]


def test_a_store_that_fails_while_rows_are_laid_out_leaves_none(houses: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Any:  # noqa: ANN401 - an iterator that never gives
        yield b'{"size": 1}\n'
        raise StoreError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "iterate_json_lines", failing)
        with pytest.raises(StoreError, match="is away"):
            houses.upload("houses/a.parquet", table(ROWS))
    assert list(houses.store.list_paths("outbox")) == []
    houses.tell(f"{houses.store.url}/inbox/houses/a.parquet")
    assert len(houses.result("houses/a.parquet.jsonl")) == 3


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "only the magic": lambda _: b"PAR1",
    "csv": lambda _: b"size,rooms\n1,2\n" * 10,
    "cut off": lambda data: data[:-20],
    "its footer is garbage": lambda data: data[:-40] + b"\xff" * 32 + data[-8:],
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_table_is_refused_in_its_manifest(houses: Place, how: str) -> None:
    houses.upload("houses/a.parquet", BROKEN[how](table(ROWS)))
    manifest = houses.document("houses/a.parquet/manifest.json")
    assert manifest["refused"].startswith("The file is no Parquet, or a broken one: ")
    assert (manifest["result"], manifest["input"]) == ("", "inbox/houses/a.parquet")
    assert list(houses.store.list_paths("outbox/houses")) == [
        "outbox/houses/a.parquet/manifest.json",
        "outbox/houses/a.parquet/progress.json",
    ]


def test_garbage_in_its_pages_is_refused_or_wrong_in_single_rows(houses: Place) -> None:
    data = bytearray(table({"size": [float(number) for number in range(500)]}))
    data[10:40] = b"\xff" * 30
    houses.upload("houses/a.parquet", bytes(data))
    assert houses.document("houses/a.parquet/manifest.json")["answered"] == 0


def test_what_is_too_large_or_takes_too_long_is_refused(
    houses: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = table(ROWS)
    monkeypatch.setattr(parquet, "MAX_TABLE_BYTES", len(data) - 1)
    houses.upload("houses/large.parquet", data)
    assert "one may have" in houses.document("houses/large.parquet/manifest.json")["refused"]
    (tmp_path / "table").write_bytes(data)
    with pytest.raises(InvalidInputError, match="longer to read than one invocation"):
        list(parquet.iterate_json_lines(tmp_path / "table", time.monotonic() - 1))


def told(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of a table."""
    return lines(table(columns))


def lines(data: bytes) -> list[dict[str, Any]]:
    """The lines of a Parquet file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return [json.loads(line) for line in b"".join(table_rows.iterate_rows(Path(file.name))).splitlines()]


def test_every_type_has_a_form() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    moment = datetime.datetime(2026, 11, 25, 12, 30, tzinfo=datetime.UTC)
    columns = pyarrow.table(
        {
            "whole": pyarrow.array([2**63 - 1, None], pyarrow.int64()),
            "small": pyarrow.array([1, 2], pyarrow.uint8()),
            "number": pyarrow.array([float("nan"), 0.5], pyarrow.float32()),
            "exact": pyarrow.array([Decimal("1.10"), None]),
            "text": ["ü\n", ""],
            "word": pyarrow.array(["red", "blue"]).dictionary_encode(),
            "flag": [True, None],
            "bytes": [b"\x00\xff", None],
            "day": [datetime.date(2026, 11, 25), None],
            "moment": [moment, None],
            "list": [[1, 2], []],
            "struct": [{"a": 1}, None],
            "nothing": pyarrow.nulls(2),
        }
    )
    assert lines(written(columns)) == [
        {
            "whole": 2**63 - 1, "small": 1, "number": None, "exact": 1.1, "text": "ü\n", "word": "red", "flag": True,
            "bytes": "AP8=", "day": "2026-11-25", "moment": "2026-11-25T12:30:00Z", "list": [1, 2],
            "struct": {"a": 1}, "nothing": None,
        },
        {
            "whole": None, "small": 2, "number": 0.5, "exact": None, "text": "", "word": "blue", "flag": None,
            "bytes": None, "day": None, "moment": None, "list": [], "struct": None, "nothing": None,
        },
    ]  # fmt: skip


@given(
    numbers=st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50),
    text=st.text(max_size=20),
)
def test_rows_keep_their_order_and_values(numbers: list[float | None], text: str) -> None:
    found = told({"number": [*numbers, 1.0], "text": [text] * (len(numbers) + 1)})
    assert [row["number"] for row in found] == [*numbers, 1.0]
    assert {row["text"] for row in found} == {text}


def test_many_rows_come_in_many_pieces() -> None:
    found = told({"number": list(range(2_500))})
    assert [row["number"] for row in found] == list(range(2_500))


def test_a_name_that_comes_twice_is_refused() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    twice = pyarrow.Table.from_arrays([pyarrow.array([1])] * 2, ["a", "a"])
    with pytest.raises(InvalidInputError, match="name one twice"):
        lines(written(twice))


@pytest.fixture
def bombs() -> dict[str, bytes]:
    """Files of some kB whose rows have GBs: a value that is told once, in many rows or in one."""
    pyarrow = pytest.importorskip("pyarrow")
    pages = pytest.importorskip("pyarrow.parquet")

    def write(values: Any, rows: int) -> bytes:  # noqa: ANN401 - pyarrow's
        target = io.BytesIO()
        pages.write_table(pyarrow.table({"x": values}), target, compression="zstd", row_group_size=rows)
        return target.getvalue()

    long = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(1000, np.int8)), pyarrow.array(["a" * 3_000_000]))
    flat = pyarrow.array(np.zeros(10_000_000, np.int64))
    nest = pyarrow.ListArray.from_arrays(pyarrow.array([0, len(flat)], pyarrow.int32()), flat)
    return {
        "long texts": write(long, 1000),
        "a nest": write(nest, 1),
        "many rows": write(pyarrow.array(np.zeros(5_000_000, np.int8)), 5_000_000),
    }


def test_a_table_that_unfolds_is_refused_and_not_died_of(
    place: Place, bombs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MAX_LINES_BYTES", 5_000_000)
    monkeypatch.setattr(parquet, "READER_BYTES", 300_000_000)
    for kind, data in bombs.items():
        assert len(data) < 300_000, kind
        place.upload(f"double/{kind}.parquet", data)
        refused = place.document(f"double/{kind}.parquet/manifest.json")["refused"]
        words = ("memory", "panicked", "SIGABRT", "bytes as JSON", "of processor time")
        assert any(word in refused for word in words), (kind, refused)
        assert not any("rows-" in path for path in place.store.list_paths(f"outbox/double/{kind}.parquet"))


def test_rows_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rows, "MAX_ROWS", 2_400)
    with pytest.raises(InvalidInputError, match="more than 2,400 rows; send it in several files"):
        told({"number": list(range(2_500))})


def test_columns_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rows, "MAX_COLUMNS", 2)
    with pytest.raises(InvalidInputError, match="has 3 columns, and one may have 2"):
        told(ROWS)


def test_the_processor_time_of_a_table_grows_with_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, float]] = []

    def note_limits(*_: object, **limits: float) -> Iterator[bytes]:
        given.append(limits)
        return iter(())

    monkeypatch.setattr(child_process, "stream_module", note_limits)
    for size in (0, 2_000_000, 100_000_000):
        with (tmp_path / "table").open("wb") as file:
            file.truncate(size)
        list(parquet.iterate_json_lines(tmp_path / "table", FOREVER))
    assert [limits["cpu_seconds"] for limits in given] == [0.5, 16.5, 800.5]
    assert [limits["seconds"] for limits in given] == [15.0, 175.0, 600.0]
