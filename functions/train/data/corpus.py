"""Built-in texts for language models, and their split into whole documents, none of which repeats another."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pydoc_data.topics import topics

import numpy as np

from functions.train.data.cleaning import CleaningReport
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import SplitFractions

Documents = Mapping[str, str]  # by name
PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")  # between two paragraphs
SETS = ("train", "validation", "test")


class TextCleaningReport(CleaningReport, frozen=True):
    """Paragraphs that were left out of a text."""

    def __str__(self) -> str:
        return f"left out of {self.rows:,} paragraphs: {self.duplicates} that were said before"


# What `import` alone brings: the texts of Python's own help(). They differ from one Python to the next, and so does
# their hash in the manifest.
BUILTIN_TEXTS: Mapping[str, Callable[[], Documents]] = {"topics": lambda: topics}


def load_documents(name: str) -> tuple[Documents, CleaningReport]:
    """Load the documents of a text, without repeated paragraphs."""
    return remove_repeated_paragraphs(BUILTIN_TEXTS[name]())


def remove_repeated_paragraphs(documents: Documents) -> tuple[Documents, CleaningReport]:
    """Keep each paragraph only where it first occurs, in the order of the documents' names, and count the others.

    A fifth of Python's help occurs twice: `compound` has all of `try`. Without this, validation and test would contain
    paragraphs of the training set. Two are the same when they differ in white space alone.
    """
    seen, kept, rows, repeats = set[str](), dict[str, str](), 0, 0
    for name in sorted(documents):
        fresh = []
        for paragraph in filter(str.strip, PARAGRAPH_BREAK.split(documents[name])):
            normalised, rows = " ".join(paragraph.split()), rows + 1
            if normalised in seen:
                repeats += 1
                continue
            seen.add(normalised)
            fresh.append(paragraph.rstrip())
        if fresh:
            kept[name] = "\n\n".join(fresh).strip("\n") + "\n"
    return kept, TextCleaningReport(rows, 0, repeats, ())


def split_documents(documents: Documents, fractions: SplitFractions, seed: int) -> dict[str, Documents]:
    """Split whole documents into training, validation and test by the seed; the fractions are of the bytes.

    In a random order, each document goes to the set whose share of the whole contains its middle.
    """
    names = sorted(documents)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.array([len(documents[names[index]].encode()) for index in order])
    middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    parts = np.digitize(middles, np.cumsum([fractions.train, fractions.validation]))
    chosen = [sorted(names[index] for index in order[parts == part]) for part in range(len(SETS))]
    for word, part in zip(SETS, chosen, strict=True):
        if not part:
            raise InvalidInputError(f"data.fractions.{word} is too small: no document falls in that set.")
    return {word: {name: documents[name] for name in part} for word, part in zip(SETS, chosen, strict=True)}


def hash_documents(documents: Documents) -> str:
    """Hash each document's name and text, each followed by a zero byte, in the order of the names; in hex."""
    words = (word for name in sorted(documents) for word in (name, documents[name]))
    return hashlib.sha256(b"".join(word.encode() + b"\0" for word in words)).hexdigest()
