"""A sequential test: look at the evidence after every request, and still keep the promised rate of false alarms.

The evidence is an e-process: the money of somebody who bets, at fair or worse odds, against the hypothesis that all is
well. If it is true, the chance that the money ever grows to 1/alpha times the stake is at most alpha (Ville, 1939),
however often one looks. Sources: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting
(JRSS B, 2024); Shin, Ramdas and Rinaldo, E-detectors (2023); Ramdas and others, Game-theoretic statistics (2023).

This module multiplies; it depends neither on what was observed nor on who sent it.
"""

from collections.abc import Sequence

BET_COUNT = 3  # a timid, a middling and a bold bettor share the stake, since the size of a fault is not known before
BET_SIZES = (0.15, 0.5, 0.9)  # shares of the largest bet that cannot be lost below zero
ODDS_FACTORS = (2.0, 6.0, 40.0)  # how many times the allowed odds of a failure the bettors expect

MIN_EARNED, MAX_EARNED = 0.1, 4.0  # bounds of a caller's worth, so that no record is so good or bad that it stays

Factors = tuple[float, ...]  # one for each bettor


class Credit:
    """What one caller has contributed to a test, for each bettor."""

    __slots__ = ("added", "earned", "limit")

    def __init__(self, limit: float) -> None:
        """Start without any; `limit` is the largest factor by which the caller can raise the evidence."""
        self.limit = limit
        self.added = [1.0] * BET_COUNT  # the factor by which he has raised it since that was lowest
        self.earned = [1.0] * BET_COUNT  # what a stake of 1 on this caller alone would be worth, within bounds

    def is_unused(self) -> bool:
        """Whether the caller has raised nothing, so that nothing is lost without the credit."""
        return self.added == [1.0] * BET_COUNT


class SequentialTest:
    """The evidence against one hypothesis, with and without the limit to what one caller contributes.

    A part of the stake is set aside for each later block of observations, so that a fault that begins late is not
    hidden by a good record: the shares 1/2, 1/6, 1/12 and so on sum to 1, and the chance of a false alarm stays below
    alpha over all blocks together.
    """

    def __init__(self, alpha: float, block: int) -> None:
        """Test at the level `alpha`, with a new share of the stake every `block` observations."""
        self.threshold = 1 / alpha
        self._block = block
        self._count = 0
        self._limited = [0.0] * BET_COUNT
        self._unlimited = [0.0] * BET_COUNT
        self.unlimited_e_value = 0.0  # the evidence without limits, by which a fault is only suspected

    @property
    def e_value(self) -> float:
        """The evidence of all callers, each one's within its limit."""
        return sum(self._limited) / BET_COUNT

    def add(self, factors: Sequence[float], credit: "Credit") -> None:
        """Add one observation of the caller with that credit, by which the bettors' money is multiplied.

        Each bettor bets as much of his money as the caller's observations have earned him so far. What a caller adds
        beyond his limit is not paid out; less than the fair worth keeps the error rate.
        """
        if self._count % self._block == 0:
            self._stake_block(self._count // self._block + 1)
        self._count += 1
        limited, unlimited, added, earned = self._limited, self._unlimited, credit.added, credit.earned
        limit, total = credit.limit, 0.0
        for i, factor in enumerate(factors):  # comparisons instead of min and max save 2 us
            worth = earned[i]
            bet = 1 + (factor - 1) * worth / (1 + worth)
            worth *= factor
            earned[i] = MIN_EARNED if worth < MIN_EARNED else MAX_EARNED if worth > MAX_EARNED else worth
            before = added[i]
            after = before * bet
            if after > limit:
                after = limit
            added[i] = after if after > 1 else 1.0
            limited[i] *= after / before
            money = unlimited[i] * bet
            unlimited[i] = money
            total += money
        self.unlimited_e_value = total / BET_COUNT

    def _stake_block(self, number: int) -> None:
        stake = 1 / (number * (number + 1))
        for i in range(BET_COUNT):
            self._limited[i] += stake
            self._unlimited[i] += stake


def compute_rate_factors(rate: float) -> tuple[Factors, Factors]:
    """Compute the factors for a failure and for a success, where failures are allowed at `rate` (0 < rate < 1)."""
    odds = rate / (1 - rate)
    expected = [odds * factor / (1 + odds * factor) for factor in ODDS_FACTORS]
    return tuple(one / rate for one in expected), tuple((1 - one) / (1 - rate) for one in expected)


def compute_contrast_factors(
    share: float, *, on_trial: bool, value: float, center: float = 0.5, margin: float = 0.0
) -> Factors:
    """Compute the factors for a request that was given to the version on trial by chance, with the chance `share`.

    `value`, 0 to 1, is what was seen, and `center` the value that was expected before. The hypothesis: the trial's
    values are on average at most `margin` above the champion's. It needs nothing but the draw: whoever sends a request
    does not know its side (Horvitz and Thompson, 1952).
    """
    difference = (value - center) / share if on_trial else (center - value) / (1 - share)
    unit = (difference - margin) / (margin + max(center / share, (1 - center) / (1 - share)))  # -1 is the largest loss
    return tuple([1 + size * unit for size in BET_SIZES])
