"""One request from its prompt to its last token: the prompt is run, and its choices take what is computed for them."""

import time
from collections.abc import Callable, Generator, Iterator

from pilotlight.errors import TooLargeError
from pilotlight.generation.causal_model import CausalModel, ChunkDeadline
from pilotlight.generation.choice_decoder import ChoiceDecoder
from pilotlight.generation.key_value_cache import KeyValueCache
from pilotlight.generation.memory_admission import bound_answers
from pilotlight.generation.prefix_cache import PrefixCache
from pilotlight.generation.prompt_lookup import DRAFT_TOKENS, PromptLookup
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
    """The state of a request; when an iterator of its events is closed, all caches are consistent."""

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
        self.choices = [
            ChoiceDecoder(request, choice, model.spec, tokenizer, limit)
            for choice in range(request.choices // self._copies)
        ]
        self.is_left = False  # whether who asked has closed the answer
        self._cached_tokens = 0

    @property
    def usage(self) -> TokenUsage:
        """The tokens until now; those of the prompt count from the beginning."""
        generated = sum(len(choice.tokens) for choice in self.choices) * self._copies
        return TokenUsage(len(self._request.prompt), generated, self._cached_tokens)

    def run_alone(self) -> Generator[GenerationEvent, None, None]:
        """Yield the events of a request of one distinct choice, which is decoded in the cache of its prompt."""
        cache = self.take_cache()
        try:
            yield from self.run_prompt(cache)
            yield from self.copy_events(self._decode(cache))
        finally:
            tokens = (*self._request.prompt, *self.choices[0].tokens)
            self._prefix_cache.put(tokens, cache, self._request.cache_owner)

    def take_cache(self, rows: int = 1, held_tokens: int = 0) -> KeyValueCache:
        """Take a cache of one row that holds as much of the prompt as is known; `keep_prompt` gives it back.

        The answers are bounded by the memory that is left for `rows` of them, of which `held_tokens` are there already;
        `TooLargeError` if it is too little.
        """
        cache = self._prefix_cache.take(self._request.prompt, self._model, self._request.cache_owner)
        self._cached_tokens = int(cache.lengths[0])
        spec, prompt_tokens = self._model.spec, len(self._request.prompt)
        held_bytes = (self._cached_tokens + held_tokens) * spec.cache_bytes_per_token
        try:
            free_bytes = self._prefix_cache.count_available_bytes() + held_bytes
            for choice in self.choices:
                choice.limit = bound_answers(spec, prompt_tokens, rows, choice.limit, free_bytes)
        except TooLargeError:
            self.keep_prompt(cache)
            raise
        return cache

    def keep_prompt(self, cache: KeyValueCache) -> None:
        """Give what the cache holds of the prompt to those who come later."""
        self._prefix_cache.put(self._request.prompt, cache, self._request.cache_owner)

    def run_prompt(self, cache: KeyValueCache) -> Iterator[GenerationEvent]:
        """Run what the cache lacks of the prompt, and draw the first token of each choice."""
        late = ChunkDeadline(self._request.deadline)
        logits = self._model.prefill(cache, self._request.prompt, lambda: late.is_due() or self.find_stop() is not None)
        if logits is None:
            reason = self.find_stop() or FinishReason.LENGTH
            for choice in self.choices:
                yield from self.copy_events(choice.finish(reason))
            return
        logits = logits.copy()  # the model's buffer may change while events are out
        for choice in self.choices:
            yield from self.copy_events(choice.take(logits))

    def copy_events(self, events: Iterator[GenerationEvent]) -> Iterator[GenerationEvent]:
        """Yield events, and their copies if choices are copies of one."""
        for event in events:
            yield event
            for choice in range(1, self._copies):
                yield move_event(event, choice)

    def find_stop(self) -> FinishReason | None:
        """Return why decoding must stop now, if it must: nobody waits for it, or the time is over."""
        if self.is_left or self._is_cancelled():
            return FinishReason.CANCELLED
        return FinishReason.LENGTH if time.monotonic() >= self._request.deadline else None

    def _decode(self, cache: KeyValueCache) -> Iterator[GenerationEvent]:
        """Decode the only choice until it ends, with drafts if they were asked for."""
        choice = self.choices[0]
        lookup = PromptLookup((*self._request.prompt, *choice.tokens)) if self._request.prompt_lookup else None
        while choice.end is None:
            reason = self.find_stop()
            if reason is not None:
                yield from choice.finish(reason)
            elif lookup is not None:
                yield from self._decode_draft(cache, choice, lookup)
            else:
                logits = self._model.forward(cache, [[choice.last_token]])
                yield from choice.take(logits[0, 0])

    def _decode_draft(self, cache: KeyValueCache, choice: ChoiceDecoder, lookup: PromptLookup) -> list[GenerationEvent]:
        """Run the last token with a draft behind it, and take tokens as long as they are those of the draft.

        Without a draft, a token that is then forgotten takes its place, since runs of one token give other logits.
        """
        start = int(cache.lengths[0])
        draft = lookup.find_draft(min(DRAFT_TOKENS, choice.limit - len(choice.tokens) - 1))
        run = [choice.last_token, *(draft or [choice.last_token])]
        logits = self._model.forward(cache, [run], len(run))[0]
        events: list[GenerationEvent] = []
        taken = 0
        try:
            while taken <= len(draft):
                events += choice.take(logits[taken])
                lookup.append(choice.last_token)
                taken += 1
                if choice.end is not None or draft[taken - 1 : taken] != [choice.last_token]:
                    break
        finally:  # if a constraint fails too: the cache is kept for later prompts, and must hold what was drawn
            cache.rewind(0, start + taken)
        return events


def move_event(event: GenerationEvent, choice: int) -> GenerationEvent:
    """Return the same event of another choice."""
    if isinstance(event, TextDelta):
        return TextDelta(choice, event.text, event.tokens, event.scores)
    return ChoiceEnd(choice, event.reason, event.stop, event.completion_tokens)
