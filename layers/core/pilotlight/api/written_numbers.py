"""Numbers as other tools write them: 3.0 for an integer, 1 for true, "3" and NA in a table, FLT_MAX with few digits.

The decoders take what is of a datatype as it stands, and come here with what is not (infra/decisions/0075). What is
taken here means the same number; 3.7 for an integer is not. The module knows values and datatypes, not requests.
"""

import functools
import math
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from pilotlight.contracts.manifest import Datatype
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

# The largest numbers that are rounded to the largest of each datatype, which tools write as 3.4028235e38 for FP32: from
# half a step beyond it on, they would be rounded to infinity.
LARGEST_NUMBERS: dict[Datatype, float] = {
    "FP16": math.nextafter(65_504.0 + 16.0, 0.0),
    "FP32": math.nextafter(2.0**128 - 2.0**103, 0.0),
    "FP64": sys.float_info.max,
}
EXACT_FLOAT = 2**53  # up to which every whole number is a float of its own
MAX_EXACT_BYTES = 256_000  # of a text whose whole numbers beyond that are read digit by digit
MAX_CELLS = 1_000_000  # that are converted one by one; a tool that writes more writes them as numbers
# Patterns, which few requests need: re compiles them with the first.
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?"
DECIMAL_COMMA = r"[+-]?[0-9]+,[0-9]+"
# Cells that pandas.read_csv, and so MLflow's server, treats as missing; R writes NA.
MISSING_WORDS = frozenset(
    {
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
        "NULL", "NaN", "None", "n/a", "nan", "null",
    }
)  # fmt: skip
BOOLEAN_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def cast_floats(numbers: Array, datatype: Datatype) -> Array | None:
    """Cast floats to integers or truth values; return None if one of them is another number, or may be."""
    dtype = NUMPY_DTYPES[datatype]
    if dtype.kind == "b":
        return numbers == 1 if bool(((numbers == 0) | (numbers == 1)).all()) else None
    lowest, highest = get_integer_range(datatype)
    is_same = (np.trunc(numbers) == numbers) & (np.abs(numbers) < EXACT_FLOAT)
    is_same &= (numbers >= lowest) & (numbers <= highest)
    return numbers.astype(dtype) if bool(is_same.all()) else None


def decode_whole_numbers(text: bytes, datatype: Datatype, depth: int) -> Array | None:
    """Decode lists in JSON, nested `depth` deep, whose integers or truth values are written as other numbers.

    Return None where they are no such, among them texts and null.
    """
    kind = NUMPY_DTYPES[datatype].kind
    if kind not in "biu":
        return None
    try:
        found = cast_floats(np.array(build_decoder(depth, booleans=kind == "b").decode(text), np.float64), datatype)
        if found is not None or kind == "b" or len(text) > MAX_EXACT_BYTES:
            return found
        decimals = np.array(
            build_decoder(depth, exact=True).decode(text), object
        )  # which are no texts: they are floats
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):  # the latter for ragged lists
        return None
    lowest, highest = get_integer_range(datatype)
    whole_numbers = [to_whole_number(value) for value in decimals.ravel()]
    if any(value is None or not lowest <= value <= highest for value in whole_numbers):
        return None
    return np.array(whole_numbers, NUMPY_DTYPES[datatype]).reshape(decimals.shape)


@functools.cache
def build_decoder(depth: int, *, booleans: bool = False, exact: bool = False) -> msgspec.json.Decoder[list[Any]]:
    """Build a decoder for lists of numbers, nested `depth` deep: of truth values too, or digit by digit."""
    kind: Any = Decimal if exact else bool | float if booleans else float
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def keep_digits(text: str) -> float | int:
    """Return the number of a literal with a point or an exponent; whole ones beyond a float's digits are integers."""
    number = float(text)
    if abs(number) < EXACT_FLOAT:
        return number
    whole = to_whole_number(Decimal(text))
    return number if whole is None else whole


def to_whole_number(number: Decimal) -> int | None:
    """Return a whole number of 64 bits; None for any other."""
    if not -(2**63) <= number < 2**64 or number != number.to_integral_value():
        return None
    return int(number)


class CellError(ValueError):
    """A cell is no value of its column; the text says why, with the cell."""


class InexactCellError(CellError):
    """A cell is a float that stands for several whole numbers."""


def convert_cells(values: Sequence[Any], datatype: Datatype, *, nullable: bool = False, is_text: bool = False) -> Array:
    """Convert cells, nested or flat, to an array; raise `CellError` for the first that is no value of the datatype.

    A text may be None if the input is `nullable`. If the cells are of a format that `is_text` alone, words such as TRUE
    are truth values.
    """
    shape, cells = flatten_cells(values)
    if len(cells) > MAX_CELLS and set(map(type, cells)) - {bool, int, float}:
        raise CellError(f"more than {MAX_CELLS:,} cells of texts or null; write numbers as numbers")
    convert: Callable[[object], object] = (
        partial(format_text_cell, nullable=nullable)
        if datatype == "BYTES"
        else build_number_converter(datatype, is_text=is_text)
    )
    if NUMPY_DTYPES[datatype].kind in "biu" and set(map(type, cells)) == {float}:
        found = cast_floats(np.array(cells), datatype)  # many at once, if they are as they should be
        if found is not None:
            return found.reshape(shape)
    return np.array([convert(cell) for cell in cells], NUMPY_DTYPES[datatype]).reshape(shape)


def has_points_or_exponents(values: Sequence[Any]) -> bool:
    """Return whether a column of texts, nested or flat, has numbers that are not written as integers."""
    joined = "".join(flatten_cells(values)[1])
    return any(sign in joined for sign in ".eE")


def flatten_cells(values: Sequence[Any]) -> tuple[list[int], list[Any]]:
    """Return the shape of nested lists, and their elements in order; raise `CellError` for ragged ones."""
    shape, cells = [len(values)], list(values)
    while cells and isinstance(cells[0], list):
        width = len(cells[0])
        if not all(isinstance(row, list) and len(row) == width for row in cells):
            raise CellError("it is ragged: its rows differ in length or depth")
        shape.append(width)
        cells = list(chain.from_iterable(cells))
    return shape, cells


def format_text_cell(cell: object, *, nullable: bool = False) -> str | None:
    """Return a cell as the text that a CSV would have; whole numbers have no point."""
    if isinstance(cell, str) or (cell is None and nullable):
        return cell
    if isinstance(cell, bool | int):
        return str(cell)
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else str(cell)
    raise CellError(f"{shorten_cell(cell)} is no text")


def build_number_converter(datatype: Datatype, *, is_text: bool) -> Callable[[object], float | int | None]:
    """Build the function that converts a cell to a number of the datatype, None where a float is missing."""
    words = BOOLEAN_WORDS if is_text else {}
    to_number = to_float if NUMPY_DTYPES[datatype].kind == "f" else to_integer

    def convert(cell: object) -> float | int | None:
        value = words.get(cell.strip(), cell) if isinstance(cell, str) else cell
        return to_number(parse_number(value) if isinstance(value, str) else value, cell, datatype)

    return convert


def to_float(number: object, cell: object, datatype: Datatype) -> float | None:
    """Convert the number of a cell to a float within the range of its datatype."""
    if number is None:
        return None
    if not isinstance(number, bool | int | float | Decimal):
        raise CellError(f"{shorten_cell(cell)} is no number")
    with suppress(OverflowError):  # of an integer with hundreds of digits
        if abs(value := float(number)) <= LARGEST_NUMBERS[datatype] or value != value:  # NaN alone differs from itself
            return value
    raise CellError(f"{shorten_cell(cell)} is beyond {datatype}")


def to_integer(number: object, cell: object, datatype: Datatype) -> int:
    """Convert the number of a cell to an integer, or to the 0 or 1 of a truth value."""
    kind = NUMPY_DTYPES[datatype].kind
    if number is None:
        raise CellError(f"{shorten_cell(cell)} is missing, and {datatype} has no missing value")
    if not isinstance(number, bool | int | float | Decimal):
        raise CellError(f"{shorten_cell(cell)} is no number")
    lowest, highest = (0, 1) if kind == "b" else get_integer_range(datatype)
    if isinstance(number, float) and EXACT_FLOAT <= abs(number) <= 2.0**64 and kind != "b":
        raise InexactCellError(
            f"{shorten_cell(cell)} has more digits than a float; write it without point and exponent"
        )
    if not lowest <= number <= highest:
        raise CellError(f"{shorten_cell(cell)} is beyond {datatype}")
    if number != int(number):
        raise CellError(f"{shorten_cell(cell)} is no {'truth value' if kind == 'b' else 'integer'}")
    return int(number)


def get_integer_range(datatype: Datatype) -> tuple[int, int]:
    """Return the smallest and the largest value of a datatype of integers."""
    limits = np.iinfo(NUMPY_DTYPES[datatype])
    return int(limits.min), int(limits.max)


def parse_number(text: str) -> Decimal | None:
    """Parse a cell of a number, exactly; None if it is missing, `CellError` if it is no number."""
    text = text.strip()
    if text in MISSING_WORDS:
        return None
    if re.fullmatch(NUMBER, text) is None:
        hint = ": write a point for the comma" if re.fullmatch(DECIMAL_COMMA, text) else ""
        raise CellError(f"{shorten_cell(text)} is no number{hint}")
    return Decimal(text)


def shorten_cell(cell: object) -> str:
    """Format a cell for a message."""
    text = (
        repr(cell)
        if not isinstance(cell, int) or cell.bit_length() < 256
        else f"an integer of {cell.bit_length()} bits"
    )
    return text if len(text) <= 60 else f"{text[:40]}... of {len(text):,} characters"
