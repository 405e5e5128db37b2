import weakref
from typing import Any

import numpy as np
import pytest

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.errors import OutOfMemoryError
from pilotlight.generation.key_value_cache import CAPACITY_STEP, FloatArray, KeyValueCache, round_capacity


def fill(cache: KeyValueCache, row: int, tokens: int, value: float) -> None:
    for array in cache.arrays:
        array[row, :, :tokens] = value
    cache.lengths[row] = tokens


def test_growing_keeps_what_is_there(spec: DecoderSpec) -> None:
    cache = KeyValueCache(spec, rows=2)
    fill(cache, 0, 3, 1.0)
    fill(cache, 1, 5, 2.0)
    before = cache.serial
    cache.reserve(CAPACITY_STEP)
    assert cache.serial == before
    cache.reserve(CAPACITY_STEP + 1)
    assert cache.serial != before
    assert cache.capacity == 2 * CAPACITY_STEP
    assert [array[0, :, :3].min() for array in cache.arrays] == [1.0] * len(cache.arrays)
    assert [array[1, :, :5].min() for array in cache.arrays] == [2.0] * len(cache.arrays)


def test_a_row_is_copied_as_far_as_it_is_shared(spec: DecoderSpec) -> None:
    source, target = KeyValueCache(spec), KeyValueCache(spec, rows=2)
    fill(source, 0, 9, 1.0)
    target.copy_row(1, source, 0, 4)
    assert target.lengths.tolist() == [0, 4]
    assert all((array[1, :, :4] == 1.0).all() and not array[1, :, 4:].any() for array in target.arrays)
    assert not any(array[0].any() for array in target.arrays)


def test_it_knows_its_memory(spec: DecoderSpec) -> None:
    cache = KeyValueCache(spec, rows=3, capacity=300)
    assert cache.byte_count == sum(array.nbytes for array in cache.arrays)
    assert cache.byte_count == 3 * 512 * spec.cache_bytes_per_token
    cache.resize(1)
    assert cache.byte_count == 3 * 512 * spec.cache_bytes_per_token
    assert cache.rows == 1


def test_rows_that_come_in_again_are_empty(spec: DecoderSpec) -> None:
    cache = KeyValueCache(spec, rows=2)
    fill(cache, 0, 3, 1.0)
    fill(cache, 1, 5, 1.0)
    cache.resize(1)
    cache.resize(2)
    assert cache.lengths.tolist() == [3, 0]


@pytest.mark.parametrize(
    ("tokens", "context", "capacity"), [(0, 600, 256), (256, 600, 256), (257, 600, 512), (513, 600, 600), (20, 64, 64)]
)
def test_capacity_is_rounded_up_but_not_beyond_the_context(tokens: int, context: int, capacity: int) -> None:
    assert round_capacity(tokens, context) == capacity


def test_growing_takes_one_array_more_than_the_larger_ones(spec: DecoderSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KeyValueCache(spec, rows=2)
    before = cache.byte_count
    expected = cache.count_growth_bytes(CAPACITY_STEP + 1)
    assert cache.count_growth_bytes(CAPACITY_STEP) == 0
    created: list[weakref.ref[FloatArray]] = []
    peaks: list[int] = []
    zeros = np.zeros

    def create(*arguments: Any) -> FloatArray:  # noqa: ANN401 - numpy's own
        array = zeros(*arguments)
        created.append(weakref.ref(array))
        olds = sum(each.nbytes for each in cache.arrays if each.shape[2] == CAPACITY_STEP)
        peaks.append(olds + sum(each.nbytes for ref in created if (each := ref()) is not None))
        return array

    monkeypatch.setattr(np, "zeros", create)
    cache.reserve(CAPACITY_STEP + 1)
    assert max(peaks) == before + expected
    assert len(created) == len(cache.arrays)


@pytest.mark.parametrize("fitting", [0, 3])
def test_memory_that_is_not_there_is_an_error_with_its_numbers(
    spec: DecoderSpec, monkeypatch: pytest.MonkeyPatch, fitting: int
) -> None:
    cache = KeyValueCache(spec)
    fill(cache, 0, 200, 1.0)
    arrays = [np.zeros((1, spec.kv_heads, 512, spec.head_size), np.float32) for _ in range(fitting)]

    def take(*_: object) -> FloatArray:
        if not arrays:
            raise MemoryError
        return arrays.pop()

    with monkeypatch.context() as patched:
        patched.setattr(np, "zeros", take)
        with pytest.raises(OutOfMemoryError, match=r"no memory for keys and values of 1 x 512 tokens, which take \d"):
            cache.reserve(500)
    assert cache.lengths.tolist() == [0]
    cache.reserve(1)  # it is empty, and can be used
    assert {array.shape[2] for array in cache.arrays} == {cache.capacity} == {CAPACITY_STEP}
