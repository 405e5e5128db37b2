"""Long texts are refused by their beginning, before all of them are split into tokens."""

from collections.abc import Callable

import pytest

from pilotlight.errors import ContextLengthError, TooLargeError
from pilotlight.generation.prompt_encoding import (
    MAX_ENCODED_CHARACTERS,
    PROBED_CHARACTERS,
    encode_fitting_prompt,
    encode_prompt,
)
from tests.fake_language_model import BEGIN_TOKEN, ByteTokenizer, FakeLanguageModel

CONTEXT = 100


class WideTokenizer(ByteTokenizer):
    """A tokenizer with a token for so many characters, which notes how long the texts are that it splits."""

    def __init__(self, width: Callable[[int], int]) -> None:
        self._width = width  # of the tokens of a text, by its length
        self.lengths: list[int] = []

    def encode(self, text: str, *, parse_special: bool = False, add_special: bool = False) -> list[int]:
        self.lengths.append(len(text))
        return [1] * -(-len(text) // self._width(len(text)))


def build_model(width: Callable[[int], int]) -> tuple[FakeLanguageModel, WideTokenizer]:
    model, tokenizer = FakeLanguageModel([], context_length=CONTEXT), WideTokenizer(width)
    model.tokenizer = tokenizer
    return model, tokenizer


@pytest.mark.parametrize(("width", "probes"), [(1, 1), (4, 1), (20, 2)])
def test_a_text_far_beyond_the_context_is_refused_by_its_beginning(width: int, probes: int) -> None:
    model, tokenizer = build_model(lambda _: width)
    with pytest.raises(ContextLengthError, match=f"has about {1_000_000 // width:,} tokens, and the model's"):
        encode_fitting_prompt(model, "x" * 1_000_000)  # type: ignore[arg-type]  # a fake
    assert tokenizer.lengths == [CONTEXT * each for each in PROBED_CHARACTERS[:probes]]


@pytest.mark.parametrize("characters", [1, 99, 1_600, 5_000, 99_000])
def test_a_text_that_fits_is_split_whole_however_long_it_is(characters: int) -> None:
    model, tokenizer = build_model(lambda _: 1_000)
    prompt = encode_fitting_prompt(model, "x" * characters)  # type: ignore[arg-type]  # a fake
    assert prompt == (BEGIN_TOKEN, *[1] * -(-characters // 1_000))
    assert tokenizer.lengths[-1] == characters


def test_a_beginning_that_is_cut_within_a_word_refuses_nothing() -> None:
    model, _ = build_model(lambda length: 8 if length == 800 else 100)  # the beginning has a hundred tokens, all has 20
    assert len(encode_fitting_prompt(model, "x" * 2_000)) == 21  # type: ignore[arg-type]  # a fake


def test_what_is_only_counted_is_bounded_too() -> None:
    model, tokenizer = build_model(lambda _: 1)
    assert len(encode_prompt(model, "x" * 1_000, with_begin=False)) == 1_000  # type: ignore[arg-type]  # a fake
    with pytest.raises(TooLargeError, match="has 2,000,001 characters; at most 2,000,000"):
        encode_prompt(model, "x" * (MAX_ENCODED_CHARACTERS + 1))  # type: ignore[arg-type]  # a fake
    assert tokenizer.lengths == [1_000]
