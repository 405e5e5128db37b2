"""What the columns of a table were taken for, in sentences; and texts that look like something else than categories."""

import re
from collections.abc import Sequence

import numpy as np

from functions.train.data import Array
from functions.train.data.target import is_numeric_text, loses_digits

MAX_NAMED = 10  # columns that a line names
MIN_NUMBERED_ROWS = 20  # rows from which on different whole numbers in each look like an index
INDEX_NAME = re.compile(r"|Unnamed: \d+|__index_level_\d+__|index")  # pandas' own, and that of R
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d{1,2}:\d{2}.*)?|\d{1,2}\.? ?[A-Za-z]{3,9}\.? ?,? ?\d{2,4}")
ODD_NUMBERS = (
    (DATE, "dates; make numbers of them, such as the year or days since, or split by them with data.time"),
    (
        re.compile(r"[+-]?\d{1,3}([,' \u00a0]\d{3})+(\.\d+)?"),
        "numbers with separators of thousands; write them without",
    ),
    (
        re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+"),
        "numbers with a decimal comma; data.decimal: ',' reads them, once thousands have no point",
    ),
    (
        re.compile(r"[$€£¥<>~]? ?[+-]?\d[\d.,]* ?(%|[$€£¥]|[A-Za-zµ°]{1,4})?"),
        "numbers with a unit or sign; write plain numbers to have them learned as such",
    ),
)


def describe_columns(names: Sequence[str], categories: Sequence[Sequence[str]]) -> str:
    """Describe which columns are numbers, and which are categories of how many values."""
    pairs = list(zip(names, categories or [()] * len(names), strict=True))
    numbers = [name for name, words in pairs if not words]
    others = [f"{name} ({len(words)})" for name, words in pairs if words]
    parts = [f"{len(numbers):,} numbers ({format_names(numbers)})"] if numbers else []
    parts += [f"{len(others):,} categories ({format_names(others)})"] if others else []
    return f"columns: {', '.join(parts)}"


def format_names(names: Sequence[str]) -> str:
    """Format some names; of very many, the first."""
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def explain_texts(words: Sequence[str]) -> str:
    """Explain what texts are that look like numbers or dates, and what to do; empty for others."""
    given = [word.strip() for word in words if word.strip()]
    if len(given) < 2 or all(map(is_numeric_text, given)):
        return ""
    for pattern, meaning in ODD_NUMBERS:
        if all(pattern.fullmatch(word) or is_numeric_text(word) for word in given):
            example = next(word for word in given if not is_numeric_text(word))
            return f"{meaning.partition(';')[0]}, such as {example[:40]!r};{meaning.partition(';')[2]}"
    return ""


def describe_category(name: str, words: Sequence[str]) -> str:
    """Describe a column of categories that look like something else; empty for others."""
    found = explain_texts(words)
    return f"column {name!r} is taken as {len(words):,} categories, and holds {found}" if found else ""


def describe_unlearned(name: str, words: Sequence[str]) -> str:
    """Describe categories that no training example has."""
    return (
        f"column {name!r}: {len(words):,} categories that no training example has ({format_names(words)}) are unknown "
        "to the model, in the scores too"
    )


def describe_lost_digits(name: str, values: Array) -> str:
    """Describe a column of numbers that differ by less than the graph's float32 tells apart; empty for others."""
    if not loses_digits(values):
        return ""
    least = np.nanmin(values[np.isfinite(values)])
    return (
        f"column {name!r} has more digits than the 24 bits that a model computes with, so that most of its values are "
        f"the same to it; subtract a constant, such as {least:.17g}"
    )


def describe_identifier(name: str, values: Array) -> str:
    """Describe a column of numbers that is another whole number in every row; empty for others."""
    if len(values) < MIN_NUMBERED_ROWS or not np.isfinite(values).all() or (np.rint(values) != values).any():
        return ""
    if len(np.unique(values)) < len(values) or np.ptp(values) > 10 * len(values):
        return ""
    return f"column {name!r} is another whole number in every row; if it only numbers them, leave it out by data.drop"


def is_row_number(name: str, values: Array) -> bool:
    """Return whether a column is the index that pandas or R wrote: by its name, and another integer in every row."""
    return bool(INDEX_NAME.fullmatch(name)) and values.dtype.kind in "iu" and len(np.unique(values)) == len(values)
