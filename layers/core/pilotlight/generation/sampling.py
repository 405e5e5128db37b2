"""Draw the next token from logits: penalties, truncation and seeds, and log probabilities for who asks for them.

The order is: logit_bias, penalties, what a constraint allows, temperature, top_k, top_p, min_p. Nothing here sorts a
whole vocabulary, which may have 150,000 tokens, unless a distribution is so flat that top_p needs it.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from pilotlight.errors import ModelRefusedError
from pilotlight.generation.key_value_cache import FloatArray
from pilotlight.generation.request import BoolArray, SamplingOptions

IntArray = npt.NDArray[np.int64]
BLOCK_TOKENS = 512
SAFE_SHARE = 0.99  # for rounding
SEED_MASK = (1 << 64) - 1  # a seed may be negative, which numpy refuses
SMALLEST_TEMPERATURE = 1e-5  # a smaller one draws the same token, but fp32 has no room for the quotients
SMALLEST_REPETITION_PENALTY = 1e-3  # for the same reason


class Sampler:
    """Draws the tokens of one choice, and remembers them for the penalties.

    The random numbers are the choice's own: those of its seed, one for each token drawn, whatever else is decoded
    beside it.
    """

    def __init__(self, options: SamplingOptions, prompt: Sequence[int], choice: int = 0) -> None:
        """Prepare to draw for choice number `choice` of a request with this prompt."""
        self._options = options
        self._random = create_generator(options.seed, choice)
        self._generated: Counter[int] = Counter()
        self._seen = set(prompt) if options.repetition_penalty != 1.0 else None
        self._biased = np.array(list(options.logit_bias), np.int64)
        self._biases = np.array(list(options.logit_bias.values()), np.float32)
        self._penalizes = bool(options.presence_penalty or options.frequency_penalty)

    def draw(self, logits: FloatArray, mask: BoolArray | None = None, banned: Collection[int] = ()) -> int:
        """Draw a token by the logits of (vocabulary,), which are not changed.

        `mask` tells which tokens are allowed; those in `banned` are not. The caller notes by `accept` what he takes.
        Raises `ModelRefusedError` if the logits are no numbers to draw by.
        """
        adjusted = self._adjust(logits, mask, banned)
        options = self._options
        greatest = int(adjusted.argmax())  # the lowest id of equal ones; NaN, if there is one
        if not np.isfinite(adjusted[greatest]):
            raise ModelRefusedError(
                f"The language model scores its next token with {adjusted[greatest]}, so that none can be drawn; "
                "publish the model again as a new version, with another precision."
            )
        if options.temperature == 0.0:
            return greatest
        tokens, weights = truncate(adjusted, options)
        place = find_place(weights, self._random.random())
        return place if tokens is None else int(tokens[place])

    def accept(self, token: int) -> None:
        """Note a token that has been generated."""
        self._generated[token] += 1
        if self._seen is not None:
            self._seen.add(token)

    def _adjust(self, logits: FloatArray, mask: BoolArray | None, banned: Collection[int]) -> FloatArray:
        """Apply bias, penalties and what is forbidden, to a copy if there is anything to apply."""
        has_penalties = self._seen is not None or (self._penalizes and self._generated)
        if not len(self._biased) and not has_penalties and mask is None and not banned:
            return logits
        adjusted = logits.copy()
        adjusted[self._biased] += self._biases
        if self._seen:
            penalty = max(self._options.repetition_penalty, SMALLEST_REPETITION_PENALTY)
            penalize_repetition(adjusted, self._seen, penalty)
        if self._penalizes and self._generated:
            self._penalize_generated(adjusted)
        if mask is not None:
            adjusted[~fit_mask(mask, len(adjusted))] = -np.inf
        adjusted[list(banned)] = -np.inf
        return adjusted

    def _penalize_generated(self, logits: FloatArray) -> None:
        """Subtract a penalty for each generated token, and one for each time it came (OpenAI's API reference)."""
        tokens = np.fromiter(self._generated.keys(), np.int64, len(self._generated))
        counts = np.fromiter(self._generated.values(), np.float32, len(self._generated))
        logits[tokens] -= self._options.frequency_penalty * counts + self._options.presence_penalty


def create_generator(seed: int | None, choice: int) -> np.random.Generator:
    """Create the random numbers of a choice, the same ones for the same seed on every machine."""
    return np.random.Generator(np.random.Philox(None if seed is None else (seed + choice) & SEED_MASK))


def fit_mask(mask: BoolArray, size: int) -> BoolArray:
    """Return a mask as long as the logits, which may have more columns than the tokenizer has tokens."""
    if len(mask) >= size:
        return mask[:size]
    return np.concatenate([mask, np.zeros(size - len(mask), np.bool_)])


def penalize_repetition(logits: FloatArray, seen: Collection[int], penalty: float) -> None:
    """Divide positive logits of tokens that were seen by the penalty, and multiply negative ones (Keskar et al. 2019).

    The formula is that of transformers' RepetitionPenaltyLogitsProcessor.
    """
    tokens = np.fromiter(seen, np.int64, len(seen))
    scores = logits[tokens]
    logits[tokens] = np.where(scores < 0, scores * penalty, scores / penalty)


def truncate(logits: FloatArray, options: SamplingOptions) -> tuple[IntArray | None, FloatArray]:
    """Return the tokens that may be drawn and their weights, which need not add up to 1; None for all tokens."""
    greatest = logits.max()
    tokens: IntArray | None = None
    if 0 < options.top_k < len(logits):
        tokens = find_greatest(logits, options.top_k)
        logits = logits[tokens]
    weights: FloatArray = np.exp((logits - greatest) / np.float32(max(options.temperature, SMALLEST_TEMPERATURE)))
    if options.top_p < 1.0:
        places = find_nucleus(weights, options.top_p)
        tokens, weights = places if tokens is None else tokens[places], weights[places]
    if options.min_p > 0.0:
        places = np.flatnonzero(weights >= options.min_p)  # the likeliest token's weight is 1
        tokens, weights = places if tokens is None else tokens[places], weights[places]
    return tokens, weights


def find_place(weights: FloatArray, share: float) -> int:
    """Find where the sum of the weights reaches a share of their total, which is 0 to 1.

    Blocks are added up first, since adding up 150,000 numbers one by one takes 2 ms.
    """
    sums = np.add.reduceat(weights, np.arange(0, len(weights), BLOCK_TOKENS)).cumsum(dtype=np.float64)
    rest = share * sums[-1]
    block = find_step(sums, rest)
    rest -= sums[block - 1] if block else 0.0
    start = block * BLOCK_TOKENS
    return start + find_step(weights[start : start + BLOCK_TOKENS].cumsum(dtype=np.float64), rest)


def find_step(sums: npt.NDArray[np.float64], value: float) -> int:
    """Find the first place whose sum is above a value; at most that which makes the sum whole, whatever was rounded."""
    return int(min(sums.searchsorted(value, side="right"), sums.searchsorted(sums[-1])))


def find_greatest(values: FloatArray, count: int) -> IntArray:
    """Find the places of the `count` greatest values, greatest first, and the first of equal ones first."""
    count = min(count, len(values))
    places = np.argpartition(values, len(values) - count)[len(values) - count :]
    return places[np.lexsort((places, -values[places]))]


def find_nucleus(weights: FloatArray, top_p: float) -> IntArray:
    """Find the fewest likeliest tokens whose weights are at least `top_p` of all (Holtzman et al. 2020), in any order.

    Tokens below `(1 - top_p) / vocabulary` of all weights cannot be among them, since all of these together have less
    than `1 - top_p`; only the others are sorted.
    """
    total = weights.sum(dtype=np.float64)
    places: IntArray = np.flatnonzero(weights >= SAFE_SHARE * (1.0 - top_p) * total / len(weights))
    candidates = weights[places]
    descending = np.sort(candidates)[::-1]
    count = min(int(descending.cumsum(dtype=np.float64).searchsorted(top_p * total)) + 1, len(places))
    least = descending[count - 1]
    is_kept = candidates >= least
    surplus = int(is_kept.sum()) - count  # of equal ones, the last
    if surplus > 0:
        is_kept[np.flatnonzero(candidates == least)[-surplus:]] = False
    kept: IntArray = places[is_kept]
    return kept


def compute_top_logprobs(logits: FloatArray, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Compute a token's log probability, and the `top` likeliest tokens with theirs, from the raw logits."""
    greatest = float(logits.max())
    total = greatest + float(np.log(np.exp(logits - np.float32(greatest)).sum(dtype=np.float64)))
    places = find_greatest(logits, top) if top else np.zeros(0, np.int64)
    return float(logits[token]) - total, [(int(place), float(logits[place]) - total) for place in places]
