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
        self.capacity = round_capacity(capacity, spec.context_length)
        self.arrays = [self._create_array(rows, self.capacity) for _ in range(spec.layers * len(CACHE_PARTS))]
        self.serial = next(_next_serial)

    @property
    def rows(self) -> int:
        """The number of sequences that are in use, which are the first ones of the arrays."""
        return len(self.lengths)

    @property
    def byte_count(self) -> int:
        """The memory of the arrays, in bytes."""
        return len(self.arrays[0]) * self.capacity * self._spec.cache_bytes_per_token

    def reserve(self, tokens: int) -> None:
        """Make room for sequences of so many tokens, which copies what is there if there is too little.

        One array after the other, so that the memory for all of them is not needed twice. If there is none for one of
        them, the cache is empty from then on.
        """
        if tokens <= self.capacity:
            return
        rows, capacity = len(self.arrays[0]), round_capacity(tokens, self._spec.context_length)
        lengths = self.lengths.tolist()
        self.serial = next(_next_serial)
        try:
            for place, old in enumerate(self.arrays):
                self.arrays[place] = self._create_array(rows, capacity)
                for row, length in enumerate(lengths):
                    self.arrays[place][row, :, :length] = old[row, :, :length]
        except OutOfMemoryError:
            self.lengths[:] = self.capacity = 0  # which the next one to reserve room for tokens replaces
            raise
        self.capacity = capacity

    def count_growth_bytes(self, tokens: int) -> int:
        """Count the bytes that `reserve` takes for so many tokens, while it copies too."""
        if tokens <= self.capacity:
            return 0
        more = round_capacity(tokens, self._spec.context_length) - self.capacity
        whole = len(self.arrays[0]) * self._spec.cache_bytes_per_token
        return more * whole + self.capacity * whole // len(self.arrays)

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

    def _create_array(self, rows: int, capacity: int) -> FloatArray:
        spec = self._spec
        try:
            return np.zeros((rows, spec.kv_heads, capacity, spec.head_size), np.float32)
        except MemoryError as exc:
            size = rows * capacity * spec.cache_bytes_per_token
            raise OutOfMemoryError(
                f"There is no memory for keys and values of {rows} x {capacity:,} tokens, which take {size:,} bytes; "
                "send a shorter prompt, or ask for fewer choices at once."
            ) from exc


def round_capacity(tokens: int, context_length: int) -> int:
    """Round a number of tokens up to a whole number of steps, but not beyond the context."""
    return min(max(-(-tokens // CAPACITY_STEP), 1) * CAPACITY_STEP, max(context_length, tokens))


def copy_tokens(
    source: list[FloatArray], source_row: int, target: list[FloatArray], target_row: int, length: int
) -> None:
    """Copy the first `length` tokens' keys and values from a row to a row."""
    for taken, given in zip(source, target, strict=True):
        given[target_row, :, :length] = taken[source_row, :, :length]
