"""Cleaning of a table: what cannot be learned from is left out, and counted, never silently.

It knows rows, columns and answers, not what they mean. Whether a value is plausible is for whoever knows the data.
"""

from typing import Any

import numpy as np
from msgspec import Struct

Array = np.ndarray[Any, Any]


class Cleaning(Struct, frozen=True):
    """What was left out of a table, in the order in which it was."""

    rows: int  # as they came
    missing: int  # rows with a value or answer that is not a finite number
    duplicates: int  # rows that repeat another, answer and all: in training and test set they would leak
    constant: tuple[str, ...]  # columns with one value everywhere, from which nothing can be learned

    def __str__(self) -> str:
        columns = ", ".join(self.constant) or "none"
        return (
            f"left out of {self.rows:,} rows: {self.missing} with missing values, {self.duplicates} duplicates; "
            f"constant columns: {columns}"
        )


def clean(rows: Array, answers: Array, names: tuple[str, ...]) -> tuple[Array, Array, tuple[str, ...], Cleaning]:
    """The rows (N, columns), answers (N,) and column names that are kept, in their order, and what was left out."""
    whole = np.isfinite(rows).all(axis=1) & np.isfinite(answers)
    first = np.sort(np.unique(np.column_stack([rows, answers])[whole], axis=0, return_index=True)[1])
    kept = np.flatnonzero(whole)[first]
    varied = np.ptp(rows[kept], axis=0) > 0 if len(kept) else np.ones(len(names), bool)
    constant = tuple(name for name, varies in zip(names, varied, strict=True) if not varies)
    columns = tuple(name for name in names if name not in constant)
    missing, duplicates = int((~whole).sum()), int(whole.sum() - len(kept))
    return rows[kept][:, varied], answers[kept], columns, Cleaning(len(rows), missing, duplicates, constant)
