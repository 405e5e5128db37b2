"""What a quantized variant must save, and how well it must answer, to be served."""

import numpy as np
import pytest

from functions.train.evaluation.agreement import OutputAgreement, find_worst_agreement, measure_agreements
from functions.train.evaluation.variant_choice import Gain, Loss, Quality, weigh_variant

GOOD = OutputAgreement("y", same=1.0, relative=0.01, cosine=0.9999, places=100)
CHANGED = OutputAgreement("y", same=0.95, relative=0.01, cosine=0.9999, places=100)


def judged(lost: float, agreement: OutputAgreement = GOOD, metric: str = "accuracy", examples: int = 100) -> Quality:
    """A quality by right answers."""
    return Quality((agreement,), examples, "evaluation examples", Loss(metric, lost, 0.5))


def compared(agreement: OutputAgreement, examples: int = 48) -> Quality:
    """A quality without right answers."""
    return Quality((agreement,), examples, "made up examples")


@pytest.mark.parametrize(
    ("gain", "quality", "serve", "said"),
    [
        (Gain(0.885, 1.0), judged(0.0), "fp32", "0.885 of the size and 1.00 of the time"),  # magika's
        (
            Gain(0.885, 1.0),
            judged(0.0),
            "fp32",
            "that is no gain, for which it takes 0.75 of the size or 0.8 of the time",
        ),
        (
            Gain(0.30, 1.13),
            judged(0.1, CHANGED),
            "fp32",
            "it is slower, and changes more than 1% of the answers",
        ),  # hpc's
        (Gain(0.30, 1.13), judged(0.1, CHANGED), "fp32", "95.00% of the answers keep their class"),
        (Gain(0.30, 1.13), judged(0.1), "int8", "it loses 0.10 points of accuracy, within the budget of 0.50"),
        (Gain(0.30, 0.9), judged(0.1, CHANGED), "int8", "0.300 of the size and 0.90 of the time"),
        (Gain(0.30, 1.13), judged(0.1, CHANGED, "loss"), "int8", "nats per token"),
        (Gain(0.30, 0.5), judged(0.6), "fp32", "more than the budget of 0.50"),
        (Gain(0.30, 0.5), judged(-0.6), "int8", "it gains 0.60 points"),
        (Gain(0.90, 0.79), judged(0.0), "int8", "0.79 of the time"),
        (Gain(1.01, 0.5), judged(0.0), "fp32", "no gain"),
        (Gain(0.30, 1.6, 1.0), judged(0.0), "fp32", "no gain"),
        (Gain(0.30, 1.6, 0.01), judged(0.0), "int8", "1.60 of the time"),  # that nobody notices
        (Gain(0.30, 0.5), compared(GOOD), "int8", "over 48 made up examples"),
        (Gain(0.30, 0.5), compared(GOOD, 3), "fp32", "over 3 made up examples, too few to tell: 16 are enough"),
        (
            Gain(0.30, 0.5),
            judged(0.0, examples=1),
            "fp32",
            "over 1 evaluation examples, too few to tell: 16 are enough",
        ),
        (Gain(0.30, 0.5), judged(0.0, examples=16), "int8", "it loses 0.00 points of accuracy"),
        (Gain(0.30, 0.5), compared(CHANGED), "fp32", "the floor is 99% the same, 5% apart, cosine 0.999"),
        (Gain(0.30, 0.5), Quality((), 0, ""), "fp32", "nothing tells what it loses"),
        (Gain(0.30, 0.5), judged(0.0, OutputAgreement("y", finite=False)), "fp32", "is served"),
    ],
)
def test_size_time_and_answers_are_weighed(gain: Gain, quality: Quality, serve: str, said: str) -> None:
    found, verdict = weigh_variant("int8", gain, quality)
    assert found == serve
    assert verdict.startswith(f"{serve} is served: int8 takes ")
    assert said in verdict


def test_agreement_is_that_of_all_requests_together() -> None:
    full = [{"y": np.array([[1.0, 2.0], [4.0, 3.0]])}, {"y": np.array([[0.0, 1.0]])}]
    small = [{"y": np.array([[1.0, 2.1], [3.0, 3.2]])}, {"y": np.array([[0.0, 1.0]])}]
    (found,) = measure_agreements(zip(full, small, strict=True))
    assert found.same == pytest.approx(2 / 3)
    assert found.places == 3
    assert found.max_abs == pytest.approx(1.0)
    assert found.relative == pytest.approx(0.25)
    one, other = (np.concatenate([each["y"].ravel() for each in part]) for part in (full, small))
    assert found.cosine == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_integers_and_texts_must_be_equal() -> None:
    full = {"n": np.array([1, 2, 3, 4]), "t": np.array(["a", "b"], object), "b": np.array([True])}
    small = full | {"n": np.array([1, 2, 3, 5]), "t": np.array(["a", "b", "c"], object)}
    numbers, texts, flags = measure_agreements([(full, small)])
    assert (numbers.exact, numbers.same, texts.same, flags.same) == (True, 0.75, 0.0, 1.0)
    assert find_worst_agreement((numbers, texts, flags)) == texts


def test_numbers_that_become_none_are_never_close() -> None:
    (found,) = measure_agreements([({"y": np.array([[1.0, 2.0]])}, {"y": np.array([[1.0, np.nan]])})])
    assert not found.is_close
    (both,) = measure_agreements([({"y": np.array([[np.nan, 2.0]])}, {"y": np.array([[np.nan, 2.0]])})])
    assert both.is_close


def test_classes_of_an_image_lie_along_the_second_axis() -> None:
    full, small = np.zeros((1, 2, 3, 3)), np.zeros((1, 2, 3, 3))
    full[0, 1], small[0, 1, :2] = 1, 1
    (found,) = measure_agreements([({"y": full}, {"y": small})])
    assert found.places == 9
    assert found.same == pytest.approx(2 / 3)
