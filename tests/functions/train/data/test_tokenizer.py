"""Any text becomes tokens and comes back, and the tokens know their bytes."""

import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from functions.train.data.tokenizer import END, Tokenizer

TEXTS = ["the cat sat on the mat\n", "the mat is on the cat\n\n   def sat(the):\n"] * 3
LEARNED = Tokenizer.learned(TEXTS, 300)


@given(st.text())
def test_text_comes_back_byte_by_byte(text: str) -> None:
    numbers = LEARNED.stream([text])
    assert LEARNED.words(numbers[1:].tolist()) == text
    assert LEARNED.widths[numbers].sum() == len(text.encode())


def test_documents_begin_with_their_mark() -> None:
    end = LEARNED.tokens.index(END)
    stream = LEARNED.stream(["the cat", "", "sat"])
    assert [place for place, token in enumerate(stream) if token == end] == [0, len(stream) - 3, len(stream) - 2]
    assert LEARNED.widths[end] == 0


def test_learning_is_repeatable_and_saved_whole() -> None:
    assert Tokenizer.learned(TEXTS, 300).document == LEARNED.document
    read = tokenizers.Tokenizer.from_str(LEARNED.document)
    assert read.encode("the cat").ids == LEARNED.stream(["the cat"])[1:].tolist()


def test_what_is_frequent_becomes_one_token() -> None:
    assert 257 < len(LEARNED.tokens) <= 300
    assert len(LEARNED.stream([" the cat"])) < len(LEARNED.stream([" zyx wvu"]))
