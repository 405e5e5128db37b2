"""A decoder's graph and the memory it reads and writes, bound by address: what runs once for each token.

This module imports no onnxruntime; it is given a session. The names and shapes of the tensors are those of
`contracts.decoder`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotlight.contracts.decoder import (
    INPUT_IDS,
    KEEP,
    LOGITS,
    SEQUENCE_LENGTHS,
    TOTAL_LENGTH,
    DecoderSpec,
    name_cache_inputs,
    name_cache_outputs,
)
from pilotlight.errors import InvalidInputError
from pilotlight.generation.key_value_cache import CAPACITY_STEP, FloatArray, KeyValueCache
from pilotlight.native.calls import NativeCalls

CHUNK_TOKENS = 256  # of a prompt that are run at once: larger chunks are not faster, and take more memory
# A run of one token goes through other kernels than one of several, whose logits differ in the third digit. So the last
# run of a prompt has several tokens, whatever was known of it before; else the same prompt would be answered otherwise.
MIN_PROMPT_RUN = 4
MAX_LOGITS_BYTES = 32_000_000  # of the rows that are scored at once


def build_run_error(cause: str) -> InvalidInputError:
    """Build the error of a graph that does not run on its tokens."""
    return InvalidInputError(f"The language model refused the tokens: {cause}.")


RUNNING = NativeCalls("onnxruntime", build_run_error, (Exception,))  # its errors share no base class


class CausalModel:
    """Runs the decoder's graph over the tokens of a cache. Not thread-safe: it keeps buffers between runs.

    Addresses are bound once for a cache and a shape, so that a step of decoding writes three small arrays and runs.
    """

    def __init__(self, native: Any, spec: DecoderSpec, running: NativeCalls = RUNNING) -> None:  # noqa: ANN401 - onnxruntime ships no types
        """Prepare to run `native`, an onnxruntime.InferenceSession, within `running`, which translates its errors."""
        self.spec = spec
        self.make_room: Callable[[int], object] = lambda _: None  # is told the bytes that a cache is about to take
        self._native = native
        self._running = running
        self.release()

    def release(self) -> None:
        """Give back the buffers, and forget the addresses of all caches."""
        self._binding: Any = None
        self._bound_cache: tuple[int, int] | None = None
        self._bound_shape: tuple[int, int, int] | None = None
        self._scores: FloatArray = np.zeros(0, np.float32)

    def create_cache(self, rows: int = 1, capacity: int = CAPACITY_STEP) -> KeyValueCache:
        """Create an empty cache."""
        self.make_room(rows * capacity * self.spec.cache_bytes_per_token)
        return KeyValueCache(self.spec, rows, capacity)

    def forward(self, cache: KeyValueCache, tokens: Sequence[Sequence[int]], keep: int = 1) -> FloatArray:
        """Run new tokens, equally many for each row of the cache, and return logits of the last `keep` of them.

        Returns (rows, keep, vocabulary), which the next call overwrites. If there are several rows and several tokens,
        all rows must be empty, which is a limit of GroupQueryAttention.
        """
        rows, count = len(tokens), len(tokens[0])
        ends = cache.lengths + count
        longest = int(ends.max())
        if longest > cache.capacity:
            self.make_room(cache.count_growth_bytes(longest))
            cache.reserve(longest)
        with self._running:
            self._bind(cache, (rows, count, keep))
        self._tokens[:] = tokens
        self._ends[:] = ends - 1
        self._longest[...] = longest
        with self._running:
            self._native.run_with_iobinding(self._binding)
        cache.lengths[:] = ends
        return self._logits

    def prefill(
        self, cache: KeyValueCache, tokens: Sequence[int], check: Callable[[], bool] = lambda: False
    ) -> FloatArray | None:
        """Run what a cache of one row does not have of a prompt, in chunks; return the logits of its last token.

        `check` is asked before each chunk whether to stop; then the result is None. What has been run stays in the
        cache.
        """
        logits = None
        cache.reserve(len(tokens))
        while (start := int(cache.lengths[0])) < len(tokens):
            if check():
                return None
            logits = self.forward(cache, [tokens[start : find_chunk_end(start, len(tokens))]])
        return None if logits is None else logits[0, 0]

    def score(self, tokens: Sequence[int], check: Callable[[], bool] = lambda: False) -> npt.NDArray[np.float64] | None:
        """Compute the natural logarithm of each token's probability after those before it, from the second on.

        `check` is asked before each chunk whether to stop; then the result is None.
        """
        cache = self.create_cache(capacity=len(tokens))
        size = max(min(CHUNK_TOKENS, MAX_LOGITS_BYTES // (4 * self.spec.vocabulary_size)), MIN_PROMPT_RUN)
        scores = np.zeros(len(tokens) - 1)
        try:
            while (start := int(cache.lengths[0])) < len(scores):
                if check():
                    return None
                chunk = tokens[start : min(start + size, len(scores))]
                logits = self.forward(cache, [chunk], len(chunk))[0]
                following = np.asarray(tokens[start + 1 : start + 1 + len(chunk)])
                scores[start : start + len(chunk)] = compute_logprobs(logits, following)
        finally:
            self.release()  # the logits of many rows
        return scores

    def _bind(self, cache: KeyValueCache, shape: tuple[int, int, int]) -> None:
        """Bind the addresses of the cache and of buffers for `shape`: rows, tokens, kept rows of logits."""
        if self._binding is None:
            self._binding = self._native.io_binding()
        if shape != self._bound_shape:
            self._bound_shape = None  # unless all of them are bound
            self._bind_buffers(*shape)
            self._bound_shape = shape
        if (cache.serial, cache.rows) != self._bound_cache:
            self._bound_cache = None
            self._bind_cache(cache)
            self._bound_cache = cache.serial, cache.rows

    def _bind_buffers(self, rows: int, count: int, keep: int) -> None:
        self._tokens = np.zeros((rows, count), np.int64)
        self._ends = np.zeros(rows, np.int32)
        self._longest = np.zeros((), np.int32)
        self._keep = np.array([keep], np.int64)
        size = rows * keep * self.spec.vocabulary_size
        if self._scores.size < size:
            self._scores = np.zeros(size, np.float32)
        self._logits = self._scores[:size].reshape(rows, keep, self.spec.vocabulary_size)
        arrays: dict[str, npt.NDArray[Any]] = {
            INPUT_IDS: self._tokens,
            SEQUENCE_LENGTHS: self._ends,
            TOTAL_LENGTH: self._longest,
            KEEP: self._keep,
        }
        for name, array in arrays.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._bind_output(LOGITS, self._logits)

    def _bind_cache(self, cache: KeyValueCache) -> None:
        layers = range(self.spec.layers)
        pasts = [name for layer in layers for name in name_cache_inputs(layer)]
        presents = [name for layer in layers for name in name_cache_outputs(layer)]
        for past, present, whole in zip(pasts, presents, cache.arrays, strict=True):
            array = whole[: cache.rows]
            self._binding.bind_input(past, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self._bind_output(present, array)

    def _bind_output(self, name: str, array: FloatArray) -> None:
        self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)


class ChunkDeadline:
    """Tells before each chunk of a prompt whether it would end behind the deadline, by the time of the one before."""

    def __init__(self, deadline: float) -> None:
        """Begin to count; `deadline` is on time.monotonic's clock."""
        self._deadline = deadline
        self._asked_at = time.monotonic()

    def is_due(self) -> bool:
        """Return whether to stop; to be asked before each chunk."""
        before, self._asked_at = self._asked_at, time.monotonic()
        return 2 * self._asked_at - before >= self._deadline


def find_chunk_end(start: int, length: int) -> int:
    """Find where the chunk of a prompt ends that begins at `start`, so that the last one is not too short."""
    rest = length - start
    if CHUNK_TOKENS < rest < CHUNK_TOKENS + MIN_PROMPT_RUN:
        return length - MIN_PROMPT_RUN
    return min(start + CHUNK_TOKENS, length)


def compute_logprobs(logits: FloatArray, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Compute the logarithm of the probability of one token in each row of logits, (rows, vocabulary)."""
    greatest = logits.max(axis=1)
    totals = np.log(np.exp(logits - greatest[:, None]).sum(axis=1, dtype=np.float64)) + greatest
    chosen: npt.NDArray[np.float64] = logits[np.arange(len(tokens)), tokens] - totals
    return chosen
