"""Right answers in the forms that people bring them, and files that are none: taken, or one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.train.convert.evaluation_data import ExampleSet, convert_to_datatype, load_examples, read_npz_arrays
from functions.train.convert.right_answers import RightAnswers, Unjudged, interpret_answers
from functions.train.convert.variants import QuantizationSource
from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.example_batches import BatchLayout, find_layout, generate_answers, run_examples
from pilotlight.runtime.session import Session, open_session
from tests.functions.train.convert.graphs import INT64, node, save, save_dense, value, weights

SCORES = np.zeros((2, 3), np.float32)
NUMBER = np.zeros((2, 1), np.float32)
CLASSES_THEMSELVES = np.zeros(2, np.int64)  # of a graph that ends in ArgMax
LABELS = ("cat", "dog", "emu")


def interpret(values: Any, scores: Any = SCORES, labels: tuple[str, ...] = ()) -> RightAnswers:  # noqa: ANN401
    """What values mean; they can be judged."""
    found = interpret_answers("e.npz", np.asarray(values), scores, labels)
    assert isinstance(found, RightAnswers)
    return found


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 2, 1], ()),
        ([[0], [2], [1]], ()),
        ([0.0, 2.0, 1.0], ()),
        (["cat", "emu", "dog"], LABELS),
        (["cat ", "emu", " dog"], LABELS),
        ([["cat"], ["emu"], ["dog"]], LABELS),
        (["0", "2", "1"], ()),
        ([[1, 0, 0], [0, 0, 1], [0, 1, 0]], ()),
        ([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]], LABELS),
        (np.array([0, 2, 1], np.uint8), LABELS),
    ],
)
def test_classes_come_in_many_forms(values: Any, labels: tuple[str, ...]) -> None:  # noqa: ANN401
    found = interpret(values, labels=labels)
    assert found.values.tolist() == [0, 2, 1]
    assert found.values.dtype == np.int64
    assert found.classes == (labels or ("0", "1", "2"))
    assert found.metric == "accuracy"


def test_two_classes_may_be_signs_or_booleans() -> None:
    two = np.zeros((2, 2), np.float32)
    assert interpret([-1, 1, 1], two).values.tolist() == [0, 1, 1]
    assert interpret([-1.0, 1.0], two).values.tolist() == [0, 1]
    assert interpret([True, False], two).values.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "labels", "said"),
    [
        ([0, -1, 2], (), "e.npz: the right answer of row 1 is -1; classes count from 0"),
        ([0, 7], (), "e.npz: the right answers go up to class 7, in row 1, and the graph gives scores for 3 classes"),
        ([0, np.inf], (), "the right answer of row 1 is inf, and the graph gives scores for 3 classes"),
        ([0, 1e30], (), "the right answer of row 1 is 1e+30"),
        (np.array([0, 2**63 + 5], np.uint64), (), f"the right answer of row 1 is {2**63 + 5}"),
        (["0", "9" * 30], (), "the right answer of row 1 is 999999999"),
        (["0", "9" * 5000], (), "the right answer of row 1 is 999999999"),
        (["²", "1"], (), "the right answers are texts such as '²'"),
        ([0.0, 0.5], (), "the right answer of row 1 is 0.5, and the graph gives scores for 3 classes"),
        ([0.0, np.nan], (), "the right answer of row 1 is nan"),
        (["cat", "cow"], LABELS, "row 1 is 'cow', which is no label of the model: 'cat', 'dog', 'emu'."),
        (
            ["cat", "cow"],
            (),
            "the right answers are texts such as 'cat', and the model has no labels; give --labels FILE",
        ),
    ],
)
def test_wrong_classes_are_told_with_their_row(values: Any, labels: tuple[str, ...], said: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidInputError) as raised:
        interpret(values, labels=labels)
    assert said in str(raised.value)


def test_rows_of_ones_tell_the_class_of_a_graph_that_answers_classes() -> None:
    for labels in ((), LABELS):
        found = interpret(np.eye(3)[[0, 2, 1]], CLASSES_THEMSELVES, labels)
        assert (found.values.tolist(), found.classes) == ([0, 2, 1], labels or ("0", "1", "2"))


def test_numbers_are_numbers() -> None:
    for values in ([1, 2], [1.0, 2.0], [[1.0], [2.0]], [False, True]):
        found = interpret(values, NUMBER)
        assert (found.values.shape, found.values.dtype, found.metric) == ((2, 1), np.float32, "r2")
    assert interpret([1.5, 2], np.zeros(2, np.float32)).classes == ()
    with pytest.raises(InvalidInputError, match="right answer of row 1 is nan; leave it out"):
        interpret([1.0, np.nan], NUMBER)


@pytest.mark.parametrize(
    ("values", "scores"),
    [
        (np.zeros((4, 5, 5)), np.zeros((2, 22, 64), np.float32)),
        (np.zeros((4, 3)) + 0.3, SCORES),
        (np.zeros((4, 9)), SCORES),
        (np.zeros(4), np.zeros((2, 3, 8, 8), np.float32)),
        (np.array(["a", "b"]), NUMBER),
        (np.zeros((2, 4)), NUMBER),
        (np.ones(4), NUMBER),
        (np.zeros((4, 2, 2), np.int64), SCORES),
        (np.zeros((4, 3), np.int64), CLASSES_THEMSELVES),
        (np.zeros((4, 3, 3), np.int64), CLASSES_THEMSELVES),
    ],
)
def test_what_cannot_be_judged_is_not_guessed(values: Any, scores: Any) -> None:  # noqa: ANN401
    found = interpret_answers("e.npz", values, scores)
    assert isinstance(found, Unjudged)
    assert found.reason
    assert not found.reason.endswith(".")


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=20), st.sampled_from(["int8", "int64", "float32", "U8", "rows"])
)
def test_every_form_of_the_same_classes_means_the_same(classes: list[int], form: str) -> None:
    values = np.array(classes)
    values = np.eye(3)[values] if form == "rows" else values.astype(form)
    assert interpret(values).values.tolist() == classes


def test_answers_for_each_step_have_a_class_each() -> None:
    found = interpret(np.array([[0, 2], [1, 1]]), np.zeros((2, 2, 3), np.float32))
    assert found.values.shape == (2, 2)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda file: file.write_bytes(b""), "it is empty"),
        (lambda file: file.write_text("a,b\n1,2\n"), "it is text"),
        (lambda file: file.write_bytes(b"\x80\x04N."), "it is a pickle, which is not opened"),
        (lambda file: file.write_bytes(b"PK\x03\x04cut"), "it is a zip that is cut off or damaged"),
        (lambda file: np.save(file.with_suffix(".npy"), np.zeros(3)), "it is one array without a name"),
        (lambda file: np.savez(file), "is not an npz of plain arrays"),
        (lambda file: np.savez(file, x=np.array([{}], object)), "its 'x' holds Python objects"),
        (lambda file: np.savez(file, x=np.zeros(2, complex)), "its 'x' is of type complex128"),
        (lambda file: None, "Cannot read"),
    ],
)
def test_files_that_are_no_npz_are_told(tmp_path: Path, write: Any, said: str) -> None:  # noqa: ANN401
    write(tmp_path / "e.npz")
    for array in tmp_path.glob("*.npy"):
        array.rename(tmp_path / "e.npz")
    with pytest.raises(InvalidInputError) as raised:
        read_npz_arrays(tmp_path / "e.npz")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_cut_off_npz_is_told(tmp_path: Path) -> None:
    file = tmp_path / "e.npz"
    np.savez(file, x=np.arange(10_000))
    data = bytearray(file.read_bytes())
    data[4000] ^= 255
    file.write_bytes(data)
    with pytest.raises(InvalidInputError, match="its 'x' is cut off or damaged"):
        read_npz_arrays(file)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((4, 256)), "y": np.int64(3)}, "'y' is a single value, and not one right answer per example"),
        ({"x": np.zeros(()), "y": np.zeros(4)}, "'x' has shape [], the graph takes [-1, 256]"),
        ({"x": np.zeros((0, 256)), "y": np.zeros(0)}, "holds arrays of [0] examples; all must have the same, some"),
        ({"x": np.zeros((4, 256)), "y": np.zeros(5)}, "holds arrays of [4, 5] examples"),
        ({"x": np.full((4, 256), "a"), "y": np.zeros(4)}, "'x' is <U1, the graph takes FP32"),
        (
            {"x": np.zeros((4, 256)), "x.batch_axis": np.array(7), "y": np.zeros(4)},
            "'x.batch_axis' is 7; 'x' has 2 axes",
        ),
        ({"x": np.zeros(4), "x.batch_axis": 1, "y": np.zeros(4)}, "'x' has shape [4], the graph takes [-1, 256]"),
        (
            {"x": np.zeros((4, 256)), "x.batch_axis": -7, "y": np.zeros(4)},
            "an input that all share; it is -7",
        ),
        ({"x": np.where(np.arange(1024).reshape(4, 256) == 600, np.nan, 0), "y": np.zeros(4)}, "row 2 of 'x' has NaN"),
    ],
)
def test_examples_that_do_not_fit_are_told(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    session = open_session(str(save_dense(tmp_path / "m.onnx", ["N", 256])))
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(InvalidInputError) as raised:
        load_examples(tmp_path / "e.npz", session, with_targets=True)
    assert said in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_gaps_are_taken_where_the_graph_takes_them(tmp_path: Path) -> None:
    nodes = [node("IsNaN", "x", "gap"), node("Where", "gap zero x", "full"), node("MatMul", "full a", "y")]
    constants = {"a": weights(4, 3), "zero": np.zeros((), np.float32)}
    graph = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 4])], [value("y", ["N", 3])], constants)
    x = np.full((5, 4), np.nan)
    np.savez(tmp_path / "e.npz", x=x, y=np.zeros(5))
    assert len(load_examples(tmp_path / "e.npz", open_session(str(graph)), with_targets=True)) == 5


def test_of_several_arrays_the_one_named_as_the_output_is_right(tmp_path: Path) -> None:
    session = open_session(str(save_dense(tmp_path / "m.onnx", ["N", 256])))
    np.savez(tmp_path / "e.npz", x=np.zeros((4, 256)), y=np.arange(4), other=np.zeros(9))
    assert load_examples(tmp_path / "e.npz", session, with_targets=True).target_name == "y"


@pytest.mark.parametrize(
    ("datatype", "values", "said"),
    [
        ("UINT8", np.array([[3], [300]]), "'x' has 300 in row 1, which UINT8"),
        ("UINT8", np.array([[3], [-1]], np.int8), "'x' has -1 in row 1"),
        ("INT32", np.array([[2**40]]), "'x' has 1099511627776 in row 0"),
        ("INT64", np.array([[1e30]]), "'x' has 1e+30 in row 0"),
        ("INT64", np.array([[2**63]], np.uint64), "'x' has 9223372036854775808 in row 0"),
        ("BOOL", np.array([[2]]), "'x' has 2 in row 0"),
        ("FP16", np.array([[1e6]]), "'x' has 1000000.0 in row 0"),
        ("FP32", np.array([[1.0], [1e300]]), "'x' has 1e+300 in row 1"),
    ],
)
def test_values_that_the_graph_does_not_hold_are_told(datatype: Datatype, values: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidInputError) as raised:
        convert_to_datatype(Path("e.npz"), TensorSpec("x", datatype, ("n", 1)), values)
    assert said in str(raised.value)


@pytest.mark.parametrize("order", ["<", ">"])
def test_values_that_the_graph_holds_are_taken_from_any_machine(order: str) -> None:
    spec = TensorSpec("x", "FP32", ("n",))
    found = convert_to_datatype(Path("e.npz"), spec, np.array([1.5, np.nan, -np.inf], f"{order}f8")[::-1])
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(found, np.array([-np.inf, np.nan, 1.5], np.float32))


def test_texts_in_bytes_are_utf_8(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", y=np.array(["é".encode(), b"e"]))
    assert read_npz_arrays(tmp_path / "e.npz")["y"].tolist() == ["é", "e"]
    np.savez(tmp_path / "e.npz", y=np.array([b"\xe9", b"e"]))
    with pytest.raises(InvalidInputError, match=r"its 'y' holds b'\\xe9', which is not UTF-8"):
        read_npz_arrays(tmp_path / "e.npz")


def test_arrays_may_have_the_names_of_arguments(tmp_path: Path) -> None:
    examples = ExampleSet({"file": np.ones((2, 3))}, BatchLayout({"file": 0}), "allow_pickle", np.arange(2))
    (tmp_path / "e.npz").write_bytes(examples.npz)
    found = read_npz_arrays(tmp_path / "e.npz")
    assert {name: values.tolist() for name, values in found.items()} == {
        "file": [[1.0] * 3] * 2,
        "allow_pickle": [0, 1],
    }


@pytest.fixture
def detector(tmp_path: Path) -> Session:
    """A graph of one example that answers as many objects as there are positive numbers, and their sum."""
    nodes = [
        node("Greater", "x zero", "chosen"),
        node("NonZero", "chosen", "places"),
        node("Unsqueeze", "places first", "objects"),
        node("ReduceSum", "x", "total", keepdims=0),
    ]
    constants: dict[str, Any] = {"zero": np.zeros((), np.float32), "first": np.zeros(1, np.int64)}
    outputs = [value("total", []), value("objects", [1, 2, "objects"], INT64)]
    return open_session(str(save(tmp_path / "d.onnx", nodes, [value("x", [1, 4])], outputs, constants)))


def test_answers_of_another_shape_for_each_example_are_left_out(detector: Session) -> None:
    rows = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], np.float32)
    layout = find_layout(detector, {"x": rows})
    assert [len(part["objects"][0][0]) for part in generate_answers(detector, {"x": rows}, layout)] == [3, 1]
    found = run_examples(detector, {"x": rows}, layout)
    assert {name: values.tolist() for name, values in found.items()} == {"total": [3, 1]}


@pytest.mark.parametrize("gap", [np.nan, 0.0])
def test_lists_of_objects_have_no_right_answers_and_cost_no_publish(
    detector: Session, tmp_path: Path, gap: float
) -> None:
    rows = np.array([[1, 1, 1, 0], [1, 0, 0, gap]], np.float32)
    np.savez(tmp_path / "e.npz", x=rows, y=np.arange(2))
    if np.isnan(gap):
        with pytest.raises(InvalidInputError, match="row 1 of 'x' has NaN"):
            load_examples(tmp_path / "e.npz", detector, with_targets=True)
        return
    examples, said = load_examples(tmp_path / "e.npz", detector, with_targets=True), list[str]()
    answers = QuantizationSource(tmp_path / "d.onnx", (), evaluation=examples, show=said.append).interpret_evaluation()
    assert answers is None or not answers.classes


def test_a_sum_over_all_examples_has_no_right_answers(tmp_path: Path) -> None:
    graph = save(
        tmp_path / "m.onnx", [node("ReduceSum", "x", "y", keepdims=0)], [value("x", ["N", 4])], [value("y", [])], {}
    )
    np.savez(tmp_path / "e.npz", x=np.ones((5, 4)), y=np.arange(5))
    examples, said = load_examples(tmp_path / "e.npz", open_session(str(graph)), with_targets=True), list[str]()
    assert QuantizationSource(graph, (), evaluation=examples, show=said.append).interpret_evaluation() is None
    assert said == [
        "The right answers are not used: 'y' cannot be divided by example; how far the variants agree is measured."
    ]
