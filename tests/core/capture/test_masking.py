"""What the policy drops is nowhere in what is written, what it hashes is recognised and not read."""

import base64

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight import processing
from pilotlight.capture import hashing, masking
from pilotlight.capture.hashing import KEY_PATH, load_hash_key
from pilotlight.capture.masking import MAX_EXAMPLES, CaptureSample, build_record
from pilotlight.capture.record import CaptureRecord
from pilotlight.contracts.capture_policy import CaptureExtent, CapturePolicy, Treatment
from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import ImagePreprocessing, TableColumn, TablePreprocessing, TextPreprocessing
from pilotlight.errors import DeniedError
from pilotlight.runtime.datatypes import Array
from pilotlight.storage.object_store import ObjectStore, StoredObject, open_store
from tests import fakes

SECRET = 471147.0
TABLE = TablePreprocessing(
    input="x", columns=(TableColumn(name="age"), TableColumn(name="income"), TableColumn(name="place"))
)
KEY_OF_TESTS = b"k" * 32


def of(capture: CapturePolicy | None) -> Manifest:
    return msgspec.structs.replace(fakes.stepped(TABLE), capture=capture)


def sample(manifest: Manifest, tensors: dict[str, Array], results: dict[str, Array] | None = None) -> CaptureSample:
    feeds = processing.preprocess_inputs(manifest, tensors)
    return CaptureSample(manifest, tensors, feeds, {"y": feeds["x"] * 2} if results is None else results, 0.0)


def written(capture: CapturePolicy | None, key: bytes | None = KEY_OF_TESTS) -> tuple[CaptureRecord, str]:
    """What is kept of two requests, both ways that a table is sent, of which one column is secret."""
    columns = {"age": np.array([1.0]), "income": np.array([SECRET]), "place": np.array([3.0])}
    rows = {"x": np.array([[1.0, SECRET, 3.0]], np.float32)}
    both = [build_record(sample(of(capture), tensors), key) for tensors in (columns, rows)]
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
        CapturePolicy(mask={"income": "drop", "y": "drop"}),
        CapturePolicy(mask={"income": "hash", "y": "drop"}),
        CapturePolicy(mask={"age": "keep"}, others="drop"),
        CapturePolicy(mask={"x": "drop", "y": "drop"}),
        CapturePolicy(mask={"table": "drop", "y": "drop"}),
        CapturePolicy(keep="whole", mask={"income": "drop", "y": "hash"}),
    ],
)
def test_what_is_masked_is_nowhere(mask: CapturePolicy) -> None:
    for key in (KEY_OF_TESTS, None):
        _, text = written(mask, key)
        assert "471147" not in text
        assert "942294" not in text  # the answer, which is twice as much


@given(st.dictionaries(st.sampled_from(["age", "income", "place"]), st.sampled_from(["keep", "hash", "drop"])))
def test_each_column_is_treated_as_its_policy_says(mask: dict[str, Treatment]) -> None:
    kept, _ = written(CapturePolicy(mask=mask))
    for column in ("age", "income", "place"):
        assert (column in kept.features) == (mask.get(column, "keep") == "keep")
        assert (column in kept.hashed) == (mask.get(column) == "hash")


def test_hashes_are_equal_for_equal_values_and_hang_on_key_and_field() -> None:
    one, _ = written(CapturePolicy(mask={"age": "hash", "income": "hash"}))
    other, _ = written(CapturePolicy(mask={"age": "hash", "income": "hash"}), b"another key")
    assert one == written(CapturePolicy(mask={"age": "hash", "income": "hash"}))[0]
    assert one.hashed["income"] != other.hashed["income"]
    assert hashing.hash_value(KEY_OF_TESTS, "age", 1.0) != hashing.hash_value(KEY_OF_TESTS, "place", 1.0)
    assert hashing.hash_value(KEY_OF_TESTS, "age", None) is None
    assert not written(CapturePolicy(mask={"age": "hash"}), None)[0].hashed


TEXT = (tuple(TensorSpec(name, "INT64", ("batch", "tokens")) for name in ("input_ids", "attention_mask")),
        (TensorSpec("y", "FP32", ("batch", 3)),))  # fmt: skip
FEEDS = {"input_ids": np.array([[1, 2]]), "attention_mask": np.array([[1, 1]])}
SAID = {"text": np.array([b"my secret"], object)}


def sent(keep: CaptureExtent, mask: dict[str, Treatment], tensors: dict[str, Array]) -> CaptureRecord:
    manifest = msgspec.structs.replace(
        fakes.stepped(TextPreprocessing(), of=TEXT), capture=CapturePolicy(keep=keep, mask=mask)
    )
    results = {"y": np.zeros((1, 3), np.float32)}
    return build_record(CaptureSample(manifest, tensors, FEEDS, results, 0.0), KEY_OF_TESTS)


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
    manifest = fakes.stepped(ImagePreprocessing(input="x"), of=((spec,), TEXT[1]))
    arrays = {"image": np.array([b"\x89PNG"], object)}, {"x": np.zeros((1, 3, 4, 4), np.float32)}
    assert CaptureSample(manifest, *arrays, {}, 0.0).size_bytes == 3 * 4 * 4 * 4 + 8 + 4
    assert not masking.needs_tensors(manifest)
    assert masking.needs_tensors(msgspec.structs.replace(manifest, capture=CapturePolicy(keep="whole")))
    assert masking.needs_tensors(of(None))


def test_a_large_request_is_told_by_some_of_its_examples() -> None:
    rows = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    kept = build_record(sample(of(None), {"x": rows}), None)
    assert kept.rows == 1000
    ages = kept.features["age"]
    assert len(ages) == MAX_EXAMPLES == len(set(ages))
    assert kept.answers["y[0]"] == [2 * float(age) for age in ages if age is not None]


def test_what_has_no_word_in_json_is_null() -> None:
    rows = {"x": np.array([[np.nan, np.inf, 1]], np.float32)}
    assert build_record(sample(of(None), rows), None).features == {"age": [None], "income": [None], "place": [1.0]}


class Locked(ObjectStore):
    """A store whose keys this one may not write."""

    def __init__(self, reads: bool) -> None:
        inner = open_store("memory://")
        super().__init__(inner.url, inner._store)
        self.reads = reads

    def create(self, path: str, data: bytes) -> None:
        raise DeniedError("no")

    def get(self, path: str) -> StoredObject:
        if not self.reads:
            raise DeniedError("no")
        return super().get(path)


def test_the_key_is_made_once() -> None:
    store = open_store("memory://")
    first = load_hash_key(store)
    assert first is not None
    assert len(first) == 32
    assert load_hash_key(store) == first == store.get(KEY_PATH).data


@pytest.mark.parametrize("reads", [True, False])
def test_who_may_not_make_the_key_has_none(reads: bool) -> None:
    assert load_hash_key(Locked(reads)) is None
