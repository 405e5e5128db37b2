"""Texts become the ids that the tokenizer's own library gives, padded and cut as the manifest says."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight import processing
from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import InvalidInputError, ModelRefusedError, NotFoundError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.model_cache import Assets
from tests import fakes

TOKENIZER = (Path(fakes.MODELS) / "minilm" / "tokenizer.json").read_bytes()
ASSETS = Assets({"tokenizer.json": TOKENIZER})  # opened once, as in a warm model
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def feeds(*texts: str, names: tuple[str, ...] = NAMES, datatype: Datatype = "INT64", length: int | str = "tokens",
          assets: Assets | None = None, **steps: object) -> dict[str, Array]:  # fmt: skip
    specs = tuple(TensorSpec(name, datatype, ("batch", length)) for name in names)
    manifest = fakes.stepped(TextPreprocessing(**steps), of=(specs, fakes.ROW[1]))  # type: ignore[arg-type]  # steps of Text by name
    if assets is None:
        assets = Assets({"tokenizer.json": TOKENIZER}) if steps or isinstance(length, int) else ASSETS
    return dict(processing.preprocess_inputs(manifest, {"text": np.array(texts, object)}, assets))


def test_ids_are_those_of_bert() -> None:
    found = feeds("Hello, world!")
    assert found["input_ids"].tolist() == [[101, 7592, 1010, 2088, 999, 102]]  # [CLS] hello , world ! [SEP]
    assert found["attention_mask"].tolist() == [[1] * 6]
    assert found["token_type_ids"].tolist() == [[0] * 6]


def test_shorter_texts_are_padded_to_the_longest() -> None:
    found = feeds("hello", "hello world")
    assert found["input_ids"].tolist() == [[101, 7592, 102, 0], [101, 7592, 2088, 102]]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_longer_texts_are_cut_with_their_last_token_kept() -> None:
    found = feeds("hello " * 1000, max_length=5)
    assert found["input_ids"].tolist() == [[101, 7592, 7592, 7592, 102]]
    assert feeds("hello " * 600)["input_ids"].shape == (1, 512)


def test_the_graph_gets_what_it_has_in_its_own_datatype() -> None:
    found = feeds("hello", names=("attention_mask", "input_ids"), datatype="INT32")
    assert list(found) == ["attention_mask", "input_ids"]
    assert found["input_ids"].dtype == np.int32


def test_a_graph_of_fixed_length_is_filled() -> None:
    assert feeds("hello", length=8)["input_ids"].tolist() == [[101, 7592, 102, 0, 0, 0, 0, 0]]
    assert feeds("hello " * 20, length=8)["input_ids"].shape == (1, 8)


def test_a_tokenizer_without_padding_gets_it() -> None:
    bare = json.dumps(json.loads(TOKENIZER) | {"padding": None, "truncation": None}).encode()
    found = feeds("hello", "hello world", assets=Assets({"tokenizer.json": bare}))
    assert found["input_ids"].tolist() == [[101, 7592, 102, 0], [101, 7592, 2088, 102]]


def test_the_tokenizer_is_opened_once() -> None:
    assets = Assets({"tokenizer.json": TOKENIZER})
    feeds("hello", assets=assets)
    assert feeds("hello", assets=assets)["input_ids"].tolist() == [[101, 7592, 102]]
    with pytest.raises(NotFoundError, match=r"brought no file 'other.json'; it brought \[\]"):
        assets.get_or_parse("other.json", bytes)


@pytest.mark.parametrize(
    ("texts", "hint"),
    [
        (["fine", ""], "Text 1 is empty"),
        ([" \n"], "Text 0 is empty"),
        (["a" * 1_000_001], "1,000,001 characters together, more than 1,000,000"),
    ],
)
def test_bad_texts_get_one_sentence(texts: list[str], hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        feeds(*texts)


def test_limits_are_the_manifests() -> None:
    with pytest.raises(InvalidInputError, match="4 characters together, more than 3"):
        feeds("aa", "aa", max_characters=3)
    with pytest.raises(InvalidInputError, match="Text 0 has 4 tokens, more than 3; shorten it"):
        feeds("hello world", truncate=False, max_length=3)


def test_the_shape_is_shown() -> None:
    manifest = fakes.stepped(
        TextPreprocessing(), of=((TensorSpec("input_ids", "INT64", ("batch", "tokens")),), fakes.ROW[1])
    )
    with pytest.raises(InvalidInputError, match=r"'text' has shape \[1, 2\], expected \[batch\]"):
        processing.preprocess_inputs(manifest, {"text": np.array([["a", "b"]], object)}, ASSETS)
    with pytest.raises(InvalidInputError, match=r"'text' has shape \[0\], expected \[batch\] of at least one"):
        processing.preprocess_inputs(manifest, {"text": np.array([], object)}, ASSETS)


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(ModelRefusedError, match=r"tokenizer.json is not a tokenizer.json"):
        feeds("hello", assets=Assets({"tokenizer.json": b"{}"}))


def test_inputs_that_no_tokenizer_makes_are_refused() -> None:
    with pytest.raises(ModelRefusedError, match=r"\[batch, tokens\] each, not \['pixels'\]"):
        feeds("hello", names=("input_ids", "pixels"), assets=Assets({"tokenizer.json": TOKENIZER}))


@given(st.lists(st.text(min_size=1, max_size=60).filter(str.strip), min_size=1, max_size=4))
def test_any_text_alone_is_what_it_is_in_a_batch(texts: list[str]) -> None:
    batch = feeds(*texts)
    for place, text in enumerate(texts):
        alone = feeds(text)["input_ids"][0]
        assert batch["input_ids"][place][batch["attention_mask"][place] == 1].tolist() == alone.tolist()
