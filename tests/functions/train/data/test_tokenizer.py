"""Any text becomes tokens and comes back, and the tokens know their bytes."""

import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from functions.train.data.tokenizer import END_OF_TEXT, Tokenizer

TEXTS = ["the cat sat on the mat\n", "the mat is on the cat\n\n   def sat(the):\n"] * 3
LEARNED = Tokenizer.train_from_texts(TEXTS, 300)


@given(st.text())
def test_text_comes_back_byte_by_byte(text: str) -> None:
    numbers = LEARNED.encode_documents([text])
    assert LEARNED.decode_tokens(numbers[1:].tolist()) == text
    assert LEARNED.byte_lengths[numbers].sum() == len(text.encode())


def test_documents_begin_with_their_mark() -> None:
    end = LEARNED.tokens.index(END_OF_TEXT)
    stream = LEARNED.encode_documents(["the cat", "", "sat"])
    assert [place for place, token in enumerate(stream) if token == end] == [0, len(stream) - 3, len(stream) - 2]
    assert LEARNED.byte_lengths[end] == 0


def test_learning_is_repeatable_and_saved_whole() -> None:
    assert Tokenizer.train_from_texts(TEXTS, 300).json_document == LEARNED.json_document
    read = tokenizers.Tokenizer.from_str(LEARNED.json_document)
    assert read.encode("the cat").ids == LEARNED.encode_documents(["the cat"])[1:].tolist()


def test_what_is_frequent_becomes_one_token() -> None:
    assert 257 < len(LEARNED.tokens) <= 300
    assert len(LEARNED.encode_documents([" the cat"])) < len(LEARNED.encode_documents([" zyx wvu"]))
