"""Texts become the ids that the tokenizer's own library gives, padded and cut as the manifest says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from pilotlight import processing
from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import InvalidInputError, ModelRefusedError, NotFoundError, TooLargeError
from pilotlight.processing import text
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
    for place, one in enumerate(texts):
        alone = feeds(one)["input_ids"][0]
        assert batch["input_ids"][place][batch["attention_mask"][place] == 1].tolist() == alone.tolist()


def tokenizer_with(pattern: str) -> bytes:
    """MiniLM's tokenizer, which first cuts texts by a pattern."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return json.dumps(json.loads(TOKENIZER) | {"pre_tokenizer": split}).encode()


def test_a_panic_of_the_tokenizer_is_one_sentence_and_the_next_text_is_answered() -> None:
    """`(a+)+$` tries 2^105 ways; the library's engine of patterns gives up, which is a panic and no Exception."""
    assets = Assets({"tokenizer.json": tokenizer_with("(a+)+$")})
    for _ in range(2):
        with pytest.raises(InvalidInputError, match=r"The tokenizer refused the texts: tokenizers panicked: Onig"):
            feeds("a" * 105 + "!", assets=assets)
    assert feeds("b", assets=assets)["input_ids"].shape == (1, 3)


def whole(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of a text that nobody cut before."""
    return list(tokenizer.encode(text).ids)


def byte_pairs() -> bytes:
    """A tokenizer of bytes as GPT-2 and its heirs have it, trained on this file."""
    native = Tokenizer(models.BPE())
    native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    native.train_from_iterator([Path(__file__).read_text()], trainer)
    return native.to_str().encode()


TOKENIZERS = {"words": TOKENIZER, "byte pairs": byte_pairs()}
PIECES = (
    "hello world ", "Donaudampfschifffahrt ", "a", "  \n", "\t", "é", "e\u0301", "日本語", "😀", "12345 ", "!?",
    "\u200d", "👩\u200d👩\u200d👧", "x" * 99 + " ", "y" * 150 + " ", "[MASK]", "<|endoftext|>", "https://a.com/b?c=d ",
    "\u0000", "שלום ",
)  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 60)), min_size=1, max_size=30))
@settings(max_examples=60)
def test_a_text_that_is_cut_first_has_the_ids_of_the_whole(name: str, parts: list[tuple[str, int]]) -> None:
    steps = TextPreprocessing(max_length=16)
    native = text.load_tokenizer(TOKENIZERS[name], steps, None)
    given_text = "".join(piece * count for piece, count in parts)
    (found,) = text.tokenize_texts(native, [given_text], steps)
    assert found.ids == whole(given_text, native)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_long_and_short_texts_together_are_each_as_alone(name: str) -> None:
    steps = TextPreprocessing(max_length=16)
    native = text.load_tokenizer(TOKENIZERS[name], steps, None)
    texts = ["hello", "a " * 5000, " " * 3000 + "late words", "x" * 120 + " y", "日" * 900, "hi"]
    found = text.tokenize_texts(native, texts, steps)
    assert [encoding.ids for encoding in found] == [encoding.ids for encoding in native.encode_batch(texts)]


def test_a_text_that_never_fills_its_tokens_is_cut_where_the_docstring_says() -> None:
    steps = TextPreprocessing(max_length=16)
    native = text.load_tokenizer(TOKENIZER, steps, None)
    limit = 256 * 16 + 256
    for spaces, expected in ((limit - 10, [101, 2397, 102]), (limit, [101, 102])):
        (found,) = text.tokenize_texts(native, [" " * spaces + "late"], steps)
        assert found.ids == expected


def test_only_the_beginning_of_a_long_text_is_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = text.encode_texts

    def count_characters(native: Tokenizer, texts: list[str]) -> list[Any]:
        encoded.append(sum(map(len, texts)))
        return encode(native, texts)

    monkeypatch.setattr(text, "encode_texts", count_characters)
    feeds("hello world " * 83_000, max_length=128)
    assert encoded == [8 * 128 + 256]


def test_many_long_texts_are_refused_before_they_are_tokenized() -> None:
    hint = r"1,000,000 characters to be tokenized, of which a request may have 400,000 .* 200 of these 500 texts fit"
    with pytest.raises(TooLargeError, match=hint):
        feeds(*["hello you " * 200] * 500)


def test_many_short_texts_are_refused_before_they_are_tokenized() -> None:
    with pytest.raises(TooLargeError, match="has 50,001 texts; send 50,000 at most at once"):
        feeds(*["a"] * 50_001)


def test_a_long_text_that_must_not_be_cut_is_refused_before_it_is_tokenized() -> None:
    with pytest.raises(TooLargeError, match="Text 1 has 4,097 characters; one for 16 tokens may have 4,096, shorten"):
        feeds("fine", "a" * 4097, truncate=False, max_length=16)
