"""Tokenizers whose patterns take all time are refused, whatever letter it is that they cannot take."""

import pytest

from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.gate import text_probe
from pilotlight.processing import text
from tests.core.processing.test_text import TOKENIZER, TOKENIZERS, tokenizer_with

STEPS = TextPreprocessing(max_length=128)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("(a+)+$", "'aaaaaaaa' again and again, fails: .*tokenizers panicked: Onig: Regex search error"),
        ("(?:qu)+(?:qu)+(?:qu)+$", "'ququququ' again and again, (fails|takes)"),
        ("z+$", r"'zzzzzzzz' again and again, takes \d+\.\d s to be tokenized, more than 0.5"),
    ],
)
def test_a_pattern_that_tries_every_way_is_found(pattern: str, hint: str) -> None:
    content = tokenizer_with(pattern)
    native = text.load_tokenizer(content, STEPS, None)
    found = text_probe.probe_tokenizer(native, content)
    with pytest.raises(AssertionError, match=hint):
        raise AssertionError(found)


def test_the_usual_ones_pass_in_a_process_of_their_own() -> None:
    assert text_probe.find_tokenizer_failure(TOKENIZERS["byte pairs"], STEPS, 128) == ""


def test_the_process_tells_what_is_wrong() -> None:
    assert "tokenizers panicked: Onig" in text_probe.find_tokenizer_failure(tokenizer_with("(a+)+$"), STEPS, None)
    assert "is not a tokenizer.json" in text_probe.find_tokenizer_failure(b"\xff", STEPS, None)


def test_letters_are_those_of_patterns_and_not_of_the_vocabulary() -> None:
    assert set(text_probe.collect_letters({"pre": [{"Regex": "x+é|(7)"}], "model": {"vocab": {"w": 1}}})) == {
        "xé7", "x", "é", "7",
    }  # fmt: skip
    assert len(list(text_probe.iterate_hostile_texts(TOKENIZER))) == len(text_probe.PIECES)
