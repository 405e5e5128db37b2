"""Records become rows: by columns or at once, in any numeric type, with categories and gaps."""

from typing import Any

import msgspec
import numpy as np
import pytest

from pilotlight import processing
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import TableColumn, TablePreprocessing
from pilotlight.errors import InvalidInputError
from pilotlight.processing import tabular
from pilotlight.runtime.datatypes import Array
from tests import fakes

PEOPLE = (
    TableColumn(name="age", mean=40.0, deviation=10.0, missing=40.0),
    TableColumn(name="city", categories=("Bern", "Rome", "Oslo"), missing="Rome"),
    TableColumn(name="floor", categories=("1", "2", "3"), encoding="index"),
    TableColumn(name="height", mean=1.7, deviation=0.1),
)


def rows(given: dict[str, Array], columns: tuple[TableColumn, ...] = PEOPLE) -> Array:
    """The graph's rows."""
    width = sum(column.width for column in columns)
    of = (TensorSpec("x", "FP32", ("batch", width)),), fakes.ROW[1]
    manifest = fakes.stepped(TablePreprocessing(input="x", columns=columns), of=of)
    return processing.preprocess_inputs(manifest, given)["x"]


def texts(*values: str | None) -> Array:
    return np.array(values, object)


def people(**changes: Array) -> dict[str, Array]:
    right = {"age": np.array([30, 50]), "city": texts("Oslo", "Bern"), "floor": np.array([2, 1]),
             "height": np.array([1.6, 1.9], np.float32)}  # fmt: skip
    return {**right, **changes}


def test_columns_become_rows() -> None:
    found = rows(people())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[-1, 0, 0, 1, 1, -1], [1, 1, 0, 0, 0, 2]], atol=1e-5)


def test_a_column_may_be_two_dimensional() -> None:
    np.testing.assert_array_equal(rows(people(age=np.array([[30.0], [50.0]]))), rows(people()))


def test_numbers_may_come_as_text() -> None:
    given = people(age=texts("30", " 5e1 "), floor=texts("2", "1"), height=texts("1.6", "1.9"))
    np.testing.assert_allclose(rows(given), rows(people()), atol=1e-5)


@pytest.mark.parametrize(
    ("categories", "written"),
    [
        (("1", "2"), ["1.0", "2.00", "2", "1"]),  # pandas writes whole numbers so where some are missing
        (("1.0", "2.0"), ["1", "2", "2.0", "1.00"]),
        (("False", "True"), ["FALSE", "true", "True", "false"]),  # R and JSON
        ((" red", "blue "), ["red", "blue", " blue", "red "]),
    ],
)
def test_a_category_is_known_however_it_is_written(categories: tuple[str, str], written: list[str]) -> None:
    column = TableColumn(name="a", categories=categories, encoding="index", unknown="refuse")
    assert rows({"a": texts(*written)}, (column,)).ravel().tolist() == [0, 1, 1, 0]


def test_categories_that_are_alike_are_not_taken_for_each_other() -> None:
    column = TableColumn(name="a", categories=("1", "1.0", "007"), encoding="index", unknown="refuse")
    assert rows({"a": texts("1", "1.0", "007")}, (column,)).ravel().tolist() == [0, 1, 2]
    for text in ("1.00", "7", "7.0", "red"):
        with pytest.raises(InvalidInputError, match=r"which is none of"):
            rows({"a": texts(text)}, (column,))


@pytest.mark.parametrize("gap", ["NA", "nan", "NULL", "#N/A", " "])
def test_words_for_a_missing_value_are_those_of_a_csv_body(gap: str) -> None:
    found = rows(people(age=texts(gap, "50"), city=texts(gap, "Bern")))
    np.testing.assert_array_equal(found, rows(people(age=np.array([np.nan, 50.0]), city=texts(None, "Bern"))))
    known = TableColumn(name="a", categories=("NA", "EU"), missing="EU")  # Namibia, or North America
    assert rows({"a": texts("NA", "")}, (known,)).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("text", ["1_000", "٣", "0x1F", "1e", "infinity"])
def test_what_python_alone_takes_for_a_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"Column .age., row 0, is .*, expected a number"):
        rows(people(age=texts(text, "50")))


def test_truth_values_may_come_as_text() -> None:
    found = rows({"a": texts("True", "false", "1", "FALSE")}, (TableColumn(name="a"),))
    assert found.ravel().tolist() == [1, 0, 1, 0]


def test_all_columns_at_once() -> None:
    table = np.array([["30", "Oslo", "2", "1.6"], ["50", "Bern", "1", "1.9"]], object)
    np.testing.assert_allclose(rows({"table": table}), rows(people()), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int8, np.uint16, np.float16])
def test_numbers_at_once_in_any_type(dtype: type) -> None:
    columns = (TableColumn(name="a", mean=1.0), TableColumn(name="b", deviation=2.0))
    np.testing.assert_array_equal(rows({"table": np.array([[1, 2], [3, 4]], dtype)}, columns), [[0, 1], [2, 2]])


@pytest.mark.parametrize("gap", [np.array([np.nan, 50]), texts(None, "50"), texts("", "50"), texts("nan", "50")])
def test_missing_numbers_are_filled_in(gap: Array) -> None:
    assert rows(people(age=gap))[0, 0] == 0


@pytest.mark.parametrize("gap", [None, "", " "])
def test_missing_categories_are_filled_in(gap: str | None) -> None:
    assert rows(people(city=texts(gap, "Bern")))[0, 1:4].tolist() == [0, 1, 0]


CITIES = ("Bern", "Rome", "Oslo")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ({"missing": "Rome"}, [0, 1, 0]),
        ({}, [0, 0, 0]),
        ({"missing": "Rome", "unknown": "zeros"}, [0, 0, 0]),
        ({"encoding": "index", "missing": "Rome"}, [1]),
        ({"encoding": "index", "missing": "nan"}, [np.nan]),
        ({"encoding": "index", "unknown": "zeros"}, [-1]),
        ({"encoding": "index", "missing": "Rome", "unknown": "zeros"}, [-1]),
    ],
)
def test_an_unknown_category_costs_no_row(column: dict[str, Any], expected: list[float]) -> None:
    columns = (TableColumn(name="city", categories=CITIES, **column),)
    found = rows({"city": texts("Oslo", "Paris", "Bern")}, columns)
    np.testing.assert_array_equal(found[1], expected)
    np.testing.assert_array_equal(found[[0, 2]], rows({"city": texts("Oslo", "Bern")}, columns))


@pytest.mark.parametrize("column", [{"unknown": "refuse", "missing": "Rome"}, {"encoding": "index"}])
def test_an_unknown_category_is_refused_where_the_manifest_says_so_or_nothing_stands_for_it(
    column: dict[str, Any],
) -> None:
    with pytest.raises(
        InvalidInputError, match=r"'city', row 1, is 'Paris', which is none of \['Bern', 'Rome', 'Oslo'\]"
    ):
        rows({"city": texts("Oslo", "Paris")}, (TableColumn(name="city", categories=CITIES, **column),))


def test_unknown_categories_are_counted_by_column_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("pilotlight.observability.emf.write_line", lines.append)
    monkeypatch.setattr(tabular, "UNKNOWN_CATEGORIES", tabular.UnknownCategoryCounter())
    rows(people(city=texts("Paris", "Lyon")))
    (line,) = map(msgspec.json.decode, lines)
    assert (line["column"], line["UnknownCategories"], line["model"]) == ("city", 2, "double")
    assert [one["Dimensions"] for one in line["_aws"]["CloudWatchMetrics"]] == [
        [["function"], ["function", "model", "column"]]
    ]
    assert not any(value in lines[0] for value in ("Paris", "Lyon"))
    lines.clear()
    rows(people())
    assert not lines


def test_a_flood_of_unknown_categories_shares_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("pilotlight.observability.emf.write_line", lines.append)
    now = [0.0]
    counter, manifest = tabular.UnknownCategoryCounter(lambda: now[0]), fakes.stepped(None)
    for _ in range(1000):
        counter.add(manifest, {"city": 1})
    assert len(lines) == tabular.MAX_LINES
    now[0] = 1.0
    counter.add(manifest, {"city": 2})
    assert sum(msgspec.json.decode(line)["UnknownCategories"] for line in lines) == 1002


def test_a_manifest_without_the_setting_still_opens() -> None:
    old = b'{"name": "city", "categories": ["a", "b"], "encoding": "index", "missing": "a"}'
    assert msgspec.json.decode(old, type=TableColumn).unknown == "missing"


def test_gaps_may_reach_a_graph_that_takes_them() -> None:
    assert np.isnan(rows({"a": np.array([np.nan])}, (TableColumn(name="a", missing="nan"),))).all()


def test_whole_numbers_are_categories_without_a_point() -> None:
    np.testing.assert_array_equal(rows(people(floor=np.array([2.0, 1.0]))), rows(people()))


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"floor": texts("2", "9")}, r"'floor', row 1, is '9', which is none of \['1', '2', '3'\]"),
        ({"age": texts("30", "old")}, "'age', row 1, is 'old', expected a number"),
        ({"age": np.array([30, np.inf])}, "'age', row 1, is infinite"),
        ({"age": np.array([30, 1e300])}, r"'age', row 1, is \S+e\+\d+ once scaled, beyond what float32 holds"),
        ({"height": np.array([-1e300, 1.9])}, r"'height', row 0, is -\S+ once scaled, beyond what float32 holds"),
        ({"height": np.array([np.nan, 1.9])}, "'height', row 0, is missing, and the model takes no missing values"),
        ({"floor": texts("1", None)}, "'floor', row 1, is missing"),
        ({"height": np.array([1.6])}, "'height' has 1 rows and 'age' 2; send one value for each record"),
        ({"height": np.zeros((2, 2))}, r"'height' has shape \[2, 2\], expected \[batch\]"),
        ({"weight": np.zeros(2)}, r"inputs \['age', 'city', 'floor', 'height'\]; 'weight' is not one of them"),
    ],
)
def test_bad_records_get_one_sentence(changes: dict[str, Array], hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        rows(people(**changes))


def test_missing_columns_are_named() -> None:
    given = people()
    del given["age"]
    with pytest.raises(InvalidInputError, match="'age' is missing"):
        rows(given)


def test_a_table_of_the_wrong_width_shows_the_columns() -> None:
    with pytest.raises(InvalidInputError, match=r"shape \[1, 3\], expected \[batch, 4\], the columns \['age', 'city'"):
        rows({"table": np.zeros((1, 3))})


def test_the_graphs_own_tensor_passes_untouched() -> None:
    raw = np.ones((2, 6), np.float32)
    assert rows({"x": raw}) is raw


@pytest.mark.parametrize(
    ("column", "hint"),
    [({"missing": "much"}, "cannot have 'much'"), ({"categories": ("a",), "missing": "b"}, "cannot have 'b'")],
)
def test_stand_ins_must_be_values_of_the_column(column: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        TableColumn(name="x", **column)


def test_column_names_differ() -> None:
    with pytest.raises(ValueError, match="columns of the same name"):
        TablePreprocessing(input="x", columns=(TableColumn(name="a"), TableColumn(name="a")))
