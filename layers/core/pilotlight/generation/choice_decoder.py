"""One choice of an answer: from the logits of each step to a token, its text, and why the choice ended."""

from collections.abc import Iterator

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.generation.key_value_cache import FloatArray
from pilotlight.generation.request import (
    BoolArray,
    ChoiceEnd,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ScoredToken,
    TextDelta,
    TokenConstraint,
    TokenLogprob,
)
from pilotlight.generation.sampling import Sampler, compute_top_logprobs
from pilotlight.generation.stop_strings import StopStringFinder
from pilotlight.generation.text_stream import TextStream, decode_whole_characters
from pilotlight.generation.text_tokenizer import TextTokenizer


class ChoiceDecoder:
    """Takes the logits of each step, and gives the events of its choice; `end` is its last one."""

    def __init__(
        self, request: GenerationRequest, choice: int, spec: DecoderSpec, tokenizer: TextTokenizer, limit: int
    ) -> None:
        """Prepare choice number `choice` of the request, which may have `limit` tokens."""
        self.tokens: list[int] = []
        self.end: ChoiceEnd | None = None
        self._request = request
        self._choice = choice
        self._tokenizer = tokenizer
        self.limit = limit
        self._all_end_tokens = frozenset(spec.end_tokens)
        self._end_tokens = frozenset[int]() if request.ignore_end else frozenset(spec.end_tokens)
        self._last_tokens = self._end_tokens | frozenset(request.stop_tokens)
        self._sampler = Sampler(request.sampling, request.prompt, choice)
        self._stream = TextStream()
        self._stops = StopStringFinder(request.stop_strings, include=request.include_stop_string)
        self._constraint: TokenConstraint | None = None if request.constraint is None else request.constraint()
        self._pending: list[tuple[int, ScoredToken | None]] = []  # tokens since the last delta

    @property
    def last_token(self) -> int:
        """The token to run next."""
        return self.tokens[-1]

    def take(self, logits: FloatArray) -> Iterator[GenerationEvent]:
        """Draw the next token from the logits of (vocabulary,), and yield what comes of it."""
        token = self._draw(logits)
        scored = self._score(logits, token)
        self.tokens.append(token)
        self._sampler.accept(token)
        if token in self._last_tokens:
            yield from self.finish(FinishReason.STOP, None if token in self._end_tokens else token)
            return
        if self._constraint is not None:
            self._constraint.accept(token)
        self._pending.append((token, scored))
        text = self._release(token)
        if text:
            yield self._build_delta(text)
        yield from self._end_if_due()

    def finish(self, reason: FinishReason, stop: str | int | None = None) -> Iterator[GenerationEvent]:
        """End the choice: what was held back goes out, unless it began the stop string that was found."""
        text = self._stops.flush()
        if text or (self._pending and self._stops.found is None):
            yield self._build_delta(text)
        self.end = ChoiceEnd(self._choice, reason, stop, len(self.tokens))
        yield self.end

    def _end_if_due(self) -> Iterator[GenerationEvent]:
        if self._stops.found is not None:
            yield from self.finish(FinishReason.STOP, self._stops.found)
        elif self._constraint is not None and self._constraint.is_complete:
            yield from self.finish(FinishReason.STOP)
        elif len(self.tokens) >= self.limit:
            yield from self.finish(FinishReason.LENGTH)

    def _draw(self, logits: FloatArray) -> int:
        """Draw a token that is allowed; no end before `min_tokens`, unless a constraint allows nothing else."""
        mask = None if self._constraint is None else self._constraint.compute_mask()
        is_early = len(self.tokens) < self._request.min_tokens
        banned = self._last_tokens if is_early and has_others(mask, self._last_tokens) else ()
        return self._sampler.draw(logits, mask, banned)

    def _release(self, token: int) -> str:
        """Return the text that may go out with this token."""
        text = self._stream.push(b"" if self._is_hidden(token) else self._tokenizer.get_bytes(token))
        if len(self.tokens) < self._request.min_tokens:
            return text
        return self._stops.push(text)

    def _is_hidden(self, token: int) -> bool:
        """Return whether a token has no text: it is special, and no grammar named it, as the marker before a call."""
        return self._tokenizer.is_special(token) and (self._constraint is None or token in self._all_end_tokens)

    def _score(self, logits: FloatArray, token: int) -> ScoredToken | None:
        count = self._request.top_logprobs
        if count is None:
            return None
        logprob, top = compute_top_logprobs(logits, token, count)
        return ScoredToken(self._describe(token, logprob), tuple(self._describe(*each) for each in top))

    def _describe(self, token: int, logprob: float) -> TokenLogprob:
        content = self._tokenizer.get_bytes(token)
        return TokenLogprob(token, decode_whole_characters(content), content, logprob)

    def _build_delta(self, text: str) -> TextDelta:
        pending, self._pending = self._pending, []
        scores = tuple(scored for _, scored in pending if scored is not None)
        return TextDelta(self._choice, text, tuple(token for token, _ in pending), scores)


def has_others(mask: BoolArray | None, tokens: frozenset[int]) -> bool:
    """Return whether a mask allows any token but those given."""
    if mask is None:
        return True
    return int(mask.sum()) > sum(bool(mask[token]) for token in tokens if token < len(mask))
