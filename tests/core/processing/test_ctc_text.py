"""Scores of characters become texts: repeats are one, blanks none, whichever way the graph has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight import processing
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import CtcPostprocessing
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.runtime.datatypes import Array
from tests import fakes

LETTERS = ("a", "b", "c")


def scores(*rows: str, blank: str = "-", alphabet: str = "-abc") -> Array:
    """Probabilities [batch, steps, characters] whose best are these."""
    return np.array([[[0.8 if letter == best else 0.05 for letter in alphabet] for best in row] for row in rows])


def read(values: Array, labels: tuple[str, ...] = LETTERS, **fields: object) -> tuple[list[str], list[float]]:
    finish = CtcPostprocessing(output="y", **fields)  # type: ignore[arg-type]  # fields by name
    of = (fakes.ROW[0], (TensorSpec("y", "FP32", ("batch", "steps", "characters")),))
    manifest = fakes.stepped(None, finish, of, labels)
    found = processing.postprocess_outputs(manifest, {"y": values.astype(np.float32)}, {}, ["text", "confidence"])
    return found["text"].tolist(), [round(float(value), 4) for value in found["confidence"]]


def test_repeats_are_one_character_and_blanks_none() -> None:
    assert read(scores("aa-ab", "-----", "cc--c")) == (["aab", "", "cc"], [0.8, 0, 0.8])


def test_steps_may_come_first() -> None:
    assert read(scores("a-b", "-cc").swapaxes(0, 1), layout="TNC") == (["ab", "c"], [0.8, 0.8])
    assert read(scores("a-b")[0])[0] == ["ab"]  # one example without a batch


def test_the_blank_may_be_the_last_and_the_labels_may_have_it() -> None:
    assert read(scores("a-b", alphabet="abc-"), blank=-1)[0] == ["ab"]
    assert read(scores("a-b"), labels=("[blank]", *LETTERS))[0] == ["ab"]
    assert read(scores("a-b"), labels=("other",), characters=LETTERS)[0] == ["ab"]


def test_logits_become_probabilities() -> None:
    texts, (confidence,) = read(np.log(scores("ab")) + 7, activation="softmax")
    assert (texts, confidence) == (["ab"], round(0.8 / 0.95, 4))


def test_a_character_may_stand_for_a_space() -> None:
    assert read(scores("a|b", alphabet="-ab|"), labels=("a", "b", "|"), space="|")[0] == ["a b"]


def test_characters_that_do_not_fit_are_a_sentence() -> None:
    with pytest.raises(ModelRefusedError, match="'y' has 4 classes, and the version has 1 characters; give 3, without"):
        read(scores("ab"), labels=("a",))


@pytest.mark.parametrize(("labels", "fits"), [(36, True), (37, True), (10, False), (38, False)])
def test_labels_are_counted_where_the_graph_tells(labels: int, fits: bool) -> None:
    of = (fakes.ROW[0], (TensorSpec("y", "FP32", ("batch", "steps", 37)),))
    names = tuple(map(str, range(labels)))
    if fits:
        assert fakes.stepped(None, CtcPostprocessing(output="y"), of, names).labels == names
        return
    with pytest.raises(InvalidInputError, match=rf"has {labels} labels, but the graph's 'y' takes 36 to 37"):
        fakes.stepped(None, CtcPostprocessing(output="y"), of, names)


@given(st.lists(st.text("-abc", min_size=7, max_size=7), min_size=1, max_size=5))
def test_any_path_reads_as_a_textbook_does(paths: list[str]) -> None:
    expected = []
    for path in paths:
        text = "".join(letter for place, letter in enumerate(path) if place == 0 or letter != path[place - 1])
        expected.append(text.replace("-", ""))
    assert read(scores(*paths))[0] == expected
