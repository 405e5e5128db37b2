"""Tables as people and their tools write them: what they are taken for is told, and nothing is wrong in silence."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from functions.train.__main__ import main
from functions.train.data.column_notes import explain_texts
from functions.train.data.dataset import Dataset
from functions.train.data.files import DataRoot
from functions.train.data.load import load_dataset, load_splits
from functions.train.data.tabular_files import (
    RowOrigins,
    read_feature_column,
    read_group_column,
    read_target_column,
    read_time_column,
)
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store


def options(**words: Any) -> UserDataOptions:  # noqa: ANN401 - a recipe's values
    known = {"path": "mine.csv", "target": "y", "fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}}
    return UserDataOptions.model_validate_json(json.dumps(known | words))


def read(folder: Path, **words: Any) -> Dataset:  # noqa: ANN401
    return load_dataset(options(**words), DataRoot(folder))


def csv(folder: Path, text: str | bytes, **words: Any) -> Dataset:  # noqa: ANN401
    path = folder / str(words.get("path", "mine.csv"))
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(folder, **words)


def parquet(folder: Path, **columns: Any) -> Dataset:  # noqa: ANN401
    pyarrow.parquet.write_table(pa.table(columns), folder / "mine.parquet")
    return read(folder, path="mine.parquet")


def target_note(found: Dataset) -> str:
    return next(note for note in found.notes if note.startswith("target"))


TARGETS = [
    (["0.0", "1.0"] * 10, ("0", "1"), "target 'y': 2 classes (0, 1), since its numbers are whole and few; data"),
    (["0", "1"] * 10, ("0", "1"), "target 'y': 2 classes (0, 1), since its numbers are whole and few; data"),
    (["1.0", "2.0", "5.0"] * 10, ("1", "2", "5"), "3 classes (1, 2, 5)"),
    (["0.5", "1.0"] * 10, (), "target 'y': a number from 0.5 to 1, since they are not all whole; data.task: cl"),
    ([str(n % 21) for n in range(60)], (), "a number from 0 to 20, since there are 21 different ones, more than 20"),
    ([str(n % 20) for n in range(60)], tuple(map(str, range(20))), "20 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10"),
    ([f"{n}.0" for n in range(15)], (), "a number from 0 to 14, since few of them occur twice"),
    (["true", "false"] * 10, ("false", "true"), "2 classes (false, true), since they are truth values"),
    (["yes", "no"] * 10, ("no", "yes"), "2 classes (no, yes), since it is text"),
    (["1000000.0", "1000001.0"] * 10, ("1000000", "1000001"), "2 classes (1000000, 1000001)"),
    (["-1", "1"] * 10, ("-1", "1"), "2 classes (-1, 1)"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "classes", "said"), TARGETS)
def test_what_a_target_is_taken_for_is_told(
    tmp_path: Path, target: list[str], classes: tuple[str, ...], said: str
) -> None:
    found = csv(tmp_path, "x,y\n" + "".join(f"{n * 3 % 17 + n},{value}\n" for n, value in enumerate(target)))
    assert found.classes == classes
    assert said in target_note(found)
    assert "; data.task" not in target_note(csv_with_task(tmp_path, "classes" if classes else "number"))


def csv_with_task(folder: Path, task: str) -> Dataset:
    """Read the same file, with what the recipe says of the target."""
    return read(folder, task=task)


@pytest.mark.parametrize(
    ("values", "classes", "said"),
    [
        (
            ["0", "1"] * 10,
            ("0", "1"),
            "2 classes (0, 1), since it is text, of few whole numbers; data.task: number makes it",
        ),
        ([f"{n}.5" for n in range(30)], (), "since its texts are numbers, and not all whole"),
        ([str(n) for n in range(30)], (), "since its texts are 30 different numbers, more than 20"),
        ([f"0{n:03}" for n in range(10)] * 3, tuple(f"0{n:03}" for n in range(10)), "10 classes"),
    ],
)
def test_numbers_in_the_form_of_text(tmp_path: Path, values: list[str], classes: tuple[str, ...], said: str) -> None:
    found = parquet(tmp_path, x=list(range(len(values))), y=values)
    assert found.classes == classes
    assert said in target_note(found)


def test_rows_without_a_target_are_refused_or_dropped_and_counted(tmp_path: Path) -> None:
    text = "x,y\n1,0.0\n2,\n3,1.0\n4,0.0\n5,1.0\n6,\n7,1.0\n"
    with pytest.raises(
        InvalidInputError, match=r"mine\.csv, row 2: the target 'y' is missing, as in 2 of 7 rows; mend"
    ):
        csv(tmp_path, text)
    found = csv(tmp_path, text, unlabelled="drop")
    assert (len(found), found.classes) == (5, ("0", "1"))
    assert "left out 2 rows without a target" in found.notes
    with pytest.raises(InvalidInputError, match=r"mine\.csv, row 4: column 'x' says 'odd'"):
        csv(tmp_path, "x,y\n1,\n2,a\n3,b\nodd,b\n5,a\n6,b\n", unlabelled="drop")
    frame = pa.table({"x": [1.0, 2.0, 3.0, 4.0], "y": pa.array([0.0, float("nan"), 1.0, 0.0])})
    pyarrow.parquet.write_table(frame, tmp_path / "mine.parquet")
    assert len(read(tmp_path, path="mine.parquet", unlabelled="drop")) == 3
    np.savez(tmp_path / "mine.npz", x=np.eye(5), y=np.array([0, np.nan, 1, 0, 1]))
    with pytest.raises(InvalidInputError, match="row 2: the target 'y' is nan, as in 1 of 5"):
        read(tmp_path, path="mine.npz")
    left = read(tmp_path, path="mine.npz", unlabelled="drop")
    assert (len(left), left.classes) == (4, ("0", "1"))
    assert "left out 1 examples without a target" in left.notes


def test_columns_are_told(tmp_path: Path) -> None:
    rows = "".join(
        f"{n * 1.5},{'red' if n % 3 else 'blue'},{'true' if n % 2 else 'false'},7,{n % 2}\n" for n in range(30)
    )
    found = csv(tmp_path, "a,colour,open,same,y\n" + rows)
    assert "columns: 2 numbers (a, open), 1 categories (colour (2))" in found.notes
    assert found.cleaning is not None
    assert found.cleaning.constant == ("same",)


def test_index_of_pandas_is_left_out_and_told(tmp_path: Path) -> None:
    rows = [f"{n * 7 % 40},{n * 1.5},{n % 2}\n" for n in range(40)]
    for name in ("", "Unnamed: 0", "index"):
        found = csv(tmp_path, f"{name},a,y\n" + "".join(rows))
        assert found.features == ("a",)
        assert f"left out the index in column {name!r}" in found.notes
    kept = csv(tmp_path, "index,a,y\n" + "".join(rows), features=["index", "a"])
    assert kept.features == ("index", "a")
    assert any("column 'index' is another whole number in every row" in note for note in kept.notes)
    table = pa.table({"a": [1.5, 2.5, 3.5], "y": ["a", "b", "a"], "__index_level_0__": [5, 2, 9]})
    pyarrow.parquet.write_table(table, tmp_path / "mine.parquet")
    assert read(tmp_path, path="mine.parquet").features == ("a",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1,5", "2,25"], "numbers with a decimal comma, such as '1,5'; data.decimal: ','"),
        (["1.234,5", "2,25"], "numbers with a decimal comma, such as '1.234,5'"),
        (["1,234", "25,000"], "numbers with separators of thousands, such as '1,234'; write them without"),
        (["1'234", "250"], "numbers with separators of thousands, such as \"1'234\""),
        (["12 €", "$7"], "numbers with a unit or sign, such as '12 €'"),
        (["45%", "7.5%"], "numbers with a unit or sign, such as '45%'"),
        (["31.12.2025", "1.2.2026"], "dates, such as '31.12.2025'"),
        (["2026/1/31", "2026/2/1"], "dates, such as '2026/1/31'"),
        (["3 Jan 2026", "14 February 2026"], "dates, such as '3 Jan 2026'"),
        (["red", "blue"], ""),
        (["1", "2"], ""),
        (["a1", "b2"], ""),
    ],
)  # fmt: skip
def test_texts_that_look_like_something_else(words: list[str], said: str) -> None:
    assert explain_texts(words).startswith(said)
    assert bool(explain_texts(words)) == bool(said)


def test_numbers_as_they_are_written_in_german(tmp_path: Path) -> None:
    text = "preis;ort;y\n" + "".join(
        f"{n},5;{'Ulm' if n % 3 else 'Bonn'};{'ja' if n % 2 else 'nein'}\n" for n in range(30)
    )
    with pytest.raises(
        InvalidInputError, match=r"row 1 has 2 values.*; they look separated by ';', which data\.delimiter"
    ):
        csv(tmp_path, text)
    told = csv(tmp_path, text, delimiter=";")
    assert any(
        "column 'preis' is taken as 30 categories, and holds numbers with a decimal comma" in note
        for note in told.notes
    )
    found = csv(tmp_path, text, delimiter=";", decimal=",")
    assert found.categories == ((), ("Bonn", "Ulm"))
    assert found.inputs[:2, 0].tolist() == [0.5, 1.5]
    assert csv(tmp_path, text.encode("utf-16"), delimiter=";", decimal=",").sha256 == found.sha256
    assert csv(tmp_path, text.encode("utf-8-sig"), delimiter=";", decimal=",").sha256 == found.sha256


def test_many_texts_are_refused_with_what_they_look_like(tmp_path: Path) -> None:
    text = "x;y\n" + "".join(f"{n},5;{n % 2}\n" for n in range(200))
    with pytest.raises(InvalidInputError, match=r"holds 200 different texts.*; they are numbers with a decimal comma"):
        csv(tmp_path, text, delimiter=";")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([datetime(2026, 1, n, tzinfo=UTC) for n in (1, 2)]), "holds timestamp[us, tz=UTC], neither"),
        (pa.array([1, 2], pa.date32()), "holds date32[day], neither numbers nor text; make numbers of it"),
        (pa.array([[1], [2]]), "holds list<"),
        (pa.array([b"a", b"b"]), "holds binary, neither numbers nor text"),
    ],
)  # fmt: skip
def test_columns_that_are_neither_numbers_nor_text(tmp_path: Path, column: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidInputError) as caught:
        parquet(tmp_path, x=column, y=["a", "b"])
    assert said in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_target_that_is_a_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"the target 'y' holds date32\[day\]; make a number or classes of it"):
        parquet(tmp_path, x=[1, 2], y=pa.array([1, 2], pa.date32()))


def test_types_of_parquet(tmp_path: Path) -> None:
    found = parquet(
        tmp_path,
        small=pa.array([1, 2, 3, 4, 5, 6], pa.int8()),
        big=pa.array([2**60, 1, 2, 3, 4, 5], pa.int64()),
        unsigned=pa.array([2**63 + 1, 1, 2, 3, 4, 5], pa.uint64()),
        half=pa.array(np.arange(6, dtype=np.float16)),
        exact=pa.array([Decimal("1.25"), Decimal("2.5"), *[Decimal(n) for n in range(4)]], pa.decimal128(9, 2)),
        flag=pa.array([True, False, True, False, True, True]),
        word=pa.array(["a", "b", "a", "b", "a", "b"]).dictionary_encode(),
        view=pa.array(list("cdcdcc"), pa.large_string()),
        y=pa.array(["x", "y"] * 3).dictionary_encode(),
    )
    assert found.features == ("small", "big", "unsigned", "half", "exact", "flag", "word", "view")
    assert found.inputs[0].tolist() == [1, 2.0**60, 2.0**63, 0, 1.25, 1, 0, 0]


def test_nullable_integers_are_gaps(tmp_path: Path) -> None:
    found = parquet(tmp_path, x=pa.array([1, None, 3, 4], pa.int32()), z=[1.0, 2.0, 3.0, 4.0], y=["a", "b", "a", "b"])
    assert found.cleaning is not None
    assert (len(found), found.cleaning.missing) == (3, 1)


def test_types_are_those_of_the_whole_file(tmp_path: Path) -> None:
    """A column of whole numbers, or of nothing, over the first megabyte, and of others after it."""
    rows = [f"{n},,{'a' * 30},{n % 2}\n" for n in range(60_000)]
    found = csv(tmp_path, "x,late,same,y\n" + "".join(rows) + "1,3,b,0\n0.5,2,b,1\n", missing="mean")
    assert found.inputs[-1].tolist() == [0.5, 2, 1]


def test_long_cells_and_lines_in_quotes(tmp_path: Path) -> None:
    long = "w" * 200_000
    found = csv(tmp_path, f'x,word,y\n1,"{long}",a\n2,"two\nlines, ""quoted""",b\n3,"{long}",a\n4,short,b\n')
    assert found.categories == ((), ("short", 'two\nlines, "quoted"', long))
    wide = "v" * 3_000_000  # beyond pyarrow's block
    assert len(csv(tmp_path, f'x,word,y\n1,"{wide}",a\n2,b,b\n3,c,a\n')) == 3


def test_compressed_tables_and_tabs(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(20))
    plain = csv(tmp_path, text)
    assert csv(tmp_path, gzip.compress(text.encode()), path="mine.csv.gz").sha256 == plain.sha256
    assert csv(tmp_path, text.replace(",", "\t"), path="mine.tsv").sha256 == plain.sha256
    for broken in (b"no gzip", gzip.compress(text.encode())[:-12]):
        with pytest.raises(InvalidInputError, match=r"mine\.csv\.gz cannot be read as CSV: "):
            csv(tmp_path, broken, path="mine.csv.gz")


def test_a_metric_that_is_named_judges_the_whole_run(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = "".join(f"{n % 12 + random.normal():.3f},{random.normal():.3f},c{n % 12}\n" for n in range(240))
    (tmp_path / "mine.csv").write_text("a,b,y\n" + rows)
    fractions = "{train: 0.6, validation: 0.2, test: 0.2}"
    data = f"data={{path: {tmp_path}/mine.csv, target: y, metric: top_3, fractions: {fractions}}}"
    words = ["name=top", "epochs=2", data, "batch_size=16", "folds=null"]
    assert main(["iris", "--store", str(tmp_path / "store"), "--set", *words]) == 0
    manifest = Registry(open_store(str(tmp_path / "store"))).load_manifest("top", 1)
    assert manifest.metric == "top_3"
    assert all("top_3" in variant.metrics for variant in manifest.variants.values())


def test_notes_stand_in_the_card_the_report_and_on_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    rows = "".join(f"{x:.3f},{x * 2 + random.normal():.3f},{float(x > 0)}\n" for x in random.normal(size=120))
    (tmp_path / "mine.csv").write_text("a,b,y\n" + rows)
    data = f"data={{path: {tmp_path}/mine.csv, target: y, fractions: {{train: 0.6, validation: 0.2, test: 0.2}}}}"
    words = ["name=whole", "epochs=2", data, "batch_size=16", "quantization={scheme: dynamic, budget: 100}"]
    assert main(["iris", "--store", str(tmp_path / "store"), "--set", *words]) == 0
    said = "target 'y': 2 classes (0, 1), since its numbers are whole and few; data.task: number makes it a number"
    assert said in capsys.readouterr().err
    store = open_store(str(tmp_path / "store"))
    folder = "models/whole/versions/1/"
    assert "- Target 'y': 2 classes (0, 1), since its numbers" in store.get(folder + "model-card.md").data.decode()
    assert said in json.loads(store.get(folder + "report.json").data)["data_notes"]
    assert Registry(store).load_manifest("whole", 1).labels == ("0", "1")


TIMES = RowOrigins(("a.parquet",), (3,))


@pytest.mark.parametrize(
    ("column", "written"),
    [
        (pa.array([1700000000000000002, 1700000000000000001, 3], pa.timestamp("ns")), "2023-11-14 22:13:20.000000002"),
        (pa.array([1700000000000000002, 1700000000000000001, 3]), "1700000000000000002"),
        (pa.array([3, 2, 1], pa.timestamp("us", "UTC")), "1970-01-01 00:00:00.000003"),
        (pa.array(["2026-11-29T20:15:02Z", "2026-11-29T20:15:02+01:00", "2025-01-01T00:00Z"]), "2026-11-29T20:15:02Z"),
        (pa.array(["2026-11-29 20:15:02", "2026-11-29 20:15:01", "2025-01-01"]), "2026-11-29 20:15:02"),
        (pa.array([3, 2, 1], pa.date32()), "1970-01-04"),
        (pa.array([3, 2, 1], pa.time64("ns")), "00:00:00.000000003"),
        (pa.array([3, 2, 1], pa.time32("s")), "00:00:03"),
        (pa.array([3, 2, 1], pa.duration("s")), "3"),
        (pa.array([2.5, 2.25, 1]), "2.5"),
        (pa.array(["2026-11-29", "2026-11-28", "2025-01-01"]).dictionary_encode(), "2026-11-29"),
    ],
)
def test_times_of_any_kind_keep_their_order(column: Any, written: str) -> None:  # noqa: ANN401 - pyarrow's
    times, names = read_time_column(pa.table({"t": column}), "t", TIMES)
    assert np.argsort(times).tolist() == [2, 1, 0]
    assert len(set(times.tolist())) == 3
    assert names[0] == written


@pytest.mark.parametrize("values", [[True, False, True], [[1], [2], [3]], [b"a", b"b", b"c"], ["a", "b", "c"]])
def test_what_is_no_time_is_refused_with_a_value(values: list[Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"data.time is 't', which holds .*, such as .*; it must hold numbers"):
        read_time_column(pa.table({"t": pa.array(values)}), "t", TIMES)


@pytest.mark.parametrize("read", [read_time_column, read_group_column])
def test_nan_is_no_time_and_no_group(read: Callable[..., Any]) -> None:
    with pytest.raises(
        InvalidInputError, match=r"a.parquet, row 2: 't', which data.\w+ names, is missing, as in 1 of 3"
    ):
        read(pa.table({"t": pa.array([1.0, np.nan, 3.0])}), "t", TIMES)


def test_a_view_of_texts_is_a_text() -> None:
    table = pa.table({"t": pa.array(["b", "a", None], pa.string_view())})
    codes, words = read_feature_column(table, "t", TIMES)
    assert words == ("a", "b")
    np.testing.assert_array_equal(codes, [1, 0, np.nan])


def halves(rows: int, value: str = "{n}") -> str:
    return "".join(value.format(n=n) + f",{'ab'[n % 2]}\n" for n in range(rows))


def test_index_of_each_file_is_left_out(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n * 1.5},{n % 2}\n" for n in range(40))
    (tmp_path / "test.csv").write_text(",a,y\n" + rows.replace(".5,", ".25,"))
    found = csv(tmp_path, ",a,y\n" + rows, test="test.csv", fractions={"train": 0.8, "validation": 0.2})
    assert found.features == ("a",)
    assert csv(tmp_path, "a,y,\n" + "".join(f"{n},{n % 2},\n" for n in range(9))).features == ("a",)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_texts_are_trimmed_as_those_of_requests_are(tmp_path: Path, form: str) -> None:
    words, targets = [" red", "red ", "blue", "\tblue"] * 5, ["yes", " yes", "no", "no "] * 5
    if form == "parquet":
        found = parquet(tmp_path, x=list(range(20)), colour=pa.array(words).dictionary_encode(), y=targets)
    else:
        rows = [f"{n},{word},{target}\n" for n, (word, target) in enumerate(zip(words, targets, strict=True))]
        found = csv(tmp_path, "x,colour,y\n" + "".join(rows))
    assert found.categories == ((), ("blue", "red"))
    assert found.classes == ("no", "yes")


def test_target_of_spaces_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"row 2: the target 'y' is missing, as in 1 of 4"):
        csv(tmp_path, "x,y\n1,a\n2, \n3,b\n4,a\n")
    assert len(csv(tmp_path, "x,y\n1,a\n2, \n3,b\n4,a\n", unlabelled="drop")) == 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{n}e300", r"row 2: column 'x' is 1e\+300, beyond the 1e\+30 that can be learned from; take another unit"),
        ("{n}e-40", r"row 20: column 'x' is 1\.9e-39 at most, below the 1e-30"),
    ],
)
def test_numbers_beyond_what_can_be_scaled_are_refused(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        csv(tmp_path, "x,y\n" + halves(20, value))
    with pytest.raises(InvalidInputError, match=said.replace("column 'x'", "the target")):
        csv(tmp_path, "y,x\n" + halves(20, value), task="number")


def test_numbers_with_more_digits_than_a_model_has(tmp_path: Path) -> None:
    found = csv(tmp_path, "x,z,y\n" + halves(100, "{n},17000000{n:02}"))
    assert any("column 'z' has more digits than the 24 bits" in note for note in found.notes)
    with pytest.raises(InvalidInputError, match=r"the target differs by too little, from 1700000000 to 170000009"):
        csv(tmp_path, "y,x\n" + halves(100, "17000000{n:02}"))


@pytest.mark.parametrize("key", ["features", "drop", "classes"])
def test_names_that_are_given_twice_are_refused_before_anything_is_read(key: str) -> None:
    with pytest.raises(ValueError, match="it names 'a' twice"):
        options(**{key: ["a", "b", "a"]})


def test_test_set_that_repeats_the_training_set_is_refused(tmp_path: Path) -> None:
    text = "x,y\n" + halves(20)
    (tmp_path / "test.csv").write_text(text)
    (tmp_path / "mine.csv").write_text(text)
    given = options(test="test.csv", fractions={"train": 0.8, "validation": 0.2})
    with pytest.raises(InvalidInputError, match=r"No example of data\.test is left: what lacks a value or rep"):
        load_splits(given, DataRoot(tmp_path))


@pytest.mark.parametrize(("missing", "code"), [("drop", -1.0), ("median", np.nan)])
def test_categories_of_the_test_set_alone_are_unknown_to_the_model(tmp_path: Path, missing: str, code: float) -> None:
    (tmp_path / "test.csv").write_text("x,colour,y\n" + halves(6, "{n}.5,amber"))
    (tmp_path / "mine.csv").write_text("x,colour,y\n" + halves(40, "{n},red") + halves(40, "{n},blue"))
    given = options(test="test.csv", missing=missing, fractions={"train": 0.8, "validation": 0.2})
    parts = load_splits(given, DataRoot(tmp_path))
    assert parts.train.categories == parts.test.categories == ((), ("blue", "red"))
    np.testing.assert_array_equal(parts.test.inputs[:, 1], np.full(6, code, np.float32))
    assert set(parts.train.inputs[:, 1]) == set(parts.validation.inputs[:, 1]) == {0, 1}
    assert any("1 categories that no training example has (amber) are unknown" in note for note in parts.train.notes)


def test_lines_of_json_say_the_same_as_csv(tmp_path: Path) -> None:
    rows = [{"x": n * 1.5, "colour": "red" if n % 3 else None, "open": n % 2 > 0, "y": "ab"[n % 2]} for n in range(20)]
    (tmp_path / "mine.csv").write_text(
        "x,colour,open,y\n" + "".join(f"{r['x']},{r['colour'] or ''},{r['open']},{r['y']}\n" for r in rows)
    )
    expected = read(tmp_path, missing="mean")
    text = "\n".join(json.dumps({key: value for key, value in row.items() if value is not None}) for row in rows)
    for name, content in (("a.jsonl", text.encode()), ("b.ndjson", text.encode("utf-8-sig") + b"\n")):
        (tmp_path / name).write_bytes(content)
        found = read(tmp_path, path=name, missing="mean")
        assert (found.sha256, found.features, found.categories) == (
            expected.sha256,
            expected.features,
            expected.categories,
        )
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert read(tmp_path, path="c.jsonl.gz", missing="mean").sha256 == expected.sha256


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"x":1,"y":2}\n{"x":"a","y":1}\n', r"cannot be read as lines.*changed from number to string in line 2"),
        (b'[{"x":1,"y":2}]', "cannot be read as lines of JSON, an object in each: .*object to array in line 1"),
        (b'{"x":1,"y":"\xff"}\n', "cannot be read as lines of JSON, an object in each: "),
        (b"", "Empty JSON file"),
        (b'{"x":1,"y":{"a":1}}\n', "the target 'y' holds struct<"),
    ],
)
def test_lines_that_are_no_table_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        csv(tmp_path, content, path="mine.jsonl")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04" + bytes(99), "no text: it is an Excel workbook or a zip; save the sheet as CSV"),
        (b"PAR1" + bytes(99), "no text: it is Parquet, which data.format: parquet reads"),
        (gzip.compress(b"x,y\n1,a\n", mtime=0), r"no text: it is compressed by gzip; its name must end in \.gz"),
    ],
)
def test_file_of_another_format_is_told_by_its_content(tmp_path: Path, content: bytes, said: str) -> None:
    for path in ("mine.csv", "mine.jsonl"):
        with pytest.raises(InvalidInputError, match=said):
            csv(tmp_path, content, path=path)
    with pytest.raises(ValueError, match="csv, parquet, jsonl and npz are; save the sheet as CSV in UTF-8"):
        options(path="mine.xlsx")


def test_nan_is_no_target_and_no_class() -> None:
    table = pa.table({"y": pa.array([1.0, np.nan, 2.0])})
    with pytest.raises(InvalidInputError, match=r"a\.parquet, row 2: the target 'y' is missing, as in 1 of 3 rows"):
        read_target_column(table, "y", TIMES)
