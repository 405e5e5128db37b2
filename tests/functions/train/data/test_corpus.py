"""Documents are shared out whole, and no set has a paragraph of another."""

from itertools import combinations

import pytest

from functions.train.data import corpus
from functions.train.data.corpus import PARAGRAPH_BREAK, Documents
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import SplitFractions

EIGHTY = SplitFractions(train=0.8, validation=0.1, test=0.1)


def paragraphs(documents: Documents) -> set[str]:
    return {" ".join(part.split()) for text in documents.values() for part in PARAGRAPH_BREAK.split(text)}


def test_paragraph_stays_where_it_stands_first() -> None:
    told = {"b": "one\n\n  two\n   lines\n\nthree\n", "a": "two lines\n \nfour", "c": "four\n\none"}
    kept, cleaning = corpus.remove_repeated_paragraphs(told)
    assert kept == {"a": "two lines\n\nfour\n", "b": "one\n\nthree\n"}
    assert (cleaning.rows, cleaning.duplicates) == (7, 3)
    assert str(cleaning) == "left out of 7 paragraphs: 3 that were said before"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_set_repeats_another(seed: int) -> None:
    documents, cleaning = corpus.load_documents("topics")
    parts = corpus.split_documents(documents, EIGHTY, seed)
    assert cleaning.duplicates
    assert sum(map(len, parts.values())) == len(documents)
    for one, other in combinations(parts.values(), 2):
        assert not one.keys() & other.keys()
        assert not paragraphs(one) & paragraphs(other)
    whole = sum(len(text) for text in documents.values())
    assert sum(len(text) for text in parts["train"].values()) / whole == pytest.approx(0.8, abs=0.1)


def test_share_depends_on_the_seed_alone() -> None:
    documents, _ = corpus.load_documents("topics")
    backwards = dict(reversed(list(documents.items())))
    assert (
        corpus.split_documents(documents, EIGHTY, 0)
        == corpus.split_documents(backwards, EIGHTY, 0)
        != corpus.split_documents(documents, EIGHTY, 1)
    )
    assert corpus.hash_documents(documents) == corpus.hash_documents(backwards) != corpus.hash_documents({"a": "b"})


def test_set_without_a_document_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"data\.fractions\.\w+ is too small: no document"):
        corpus.split_documents({"a": "x", "b": "y"}, EIGHTY, 0)
