"""Tokenizers out of GGUF metadata, against the libraries that made them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from functions.train.language_models.gguf_header import GgufHeader
from functions.train.language_models.gguf_tokenizer import (
    build_tokenizer_json,
    find_begin_token,
    find_end_tokens,
    find_special_tokens,
)
from pilotlight.errors import InvalidInputError, UnsupportedError
from tests.tiny_checkpoints import VOCABULARY, build_tokenizer
from tests.tiny_gguf import list_tokenizer_metadata

# Made by SentencePiece 0.2.3 (byte pairs, byte fallback, digits split): its tokens, scores, and the ids of texts.
SENTENCE_PIECE = Path(__file__).parents[3] / "models" / "decoders" / "sentence-piece.json"
KEY = "tokenizer.ggml."


def header(**changes: Any) -> GgufHeader:  # noqa: ANN401 - values of metadata
    changed = {KEY + key: value for key, value in changes.items()}
    metadata = {key: value for key, value in (list_tokenizer_metadata() | changed).items() if value is not None}
    return GgufHeader(Path("model.gguf"), metadata, {})


def tokenizer(**changes: Any) -> Tokenizer:  # noqa: ANN401 - values of metadata
    return Tokenizer.from_str(build_tokenizer_json(header(**changes)).decode())


def split(name: str, text: str) -> list[str]:
    """Split a text as the tokenizer does before it joins bytes; spaces are written as Ġ."""
    return [piece for piece, _ in tokenizer(pre=name).pre_tokenizer.pre_tokenize_str(text)]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_are_joined_as_by_the_tokenizer_that_the_file_was_made_of(text: str) -> None:
    own = tokenizer()
    assert own.encode(text).ids == build_tokenizer().encode(text).ids
    assert own.decode(own.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("gpt-2", ["It", "'s", "Ġ", "Ġ12345", "Ġnaïve", "ĠWE", "'", "RE", "/", "Ċ"]),
        ("smollm", ["It", "'s", "ĠĠ", "1", "2", "3", "4", "5", "Ġnaïve", "ĠWE", "'", "RE", "/", "Ċ"]),
        ("llama-bpe", ["It", "'s", "Ġ", "Ġ", "123", "45", "Ġnaïve", "ĠWE", "'RE", "/Ċ"]),
        ("qwen2", ["It", "'s", "Ġ", "Ġ", "1", "2", "3", "4", "5", "Ġnaïve", "ĠWE", "'RE", "/Ċ"]),
        ("gpt-4o", ["It's", "Ġ", "Ġ", "123", "45", "Ġnaïve", "ĠWE'RE", "/Ċ"]),
        ("tekken", ["It", "'s", "Ġ", "Ġ", "1", "2", "3", "4", "5", "Ġnaïve", "ĠWE", "'RE", "/Ċ"]),
        ("default", ["It", "'", "s", "Ġ", "Ġ", "123", "45", "Ġnaïve", "ĠWE", "'", "RE", "/", "Ċ"]),
    ],
)
def test_a_text_is_split_by_the_rules_of_the_name(name: str, pieces: list[str]) -> None:
    assert split(name, "It's  12345 naïve WE'RE/\n") == [piece.replace("ï", "Ã¯") for piece in pieces]


@pytest.mark.parametrize("name", ["prefixed", "plain"])
def test_merges_rebuilt_from_scores_join_as_sentence_piece_does(name: str) -> None:
    source = json.loads(SENTENCE_PIECE.read_text(encoding="utf-8"))[name]
    own = tokenizer(
        model="llama", tokens=source["tokens"], scores=source["scores"], token_type=source["kinds"],
        unknown_token_id=0, add_space_prefix=name == "prefixed",
    )  # fmt: skip
    special = ("<s>", "<|user|>")  # which SentencePiece takes for letters, and starts no new word after
    compared = {text: ids for text, ids in source["ids"].items() if not any(token in text for token in special)}
    assert len(compared) > 10
    for text, ids in compared.items():
        assert own.encode(text).ids == ids
        if "\u2581" not in text:
            assert own.decode(ids, skip_special_tokens=False) == text
    assert own.encode("a<|user|>b").tokens[-2] == "<|user|>"


def test_tokens_that_end_an_answer_are_found_by_their_texts_too() -> None:
    assert find_end_tokens(header(), VOCABULARY) == (2, 0)
    assert find_end_tokens(header(eos_token_id=0, eot_token_id=1), VOCABULARY) == (0, 1, 2)
    assert find_end_tokens(header(eot_token_id=7), 2) == (0,)  # the model has no embeddings of the others
    normal = tokenizer(token_type=[1] * 288)  # as old converters wrote
    assert normal.encode("<|im_end|>").ids == [2]
    assert len(normal.encode("<|im_start|>").ids) > 1
    with pytest.raises(InvalidInputError, match="names no token that ends an answer"):
        find_end_tokens(header(tokens=["a", "b"], token_type=[1, 1], eos_token_id=7), VOCABULARY)


def test_the_begin_token_is_that_which_the_file_or_its_kind_of_tokenizer_adds() -> None:
    assert find_begin_token(header(), VOCABULARY) is None
    assert find_begin_token(header(add_bos_token=True), VOCABULARY) == 0
    assert find_begin_token(header(add_bos_token=None), VOCABULARY) is None
    assert find_begin_token(header(add_bos_token=None, pre="llama-bpe"), VOCABULARY) == 0
    assert find_begin_token(header(add_bos_token=None, model="llama"), VOCABULARY) == 0
    assert find_begin_token(header(add_bos_token=True, bos_token_id=None), VOCABULARY) is None
    assert find_begin_token(header(add_bos_token=True, bos_token_id=VOCABULARY), VOCABULARY) is None
    assert find_special_tokens(header()) == {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"pre": "new-bpe"}, UnsupportedError, r"splits texts as 'new-bpe'.*Hugging Face folder instead"),
        ({"model": "t5"}, UnsupportedError, r"tokenizer of the kind 't5'; 'gpt2' and 'llama' are read"),
        ({"tokens": None}, InvalidInputError, r"has no tokenizer\.ggml\.tokens"),
        ({"token_type": [1]}, InvalidInputError, r"288 tokens, but not as many kinds"),
        ({"merges": None}, InvalidInputError, r"no list of pairs as tokenizer\.ggml\.merges"),
        ({"merges": ["ab"]}, InvalidInputError, r"no list of pairs as tokenizer\.ggml\.merges"),
        ({"model": "llama"}, InvalidInputError, r"288 tokens, but not as many scores"),
        ({"model": "llama", "scores": ["high"] * 288}, InvalidInputError, r"288 tokens, but not as many scores"),
        ({"tokens": ["a", "b" * 1025], "token_type": [1, 1]}, InvalidInputError, r"has a token of 1,025 characters"),
    ],
)
def test_what_cannot_be_read_is_refused(changes: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        build_tokenizer_json(header(**changes))
