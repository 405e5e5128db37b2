"""The keys and values of the tokens that a decoder has read, in memory that its graph writes to in place."""

from itertools import count

import numpy as np
import numpy.typing as npt

from pilotlight.contracts.decoder import CACHE_PARTS, DecoderSpec
from pilotlight.errors import OutOfMemoryError

FloatArray = npt.NDArray[np.float32]
CAPACITY_STEP = 256  # tokens by which a cache grows

_next_serial = count()


class KeyValueCache:
    """The cache of some sequences: an array of (rows, kv_heads, capacity, head_size) for each layer and part.

    `lengths` are the tokens of each row. `serial` is another number whenever the arrays are others, for those who hold
    their addresses. Memory is taken when it is first written to, and given back with the object.
    """

    def __init__(self, spec: DecoderSpec, rows: int = 1, capacity: int = CAPACITY_STEP) -> None:
        """Make room for `rows` sequences of `capacity` tokens; all are in use, and empty."""
        self._spec = spec
        self.lengths = np.zeros(rows, np.int64)
        self._allocate(rows, round_capacity(capacity, spec.context_length))

    @property
    def rows(self) -> int:
        """The number of sequences that are in use, which are the first ones of the arrays."""
        return len(self.lengths)

    @property
    def byte_count(self) -> int:
        """The memory of the arrays, in bytes."""
        return len(self.arrays[0]) * self.capacity * self._spec.cache_bytes_per_token

    def reserve(self, tokens: int) -> None:
        """Make room for sequences of so many tokens, which copies what is there if there is too little."""
        if tokens > self.capacity:
            old = self.arrays
            self._allocate(len(old[0]), round_capacity(tokens, self._spec.context_length))
            for row, length in enumerate(self.lengths.tolist()):
                copy_tokens(old, row, self.arrays, row, length)

    def rewind(self, row: int, length: int) -> None:
        """Forget the tokens of a row behind the first `length`."""
        self.lengths[row] = min(length, int(self.lengths[row]))

    def resize(self, rows: int) -> None:
        """Use the first `rows` sequences; those that come in are empty."""
        lengths = np.zeros(rows, np.int64)
        kept = self.lengths[:rows]
        lengths[: len(kept)] = kept
        self.lengths = lengths

    def copy_row(self, row: int, source: "KeyValueCache", source_row: int, length: int) -> None:
        """Make a row the first `length` tokens of a row of another cache, or of this one."""
        self.reserve(length)
        copy_tokens(source.arrays, source_row, self.arrays, row, length)
        self.lengths[row] = length

    def _allocate(self, rows: int, capacity: int) -> None:
        spec = self._spec
        shape = (rows, spec.kv_heads, capacity, spec.head_size)
        try:
            arrays = [np.zeros(shape, np.float32) for _ in range(spec.layers * len(CACHE_PARTS))]
        except MemoryError as exc:
            size = rows * capacity * spec.cache_bytes_per_token
            raise OutOfMemoryError(
                f"There is no memory for keys and values of {rows} x {capacity:,} tokens, which take {size:,} bytes; "
                "send a shorter prompt, or ask for fewer choices at once."
            ) from exc
        self.arrays: list[FloatArray] = arrays
        self.capacity = capacity
        self.serial = next(_next_serial)


def round_capacity(tokens: int, context_length: int) -> int:
    """Round a number of tokens up to a whole number of steps, but not beyond the context."""
    return min(max(-(-tokens // CAPACITY_STEP), 1) * CAPACITY_STEP, max(context_length, tokens))


def copy_tokens(
    source: list[FloatArray], source_row: int, target: list[FloatArray], target_row: int, length: int
) -> None:
    """Copy the first `length` tokens' keys and values from a row to a row."""
    for taken, given in zip(source, target, strict=True):
        given[target_row, :, :length] = taken[source_row, :, :length]
