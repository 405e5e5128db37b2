"""A generation that measures itself: the time to its first text, its tokens per second, and why its choices ended.

Only the engine's own time counts: a client that reads a stream slowly makes no version slow.
"""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, TypeVar

from msgspec import Struct

from pilotlight.errors import InvalidInputError
from pilotlight.generation.request import ChoiceEnd, FinishReason, GenerationEvent, TextDelta, TokenUsage

MS_PER_S = 1000.0
COMPARED_TOKENS = 32  # of an answer's beginning, by which a shadow's answer is compared with it
Result = TypeVar("Result")


class GenerationEvents(Protocol):
    """What the engine returns: an iterator over events, whose usage is known after its end."""

    @property
    def usage(self) -> TokenUsage:
        """The tokens so far."""

    def __iter__(self) -> Iterator[GenerationEvent]:
        """Return itself."""

    def __next__(self) -> GenerationEvent:
        """Compute the next event."""

    def close(self) -> None:
        """End the generation and release what it holds."""


class GenerationOutcome(Struct, frozen=True, kw_only=True):
    """How a generation went, as far as versions are compared by it."""

    usage: TokenUsage
    seconds: float  # of the engine, for all events
    first_token_seconds: float | None = None  # until the first event; None if none came
    decoded_tokens: int = 0  # behind the first event
    finish_reasons: tuple[FinishReason, ...] = ()  # of the choices that ended
    error: Exception | None = None  # that ended it
    beginning: tuple[int, ...] = ()  # the first tokens of the first choice, `COMPARED_TOKENS` at most

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waited for its end."""
        return self.error is None and (not self.finish_reasons or FinishReason.CANCELLED in self.finish_reasons)

    @property
    def is_failure(self) -> bool:
        """Whether it ended by an error that is not the request's."""
        return self.error is not None and not isinstance(self.error, InvalidInputError)

    @property
    def tokens_per_second(self) -> float | None:
        """The speed of decoding, of all choices together; None for an answer of one event."""
        decoding = self.seconds - (self.first_token_seconds or 0.0)
        return self.decoded_tokens / decoding if self.decoded_tokens and decoding > 0 else None


class MeasuredGeneration:
    """An engine's generation with a stopwatch. `on_end` gets the outcome once: at the end, at an error, or by `close`.

    An iterator over `TextDelta` and `ChoiceEnd`, and a context manager that closes it.
    """

    def __init__(
        self,
        start: Callable[[], GenerationEvents],
        on_end: Callable[[GenerationOutcome], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start the generation; `clock` counts seconds."""
        self._on_end = on_end
        self._clock = clock
        self._seconds = 0.0
        self._first_token_seconds: float | None = None
        self._tokens = self._first_tokens = 0
        self._finish_reasons: list[FinishReason] = []
        self._beginning: list[int] = []
        self._outcome: GenerationOutcome | None = None
        self._generation: GenerationEvents | None = None
        self._generation = self._measure(start)

    @property
    def usage(self) -> TokenUsage:
        """The tokens of prompt and answer, as far as it has come."""
        return self._generation.usage if self._generation is not None else TokenUsage(0, 0)

    @property
    def outcome(self) -> GenerationOutcome | None:
        """How it went; None before its end."""
        return self._outcome

    def __iter__(self) -> Iterator[GenerationEvent]:
        return self

    def __next__(self) -> GenerationEvent:
        if self._outcome is not None or self._generation is None:
            raise StopIteration
        generation = self._generation
        try:
            event = self._measure(lambda: next(generation))
        except StopIteration:
            self._finish(None)
            raise
        self._note_event(event)
        return event

    def close(self) -> None:
        """End it; one that has not come to its end counts as cancelled."""
        try:
            if self._generation is not None:
                self._generation.close()
        finally:
            self._finish(None)

    def __enter__(self) -> "MeasuredGeneration":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _measure(self, call: Callable[[], Result]) -> Result:
        """Run a call of the engine, and add its time; an error ends the generation."""
        started = self._clock()
        try:
            return call()
        except StopIteration:
            raise
        except Exception as exc:
            self._finish(exc)
            raise
        finally:
            self._seconds += self._clock() - started

    def _note_event(self, event: GenerationEvent) -> None:
        if isinstance(event, TextDelta):
            self._tokens += len(event.tokens)
            if event.choice == 0 and len(self._beginning) < COMPARED_TOKENS:
                self._beginning.extend(event.tokens)
        elif isinstance(event, ChoiceEnd):
            self._finish_reasons.append(event.reason)
        if self._first_token_seconds is None:
            self._first_token_seconds, self._first_tokens = self._seconds, self._tokens

    def _finish(self, error: Exception | None) -> None:
        if self._outcome is not None:
            return
        self._outcome = GenerationOutcome(
            usage=self.usage,
            seconds=self._seconds,
            first_token_seconds=self._first_token_seconds,
            decoded_tokens=self._tokens - self._first_tokens,
            finish_reasons=tuple(self._finish_reasons),
            error=error,
            beginning=tuple(self._beginning[:COMPARED_TOKENS]),
        )
        self._on_end(self._outcome)
