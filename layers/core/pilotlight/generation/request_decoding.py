"""One request from its prompt to its last token: the prompt is run once, and its choices are decoded side by side."""

import time
from collections.abc import Callable, Iterator

from pilotlight.generation.causal_model import CausalModel
from pilotlight.generation.choice_decoder import ChoiceDecoder
from pilotlight.generation.key_value_cache import FloatArray, KeyValueCache
from pilotlight.generation.prefix_cache import PrefixCache
from pilotlight.generation.request import (
    ChoiceEnd,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    TextDelta,
    TokenUsage,
)
from pilotlight.generation.text_tokenizer import TextTokenizer


class RequestDecoding:
    """Decodes a request. Whenever its iterator is closed, nothing more is run, and the prefix cache is consistent."""

    def __init__(
        self,
        request: GenerationRequest,
        model: CausalModel,
        tokenizer: TextTokenizer,
        prefix_cache: PrefixCache,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._request = request
        self._model = model
        self._prefix_cache = prefix_cache
        self._is_cancelled = is_cancelled
        # At temperature 0 all choices are one, which is decoded once and said as often as it was asked for.
        self._copies = request.choices if request.sampling.temperature == 0.0 else 1
        limit = min(request.max_tokens, model.spec.context_length - len(request.prompt))
        self._choices = [
            ChoiceDecoder(request, choice, model.spec, tokenizer, limit)
            for choice in range(request.choices // self._copies)
        ]
        self._cached_tokens = 0

    @property
    def usage(self) -> TokenUsage:
        """The tokens until now; those of the prompt count from the beginning."""
        generated = sum(len(choice.tokens) for choice in self._choices) * self._copies
        return TokenUsage(len(self._request.prompt), generated, self._cached_tokens)

    def run(self) -> Iterator[GenerationEvent]:
        """Yield the events of all choices, and an end of each."""
        for event in self._run_choices():
            yield event
            for copy in range(1, self._copies):
                yield move_event(event, copy)

    def _run_choices(self) -> Iterator[GenerationEvent]:
        prompt = self._request.prompt
        cache = self._prefix_cache.take(prompt, self._model)
        self._cached_tokens = int(cache.lengths[0])
        try:
            logits = self._model.prefill(cache, prompt, lambda: self._find_stop() is not None)
            if logits is None:
                yield from self._stop(self._choices)
                return
            logits = logits.copy()  # events go out between the choices
            for choice in self._choices:
                yield from choice.take(logits)
            yield from self._decode(cache)
        finally:
            self._keep(cache)

    def _decode(self, cache: KeyValueCache) -> Iterator[GenerationEvent]:
        """Decode what is left of the choices: one in the prompt's own cache, several in rows that begin with it."""
        if len(self._choices) == 1:
            yield from self._decode_rows(cache, list(self._choices))
            return
        active = [choice for choice in self._choices if choice.end is None]
        length = int(cache.lengths[0])
        rows = self._model.create_cache(len(active), length + 1)
        for row in range(len(active)):
            rows.copy_row(row, cache, 0, length)
        yield from self._decode_rows(rows, active)

    def _decode_rows(self, cache: KeyValueCache, active: list[ChoiceDecoder]) -> Iterator[GenerationEvent]:
        """Decode choices, each in its row of the cache, until the last one has ended."""
        while remove_ended(cache, active):
            if self._find_stop() is not None:
                yield from self._stop(active)
                return
            logits: FloatArray = self._model.forward(cache, [[choice.last_token] for choice in active])
            for choice, row in zip(active, logits, strict=True):
                yield from choice.take(row[0])

    def _find_stop(self) -> FinishReason | None:
        """Return why decoding must stop now, if it must."""
        if self._is_cancelled():
            return FinishReason.CANCELLED
        return FinishReason.LENGTH if time.monotonic() >= self._request.deadline else None

    def _stop(self, choices: list[ChoiceDecoder]) -> Iterator[GenerationEvent]:
        """End choices that have not ended, since nobody waits for them or the time is over."""
        reason = self._find_stop() or FinishReason.LENGTH
        for choice in choices:
            yield from choice.finish(reason)

    def _keep(self, cache: KeyValueCache) -> None:
        """Give what the cache of one row holds to the prefix cache: the prompt, and the answer if there is one."""
        answer = self._choices[0].tokens if len(self._choices) == 1 else []
        self._prefix_cache.put((*self._request.prompt, *answer), cache)


def remove_ended(cache: KeyValueCache, active: list[ChoiceDecoder]) -> bool:
    """Remove choices that have ended, with their rows of the cache; return whether any is left."""
    for row in reversed(range(len(active))):
        if active[row].end is not None:
            last = active.pop()
            if row < len(active):
                active[row] = last
                cache.copy_row(row, cache, len(active), int(cache.lengths[len(active)]))
    if active and len(active) < cache.rows:
        cache.resize(len(active))
    return bool(active)


def move_event(event: GenerationEvent, choice: int) -> GenerationEvent:
    """Return the same event of another choice."""
    if isinstance(event, TextDelta):
        return TextDelta(choice, event.text, event.tokens, event.scores)
    return ChoiceEnd(choice, event.reason, event.stop, event.completion_tokens)
