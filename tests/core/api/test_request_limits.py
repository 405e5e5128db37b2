"""What is weighed before it is decoded; honest bodies of the largest size that can be sent pass."""

import gc
import time
from contextlib import suppress

import pytest

from pilotlight.api.request_context import RequestContext
from pilotlight.api.request_limits import (
    CSV_COST,
    INFLATED_SECONDS,
    JSON_COST,
    UNTYPED_COST,
    RequestLimits,
    TextCost,
    pause_garbage_collection,
)
from pilotlight.errors import TooLargeError
from tests import fakes

MB = 1_000_000


def fill(unit: bytes, size: int) -> bytes:
    return b"[" + b",".join([unit] * (size // (len(unit) + 1))) + b"]"


@pytest.mark.parametrize(
    "text",
    [fill(b"0", 6 * MB), fill(b"0.123456", 6 * MB), fill(b"[0.5,1.5,2.5]", 6 * MB), fill(b'"a word"', 6 * MB)],
    ids=["zeros", "floats", "rows", "texts"],
)
@pytest.mark.parametrize("cost", [JSON_COST, UNTYPED_COST], ids=["typed", "untyped"])
def test_honest_bodies_of_the_largest_size_pass(text: bytes, cost: TextCost) -> None:
    assert RequestLimits(fakes.FixedMemory(1500 * MB), RequestContext()).check_text(text, cost) > 0


@pytest.mark.parametrize(
    ("text", "cost", "free", "hint"),
    [
        (fill(b"[[[[0]]]]", 6 * MB), JSON_COST, 300, "600,000 values in 2,400,001 lists; decoding them would take"),
        (
            fill(b"0", 60 * MB),
            JSON_COST,
            5000,
            "1,500 ms, and 5,000 MB and 600 ms may be taken, enough for 11,999,99",
        ),
        (fill(b"{}", 20 * MB), UNTYPED_COST, 5000, "enough for"),
        (b"x\n" + b"0\n" * 10 * MB, CSV_COST, 5000, "10,000,002 values in 10,000,001 lists"),
        (fill(b"NaN", 20 * MB), JSON_COST, 5000, "5,000,000 values in 1 lists"),
    ],
    ids=["nested", "zeros", "objects", "lines", "NaN"],
)
def test_what_decodes_to_too_much_is_refused(text: bytes, cost: TextCost, free: int, hint: str) -> None:
    with pytest.raises(TooLargeError, match="decoding them would take about") as caught:
        RequestLimits(fakes.FixedMemory(free * MB), RequestContext()).check_text(text, cost)
    assert hint in str(caught.value)


def test_small_texts_are_not_weighed() -> None:
    assert RequestLimits(fakes.FixedMemory(0), RequestContext()).check_text(b"[" * 200_000, JSON_COST) == 0


@pytest.mark.parametrize(("count", "passes"), [(1_050_000, True), (8_000_000, False)])
def test_elements_are_weighed_by_their_number(count: int, *, passes: bool) -> None:
    limits = RequestLimits(fakes.FixedMemory(1500 * MB), RequestContext())
    if passes:
        limits.check_elements("text", count, 4 * count)
        return
    with pytest.raises(
        TooLargeError, match=r"Input 'text' has 8,000,000 elements; decoding them .* enough for 1,090,909"
    ):
        limits.check_elements("text", count, 4 * count)


def test_a_body_that_could_not_have_been_sent_as_it_is_has_less_time() -> None:
    context = RequestContext()
    limits = RequestLimits(fakes.FixedMemory(1500 * MB), context)
    limits.note_decompressed(6 * MB)
    assert context.deadline > time.monotonic() + 1000
    limits.note_decompressed(6 * MB + 1)
    assert context.deadline <= time.monotonic() + INFLATED_SECONDS
    assert limits.get_body_bytes(128 * MB) == 128 * MB
    assert RequestLimits(fakes.FixedMemory(100 * MB), context).get_body_bytes(128 * MB) == 25 * MB


def test_the_collector_is_paused_and_works_again() -> None:
    seen: list[bool] = []
    with suppress(ValueError), pause_garbage_collection():
        seen.append(gc.isenabled())
        int("no")
    seen.append(gc.isenabled())
    assert seen == [False, True]
