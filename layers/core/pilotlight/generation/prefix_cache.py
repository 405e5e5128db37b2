"""The keys and values of the last sequences, in warm memory: a prompt that begins as one did starts where they part.

A conversation's next turn repeats all turns before it, and all conversations of an application begin with its
instructions. What an answer left behind was computed one token at a time, so that with quantized weights the next
turn's logits may differ in the third digit from those of a prompt that is run as a whole, see `causal_model`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pilotlight.generation.causal_model import MIN_PROMPT_RUN, CausalModel
from pilotlight.generation.key_value_cache import KeyValueCache
from pilotlight.generation.memory_admission import count_unlimited_bytes


@dataclass(frozen=True)
class CachedSequence:
    """Tokens that were run, and the cache of one row with their keys and values."""

    owner: str
    tokens: tuple[int, ...]
    cache: KeyValueCache


class PrefixCache:
    """Sequences up to a budget of bytes, of which the least recently used one goes first.

    A cache is taken out while a request uses it, and put back with what it then holds: so there is no copy where a
    conversation goes on. If only a part of a sequence is shared, that part is copied, and the sequence stays. Owners,
    such as tenants, share nothing: who sees how much of a prompt was known could guess the prompts of others.
    """

    def __init__(self, budget_bytes: int, count_free_bytes: Callable[[], int] = count_unlimited_bytes) -> None:
        """Create an empty one; `count_free_bytes` tells what the process may still take beside it."""
        self._budget_bytes = budget_bytes
        self._count_free_bytes = count_free_bytes
        self._sequences: list[CachedSequence] = []  # the most recently used one last

    @property
    def byte_count(self) -> int:
        """The memory of all sequences, in bytes."""
        return sum(sequence.cache.byte_count for sequence in self._sequences)

    def count_available_bytes(self) -> int:
        """Count the bytes that a request may have, if all sequences make room for it."""
        return self._count_free_bytes() + self.byte_count

    def make_room(self, size: int) -> None:
        """Give back the least recently used sequences until `size` bytes are free, or none is left."""
        while self._count_free_bytes() < size and self._sequences:
            self._sequences.pop(0)

    def take(self, prompt: Sequence[int], model: CausalModel, owner: str = "") -> KeyValueCache:
        """Return a cache of one row with the longest beginning of the prompt that is known; it is the caller's.

        The prompt's last tokens are never among it, since their logits are needed.
        """
        lengths = [count_common(each.tokens, prompt) if each.owner == owner else 0 for each in self._sequences]
        place = max(range(len(lengths)), key=lengths.__getitem__, default=None)
        length = 0 if place is None else min(lengths[place], len(prompt) - MIN_PROMPT_RUN)
        if place is None or length <= 0:
            return model.create_cache(capacity=len(prompt))
        found = self._sequences.pop(place)
        if len(found.tokens) - length <= MIN_PROMPT_RUN:  # nothing of the sequence is lost that is worth a copy
            found.cache.rewind(0, length)
            return found.cache
        self._sequences.append(found)
        cache = model.create_cache(capacity=len(prompt))
        cache.copy_row(0, found.cache, 0, length)
        return cache

    def put(self, tokens: Sequence[int], cache: KeyValueCache, owner: str = "") -> None:
        """Keep a cache of one row, which holds the first of these tokens; older ones make room for it."""
        held = tuple(tokens[: int(cache.lengths[0])])
        if not held or cache.byte_count > self._budget_bytes:
            return
        longer = [each for each in self._sequences if each.owner == owner and each.tokens[: len(held)] == held]
        kept = [
            each
            for each in self._sequences
            if each not in longer and (each.owner != owner or each.tokens != held[: len(each.tokens)])
        ]
        self._sequences = [*kept, *longer] if longer else [*kept, CachedSequence(owner, held, cache)]
        while self.byte_count > self._budget_bytes:
            self._sequences.pop(0)

    def clear(self) -> None:
        """Give back all memory."""
        self._sequences.clear()


def count_common(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens that two sequences have in common at their beginning."""
    length = min(len(first), len(second))
    differing = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(differing[0]) if len(differing) else length
