"""Cleaning of a table: what cannot be learned from is left out, and counted in a report.

Whether a value is plausible is not checked here: that takes knowledge of the data.
"""

from hashlib import blake2b
from math import prod

import numpy as np
from msgspec import Struct

from functions.train.data import Array


class CleaningReport(Struct, frozen=True):
    """What was left out of a table, in the order in which it was, and what was done with missing values and text."""

    rows: int  # as they came
    missing: int  # rows with a value or answer that is not a finite number
    duplicates: int | None  # rows that repeat another, answer included, and so would leak; None in streams
    constant: tuple[str, ...]  # columns with one value everywhere, from which nothing can be learned
    filled: int = 0  # values that were missing and that the graph fills, of the rows that stay
    encoded: tuple[str, ...] = ()  # columns of text, which became categories

    def __str__(self) -> str:
        columns = ", ".join(self.constant) or "none"
        repeated = "duplicates were not looked for" if self.duplicates is None else f"{self.duplicates} duplicates"
        said = f"left out of {self.rows:,} rows: {self.missing} with missing values, {repeated}; "
        said += f"constant columns: {columns}"
        said += f"; {self.filled:,} missing values are filled" if self.filled else ""
        return said + (f"; text as categories: {', '.join(self.encoded)}" if self.encoded else "")


def clean_table(
    rows: Array, targets: Array, column_names: tuple[str, ...], *, keep_missing: bool = False
) -> tuple[Array, Array, tuple[str, ...], CleaningReport]:
    """Return the rows (N, columns), targets (N,) and column names that are kept, in order, and a report of the rest.

    Where missing values are to be filled they stay, as NaN; a row is then only missing when its answer is.
    """
    rows = np.where(np.isfinite(rows), rows, np.nan)
    kept, missing, duplicates = find_clean_rows(rows, targets, keep_missing=keep_missing)
    varied = (
        np.array([has_distinct_values(column) for column in rows[kept].T], bool)
        if len(kept)
        else np.ones(len(column_names), bool)
    )
    constant = tuple(name for name, many in zip(column_names, varied, strict=True) if not many)
    columns = tuple(name for name in column_names if name not in constant)
    left = rows[kept][:, varied]
    report = CleaningReport(len(rows), missing, duplicates, constant, int(np.isnan(left).sum()))
    return left, targets[kept], columns, report


def find_clean_rows(rows: Array, targets: Array, *, keep_missing: bool = False) -> tuple[Array, int, int]:
    """Find the indices, ascending, of the rows to keep; count those that lack a value, and those that repeat one."""
    answered = np.isfinite(targets)
    whole = answered if keep_missing else np.isfinite(rows).all(axis=1) & answered
    kept = np.flatnonzero(whole)[find_unique_rows(np.column_stack([rows, targets])[whole])]
    return kept, int((~whole).sum()), int(whole.sum() - len(kept))


def find_unique_rows(rows: Array) -> Array:
    """Find the indices, ascending, of the rows (N, ...) that repeat no earlier one; NaN equals NaN."""
    flat = np.ascontiguousarray(rows.reshape(len(rows), prod(rows.shape[1:])) + 0.0)  # -0 + 0 is 0
    if not flat.size:
        return np.arange(len(flat))
    whole = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()
    return np.sort(np.unique(whole, return_index=True)[1])


def find_unique_examples(inputs: Array, targets: Array) -> Array:
    """Find the indices, ascending, of the examples (N, ...) that repeat no earlier one with its target (N,)."""
    first: dict[tuple[bytes, float], int] = {}
    for place, (example, target) in enumerate(zip(inputs, targets, strict=True)):
        digest = blake2b(np.ascontiguousarray(example + example.dtype.type(0)).data, digest_size=16).digest()
        first.setdefault((digest, float(target)), place)  # -0 + 0 is 0
    return np.array(list(first.values()), np.int64)


def has_distinct_values(column: Array) -> bool:
    """Return whether two different values are present."""
    present = column[~np.isnan(column)]
    return bool(len(present) and np.ptp(present) > 0)
