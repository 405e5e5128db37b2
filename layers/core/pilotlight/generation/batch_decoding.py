"""Several choices side by side, each in a row of one cache: those of a request, or of many requests.

A run of several rows takes little more time than one of one row: eight answer two to three times as many tokens a
second. When a choice has ended, the next request's prompt is run and takes its row.
"""

from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from pilotlight.generation.causal_model import CausalModel
from pilotlight.generation.key_value_cache import KeyValueCache
from pilotlight.generation.request import GenerationEvent
from pilotlight.generation.request_decoding import RequestDecoding

if TYPE_CHECKING:
    from pilotlight.generation.choice_decoder import ChoiceDecoder

IndexedEvent = tuple[int, GenerationEvent]


class BatchDecoding:
    """Decodes requests in their order, as many choices at once as there are rows.

    All choices of a request begin together; those of one request may be more than there are rows, and then have more.
    """

    def __init__(self, requests: Sequence[RequestDecoding], model: CausalModel, rows: int) -> None:
        self._requests = requests
        self._model = model
        self._pending = deque(range(len(requests)))
        counts = [len(request.choices) for request in requests]
        self._rows = min(max([rows, *counts]), sum(counts))
        self._active: list[tuple[int, ChoiceDecoder]] = []  # in the order of the cache's rows

    def run(self) -> Generator[IndexedEvent, None, None]:
        """Yield the events of all requests, each with its request's index."""
        cache = self._model.create_cache(self._rows)
        cache.resize(0)
        while self._pending or self._active:
            while self._pending and self._has_room():
                yield from self._begin(self._pending.popleft(), cache)
            yield from self._stop_due()
            self._remove_ended(cache)
            if self._active:
                yield from self._step(cache)
                self._remove_ended(cache)

    def _has_room(self) -> bool:
        """Return whether the next request's choices find rows."""
        return len(self._active) + len(self._requests[self._pending[0]].choices) <= self._rows

    def _begin(self, index: int, cache: KeyValueCache) -> Generator[IndexedEvent, None, None]:
        """Run a request's prompt, and give a row that begins with it to each of its choices."""
        request = self._requests[index]
        prompt_cache = request.take_cache(self._rows, int(cache.lengths.sum()))
        try:
            for event in request.run_prompt(prompt_cache):
                yield index, event
            length = int(prompt_cache.lengths[0])
            for choice in request.choices:
                if choice.end is None:
                    self._active.append((index, choice))
                    cache.resize(len(self._active))
                    cache.copy_row(len(self._active) - 1, prompt_cache, 0, length)
        finally:
            request.keep_prompt(prompt_cache)

    def _step(self, cache: KeyValueCache) -> Generator[IndexedEvent, None, None]:
        """Run the last token of each choice, and let each take the next one."""
        logits = self._model.forward(cache, [[choice.last_token] for _, choice in self._active])
        for (index, choice), row in zip(self._active, logits, strict=True):
            for event in self._requests[index].copy_events(choice.take(row[0])):
                yield index, event

    def _stop_due(self) -> Generator[IndexedEvent, None, None]:
        """End the choices that nobody waits for, and those whose time is over."""
        for index, choice in self._active:
            reason = self._requests[index].find_stop()
            if reason is not None:
                for event in self._requests[index].copy_events(choice.finish(reason)):
                    yield index, event

    def _remove_ended(self, cache: KeyValueCache) -> None:
        """Give the rows of choices that have ended to the last ones."""
        for row in reversed(range(len(self._active))):
            if self._active[row][1].end is None:
                continue
            last = len(self._active) - 1
            if row < last:
                self._active[row] = self._active[last]
                cache.copy_row(row, cache, last, int(cache.lengths[last]))
            self._active.pop()
            cache.resize(last)
