"""Compare a canary's requests with the champion's in one environment, and decide when to stop the canary.

Three hypotheses are tested: that it fails no more often than it may, that it takes no longer, and that its answers are
no further from the champion's. For language models there is a fourth: that a token takes no longer; the time is then
that to the first text, and answers are compared by why they ended. Each environment stops it immediately and
independently; `functions/promote` then ends the canary for all (infra/decisions/0027, 0067). This module depends
neither on where alias documents are stored nor on models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
from msgspec import Struct

from pilotlight.contracts.alias import Canary
from pilotlight.errors import DeadlineError, NotFoundError, StoreError, TooLargeError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.sequential_test import (
    Factors,
    SequentialTest,
    compute_contrast_factors,
    compute_rate_factors,
)
from pilotlight.runtime.trial_callers import MAX_CALLER_STRATA, CallerAccount, CallerAccounts, TrialCaller, TypicalTime

ALPHA = 1e-5  # the chance that one environment stops a canary without reason; 1 % over 1,000 environments together
KINDS = FAILURES, LATENCY, DRIFT = ("failures", "latency", "drift")  # each is tested at a third of ALPHA
PACE = "pace"  # of the tokens of a language model
GENERATION_KINDS = (*KINDS, PACE)
MIN_CONSECUTIVE_FAILURES = 5  # consecutive failures that need not wait for `min_requests`, if they are evidence enough
MIN_ERROR_RATE = 0.001  # the smallest rate that can be tested: a limit of 0 is taken for 1 in 1,000
ALLOWANCE_MS = 5.0  # ms that a canary may take longer, whatever the ratio
BLOCK_REQUESTS = 50  # of the rarer side, after which a fault that begins then is looked for, too
MAX_BLOCK_REQUESTS = 5_000  # of both sides
WARM_UP_ANSWERS = 10  # of a canary just opened, which are slower: its first 8 runs are (runtime/deferred_prepacking.py)
ESTIMATE_FACTOR = 10  # by which a request's cost may be estimated wrongly before it is refused as too large
MIN_TIMES = 4  # times before their median counts
MAX_COMPARED_ROWS = 64  # rows of an answer whose classes are compared
CENTER_STEP = 0.05  # how fast the expected share of the drifting classes follows what is seen
FORGETTING_REQUESTS = 2_000  # requests after which what is known of classes is halved


class Finding(Struct, frozen=True):
    """That a canary is to be stopped or, where too few callers bear witness, only suspected."""

    kind: str
    reason: str
    e_value: float | None = None  # None where no test was needed
    callers: int = 0  # that have been told apart
    is_suspicion: bool = False


class Answer(Struct, frozen=True):
    """What one version answered, as far as versions are compared by it."""

    ms: float
    rows: int  # of the request
    scores: Array | None  # the first output
    is_failure: bool = False  # nobody answered in time
    token_ms: float | None = None  # of each further token of a language model


class Failure(Struct, frozen=True):
    """Why the canary did not answer, and how long the champion may take for it to be the canary's fault.

    The canary has half of the time that is left, and runs first. Whoever sends requests that need just about that much
    must not make failures of an identical canary; neither must those whose tensors appear in the store meanwhile.
    """

    reason: str
    max_champion_ms: float = inf

    @classmethod
    def from_error(cls, error: Exception, ms: float, available_ms: float) -> "Failure":
        """Build the failure of a canary that raised `error` after `ms`, of the `available_ms` that it had."""
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, DeadlineError):
            return cls(reason, ms)
        if isinstance(error, TooLargeError | MemoryError):
            return cls(reason, available_ms / ESTIMATE_FACTOR)
        return cls(reason, 0.0) if isinstance(error, NotFoundError | StoreError) else cls(reason)


class TrialRequest(Struct, frozen=True):
    """A request during a trial: the account of its caller, and whether the sides are compared by it.

    Both are settled before the side is drawn, so that they favour neither.
    """

    account: CallerAccount | None  # None if the request does not count
    is_compared: bool


class CanaryMonitor:
    """The state of a canary in this environment; `share` is the chance that a request is given to it."""

    def __init__(self, canary: Canary, share: float, kinds: Sequence[str] = KINDS) -> None:
        self.canary = canary
        self.is_stopped = False
        block = min(MAX_BLOCK_REQUESTS, round(BLOCK_REQUESTS / min(share, 1 - share)))
        alpha = ALPHA / len(kinds)
        self._failures = FailureTest(canary, SequentialTest(alpha, BLOCK_REQUESTS))
        self._latency = LatencyTest(canary, share, SequentialTest(alpha, block))
        self._drift = DriftTest(canary, share, SequentialTest(alpha, block))
        self._pace = PaceTest(canary, share, SequentialTest(alpha, block)) if PACE in kinds else None
        self._accounts = CallerAccounts([1 / alpha] * len(kinds))
        self._suspected: set[str] = set()
        self._is_open = False  # whether the canary answers here; while it does not, the sides cannot be compared
        self._answers_since_opening = 0
        self._requests = 0  # that the canary answered, or should have

    def start_request(self, caller: TrialCaller) -> TrialRequest:
        """Settle how a request will count, before its side is drawn."""
        return TrialRequest(
            self._accounts.admit(caller), self._is_open and self._answers_since_opening >= WARM_UP_ANSWERS
        )

    def record_opening(self, *, is_open: bool) -> None:
        """Note whether the canary could be asked."""
        if not (is_open and self._is_open):
            self._answers_since_opening = 0
        self._is_open = is_open

    def record_champion(self, request: TrialRequest, answer: Answer) -> Finding | None:
        """Record a request that was drawn for the champion; return what follows."""
        if request.account is None or not request.is_compared:
            return None
        return self._compare(request.account, answer, on_canary=False, by_canary=False)

    def record_canary(self, request: TrialRequest, answer: Answer) -> Finding | None:
        """Record a request that the canary answered; return what follows."""
        self._requests += 1
        self._answers_since_opening += 1
        self._failures.consecutive = 0
        if request.account is None:
            return None
        self._failures.add(request.account, failed=False)
        return self._compare(request.account, answer, on_canary=True, by_canary=True, compared=request.is_compared)

    def record_fallback(self, request: TrialRequest, answer: Answer, failure: Failure | None) -> Finding | None:
        """Record a request that was drawn for the canary and that the champion had to answer; return what follows.

        The champion's answer is compared in place of the canary's own, since to leave it out would favour a side.
        `failure` is None if the canary was not open.
        """
        is_charged = failure is not None and not answer.is_failure and self._is_slower(failure, answer)
        if failure is not None and is_charged:
            self._requests += 1
            self._failures.consecutive += 1
            self._failures.latest = failure.reason
        if request.account is None:
            return None
        if is_charged:
            self._failures.add(request.account, failed=True)
        return self._compare(request.account, answer, on_canary=True, by_canary=False, compared=request.is_compared)

    def record_failure(self, request: TrialRequest, reason: str) -> Finding | None:
        """Record a request that the canary failed when it was too late for the champion to answer."""
        self._requests += 1
        self._failures.consecutive += 1
        self._failures.latest = reason
        if request.account is None:
            return None
        self._failures.add(request.account, failed=True)
        return None if self.is_stopped else self._check(FAILURES, self._failures)

    def stop(self, kind: str, reason: str) -> Finding | None:
        """Stop the canary for the caller's reason; return None if it was stopped before."""
        if self.is_stopped:
            return None
        self.is_stopped = True
        return Finding(kind, reason)

    def _is_slower(self, failure: Failure, answer: Answer) -> bool:
        """Whether the champion took less time than it may for the failure to be the canary's fault."""
        return failure.max_champion_ms > max(answer.ms * self.canary.max_latency_ratio, answer.ms + ALLOWANCE_MS)

    def _compare(
        self, account: CallerAccount, answer: Answer, *, on_canary: bool, by_canary: bool, compared: bool = True
    ) -> Finding | None:
        if compared:
            self._latency.add(account, answer, on_canary=on_canary, by_canary=by_canary)
            self._drift.add(account, answer, on_canary=on_canary)
            if self._pace is not None:
                self._pace.add(account, answer, on_canary=on_canary, by_canary=by_canary)
        if self.is_stopped:
            return None
        return (
            self._check(FAILURES, self._failures)
            or self._check(LATENCY, self._latency)
            or self._check(DRIFT, self._drift)
            or (self._check(PACE, self._pace) if self._pace is not None else None)
        )

    def _check(self, kind: str, test: "FailureTest | LatencyTest | DriftTest") -> Finding | None:
        evidence = test.evidence
        if evidence.unlimited_e_value < evidence.threshold or not self._may_decide():
            return None
        if evidence.e_value >= evidence.threshold:
            self.is_stopped = True
            return Finding(kind, test.describe(), evidence.e_value, len(self._accounts))
        if kind in self._suspected:
            return None
        self._suspected.add(kind)
        return Finding(kind, test.describe(), evidence.unlimited_e_value, len(self._accounts), is_suspicion=True)

    def _may_decide(self) -> bool:
        return self._requests >= self.canary.min_requests or self._failures.consecutive >= MIN_CONSECUTIVE_FAILURES


class FailureTest:
    """Whether the canary fails more often than it may on requests that the champion answers (McNemar's pairs)."""

    def __init__(self, canary: Canary, evidence: SequentialTest) -> None:
        self.evidence = evidence
        self.consecutive = 0
        self.latest = ""
        self._limit = canary.max_error_rate
        self._failed = self._total = 0
        self._factors: tuple[Factors, Factors] | None = None
        if canary.max_error_rate < 1:
            self._factors = compute_rate_factors(max(canary.max_error_rate, MIN_ERROR_RATE))

    def add(self, account: CallerAccount, *, failed: bool) -> None:
        """Add a request of the canary."""
        self._total += 1
        self._failed += failed
        if self._factors is not None:
            factors = self._factors[0] if failed else self._factors[1]
            self.evidence.add(factors, account.credits[0])

    def describe(self) -> str:
        """Describe the fault."""
        share = self._failed / self._total if self._total else 0.0
        return (
            f"{self._failed} of {self._total} requests failed, {share:.2%} where {self._limit:.2%} are let through: "
            f"{self.latest}"
        )


@dataclass
class StratumTimes:
    """The typical times of requests with about the same number of rows."""

    champion: TypicalTime = field(default_factory=TypicalTime)
    canary: TypicalTime = field(default_factory=TypicalTime)


class LatencyTest:
    """Whether the canary takes longer than it may for requests of as many rows.

    A champion's time is slow if it is above the median of its times before, of the same caller and for as many rows; a
    canary's time is slow if it is above what is allowed for that median. If slow requests fall to the canary more often
    than its share of all requests, it is too slow. The test counts requests, not milliseconds: one that takes very long
    counts once, and who sends it cannot choose the side.
    """

    credit = 1  # the place of its evidence among the account's

    def __init__(self, canary: Canary, share: float, evidence: SequentialTest) -> None:
        self.evidence = evidence
        self._ratio = canary.max_latency_ratio
        self._strata: dict[int, StratumTimes] = {}
        self._latest = 0  # the latest stratum
        self._factors = {
            (on_trial, slow): compute_contrast_factors(share, on_trial=on_trial, value=float(slow))
            for on_trial in (False, True)
            for slow in (False, True)
        }

    def add(self, account: CallerAccount, answer: Answer, *, on_canary: bool, by_canary: bool) -> None:
        """Add a request of either side."""
        # Strata are of 1, 2 to 3, 4 to 7 rows, and so on.
        self._add_time(account, answer.ms, answer.rows.bit_length(), on_canary=on_canary, by_canary=by_canary)

    def describe(self) -> str:
        """Describe the fault."""
        return f"it takes {self._describe_times(format_stratum(self._latest))}"

    def _describe_times(self, what: str) -> str:
        times = self._strata[self._latest]
        return (
            f"{times.canary.ms:.2f} ms for {what}, the champion {times.champion.ms:.2f}, where {self._ratio:g} times "
            "as long is let through"
        )

    def _add_time(self, account: CallerAccount, ms: float, stratum: int, *, on_canary: bool, by_canary: bool) -> None:
        times = self._strata.get(stratum)
        if times is None:
            times = self._strata[stratum] = StratumTimes()
        own = account.times.get(stratum)
        if own is None and len(account.times) < MAX_CALLER_STRATA:
            own = account.times[stratum] = TypicalTime()
        median = own if own is not None and own.count >= MIN_TIMES else times.champion
        if median.count >= MIN_TIMES:
            allowed_ms = max(median.ms * self._ratio, median.ms + ALLOWANCE_MS) if by_canary else median.ms
            self.evidence.add(self._factors[on_canary, ms > allowed_ms], account.credits[self.credit])
            self._latest = stratum
        if by_canary:
            times.canary.add(ms)
            return
        times.champion.add(ms)
        if own is not None:
            own.add(ms)


class PaceTest(LatencyTest):
    """Whether a further token of a canary's text takes longer than it may."""

    credit = 3
    stratum = -1  # all answers are compared with each other; no request has so many rows

    def add(self, account: CallerAccount, answer: Answer, *, on_canary: bool, by_canary: bool) -> None:
        """Add an answer of either side, if it has further tokens."""
        if answer.token_ms is not None:
            self._add_time(account, answer.token_ms, self.stratum, on_canary=on_canary, by_canary=by_canary)

    def describe(self) -> str:
        """Describe the fault."""
        return f"it takes {self._describe_times('each further token')}"


class DriftTest:
    """Whether the canary's answers are further from the champion's than they may be, by the classes they predict.

    The total variation distance is that of the classes that the canary predicts more often. Which these are is learnt
    from the requests before; a request counts once, by the share of its rows with one of these classes.
    """

    def __init__(self, canary: Canary, share: float, evidence: SequentialTest) -> None:
        self.evidence = evidence
        self._margin = canary.max_drift
        self._share = share
        self._lead: dict[int, float] = {}  # by class, how much more often the canary has predicted it
        self._center = 0.5
        self._until_halving = FORGETTING_REQUESTS
        self._sums = [0.0, 0.0]  # of the shares of those classes, in the champion's and in the canary's answers
        self._counts = [0, 0]

    def add(self, account: CallerAccount, answer: Answer, *, on_canary: bool) -> None:
        """Add a request of either side, if its answer has classes."""
        scores = answer.scores
        if scores is None or scores.ndim < 2 or scores.shape[-1] < 2 or scores.dtype.kind != "f":
            return
        classes = scores[:MAX_COMPARED_ROWS].argmax(axis=-1).ravel()[:MAX_COMPARED_ROWS].tolist()
        if not classes or self._margin >= 1:
            return
        lead = self._lead
        value = sum(lead.get(one, 0.0) > 0 for one in classes) / len(classes)
        factors = compute_contrast_factors(
            self._share, on_trial=on_canary, value=value, center=self._center, margin=self._margin
        )
        self.evidence.add(factors, account.credits[2])
        self._center = min(0.95, max(0.05, self._center + CENTER_STEP * (value - self._center)))
        self._sums[on_canary] += value
        self._counts[on_canary] += 1
        weight = (1 / self._share if on_canary else -1 / (1 - self._share)) / len(classes)
        for one in classes:
            lead[one] = lead.get(one, 0.0) + weight
        self._until_halving -= 1
        if not self._until_halving:
            self._forget()

    def describe(self) -> str:
        """Describe the fault."""
        champion, canary = (total / max(count, 1) for total, count in zip(self._sums, self._counts, strict=True))
        return (
            f"its answers are {canary - champion:.2f} away from the champion's, where {self._margin:g} is let through"
        )

    def _forget(self) -> None:
        self._until_halving = FORGETTING_REQUESTS
        self._lead = {one: value / 2 for one, value in self._lead.items()}
        self._sums = [one / 2 for one in self._sums]
        self._counts = [one // 2 for one in self._counts]


def format_stratum(stratum: int) -> str:
    """Format the numbers of rows whose binary form has `stratum` digits."""
    names = {0: "requests whose time is over", 1: "requests of 1 row"}
    return names.get(stratum) or f"requests of {2 ** (stratum - 1)} to {2**stratum - 1} rows"


def find_non_finite_output(outputs: Mapping[str, Array]) -> str | None:
    """Describe the first output with NaN or infinities, which count as a failure; None if all are finite."""
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return f"output {name!r} is NaN or infinite"
    return None
