"""What the policy drops is nowhere in what is written, what it hashes is recognised and not read."""

import base64

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight import processing
from pilotlight.capture import hashing, masking
from pilotlight.capture.hashing import KEY, secret
from pilotlight.capture.masking import ROWS, Sample, line
from pilotlight.capture.record import Line
from pilotlight.contracts.capture_policy import Capture, Extent, Treatment
from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import Column, Image, Table, Text
from pilotlight.errors import DeniedError
from pilotlight.runtime.session import Array
from pilotlight.storage.object_store import ObjectStore, Stored, open_store
from tests import fakes

SECRET = 471147.0
TABLE = Table(input="x", columns=(Column(name="age"), Column(name="income"), Column(name="place")))
KEY_OF_TESTS = b"k" * 32


def of(capture: Capture | None) -> Manifest:
    return msgspec.structs.replace(fakes.stepped(TABLE), capture=capture)


def sample(manifest: Manifest, tensors: dict[str, Array], results: dict[str, Array] | None = None) -> Sample:
    feeds = processing.prepare(manifest, tensors)
    return Sample(manifest, tensors, feeds, {"y": feeds["x"] * 2} if results is None else results, 0.0)


def written(capture: Capture | None, key: bytes | None = KEY_OF_TESTS) -> tuple[Line, str]:
    """What is kept of two requests, both ways that a table is sent, of which one column is secret."""
    columns = {"age": np.array([1.0]), "income": np.array([SECRET]), "place": np.array([3.0])}
    rows = {"x": np.array([[1.0, SECRET, 3.0]], np.float32)}
    both = [line(sample(of(capture), tensors), key) for tensors in (columns, rows)]
    assert both[0] == both[1]
    return both[0], msgspec.json.encode(both).decode()


def test_without_a_policy_summaries_are_kept() -> None:
    kept, _ = written(None)
    assert kept.features == {"age": [1.0], "income": [SECRET], "place": [3.0]}
    assert kept.answers == {"y[0]": [2.0], "y[1]": [2 * SECRET], "y[2]": [6.0]}
    assert not kept.inputs
    assert not kept.hashed


@pytest.mark.parametrize(
    "mask",
    [
        Capture(mask={"income": "drop", "y": "drop"}),
        Capture(mask={"income": "hash", "y": "drop"}),
        Capture(mask={"age": "keep"}, others="drop"),
        Capture(mask={"x": "drop", "y": "drop"}),
        Capture(mask={"table": "drop", "y": "drop"}),
        Capture(keep="whole", mask={"income": "drop", "y": "hash"}),
    ],
)
def test_what_is_masked_is_nowhere(mask: Capture) -> None:
    for key in (KEY_OF_TESTS, None):
        _, text = written(mask, key)
        assert "471147" not in text
        assert "942294" not in text  # the answer, which is twice as much


@given(st.dictionaries(st.sampled_from(["age", "income", "place"]), st.sampled_from(["keep", "hash", "drop"])))
def test_each_column_is_treated_as_its_policy_says(mask: dict[str, Treatment]) -> None:
    kept, _ = written(Capture(mask=mask))
    for column in ("age", "income", "place"):
        assert (column in kept.features) == (mask.get(column, "keep") == "keep")
        assert (column in kept.hashed) == (mask.get(column) == "hash")


def test_hashes_are_equal_for_equal_values_and_hang_on_key_and_field() -> None:
    one, _ = written(Capture(mask={"age": "hash", "income": "hash"}))
    other, _ = written(Capture(mask={"age": "hash", "income": "hash"}), b"another key")
    assert one == written(Capture(mask={"age": "hash", "income": "hash"}))[0]
    assert one.hashed["income"] != other.hashed["income"]
    assert hashing.digest(KEY_OF_TESTS, "age", 1.0) != hashing.digest(KEY_OF_TESTS, "place", 1.0)
    assert hashing.digest(KEY_OF_TESTS, "age", None) is None
    assert not written(Capture(mask={"age": "hash"}), None)[0].hashed


TEXT = (tuple(TensorSpec(name, "INT64", ("batch", "tokens")) for name in ("input_ids", "attention_mask")),
        (TensorSpec("y", "FP32", ("batch", 3)),))  # fmt: skip
FEEDS = {"input_ids": np.array([[1, 2]]), "attention_mask": np.array([[1, 1]])}
SAID = {"text": np.array([b"my secret"], object)}


def sent(keep: Extent, mask: dict[str, Treatment], tensors: dict[str, Array]) -> Line:
    manifest = msgspec.structs.replace(fakes.stepped(Text(), of=TEXT), capture=Capture(keep=keep, mask=mask))
    results = {"y": np.zeros((1, 3), np.float32)}
    return line(Sample(manifest, tensors, FEEDS, results, 0.0), KEY_OF_TESTS)


def test_texts_are_kept_where_the_policy_says_whole_and_nowhere_else() -> None:
    assert sent("summary", {}, SAID).inputs == {}
    kept = sent("whole", {}, SAID).inputs["text"]
    assert base64.b64decode(kept.data[0]) == b"my secret"
    assert sent("whole", {"text": "drop"}, SAID).inputs == {}
    hashed = sent("whole", {"text": "hash"}, SAID).inputs["text"]
    assert hashed.datatype == "HASH"
    assert "secret" not in msgspec.json.encode(hashed).decode()


def test_a_mask_of_the_callers_input_is_one_of_the_graphs() -> None:
    assert sent("whole", {"text": "drop"}, FEEDS) == sent("whole", {"text": "drop"}, SAID)
    assert set(sent("whole", {"input_ids": "drop"}, FEEDS).inputs) == {"attention_mask"}
    assert not sent("summary", {"input_ids": "drop"}, FEEDS).features


def test_images_are_not_held_unless_they_are_kept() -> None:
    spec = TensorSpec("x", "FP32", ("batch", 3, 4, 4))
    manifest = fakes.stepped(Image(input="x"), of=((spec,), TEXT[1]))
    arrays = {"image": np.array([b"\x89PNG"], object)}, {"x": np.zeros((1, 3, 4, 4), np.float32)}
    assert Sample(manifest, *arrays, {}, 0.0).bytes == 3 * 4 * 4 * 4 + 8 + 4
    assert not masking.wants_tensors(manifest)
    assert masking.wants_tensors(msgspec.structs.replace(manifest, capture=Capture(keep="whole")))
    assert masking.wants_tensors(of(None))


def test_a_large_request_is_told_by_some_of_its_examples() -> None:
    rows = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    kept = line(sample(of(None), {"x": rows}), None)
    assert kept.rows == 1000
    ages = kept.features["age"]
    assert len(ages) == ROWS == len(set(ages))
    assert kept.answers["y[0]"] == [2 * float(age) for age in ages if age is not None]


def test_what_has_no_word_in_json_is_null() -> None:
    rows = {"x": np.array([[np.nan, np.inf, 1]], np.float32)}
    assert line(sample(of(None), rows), None).features == {"age": [None], "income": [None], "place": [1.0]}


class Locked(ObjectStore):
    """A store whose keys this one may not write."""

    def __init__(self, reads: bool) -> None:
        inner = open_store("memory://")
        super().__init__(inner.url, inner._store)
        self.reads = reads

    def create(self, path: str, data: bytes) -> None:
        raise DeniedError("no")

    def get(self, path: str) -> Stored:
        if not self.reads:
            raise DeniedError("no")
        return super().get(path)


def test_the_key_is_made_once() -> None:
    store = open_store("memory://")
    first = secret(store)
    assert first is not None
    assert len(first) == 32
    assert secret(store) == first == store.get(KEY).data


@pytest.mark.parametrize("reads", [True, False])
def test_who_may_not_make_the_key_has_none(reads: bool) -> None:
    assert secret(Locked(reads)) is None
