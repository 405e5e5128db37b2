"""A language model as the API uses it: a decoder with its tokenizer and chat template, which continues prompts."""

from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from math import inf
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.errors import ContextLengthError, DeadlineError, InvalidInputError, LimitExceededError
from pilotlight.generation.batch_decoding import BatchDecoding, IndexedEvent
from pilotlight.generation.causal_model import CausalModel, ChunkDeadline, compute_logprobs
from pilotlight.generation.memory_admission import bound_answers, count_unlimited_bytes
from pilotlight.generation.prefix_cache import PrefixCache
from pilotlight.generation.request import GenerationEvent, GenerationRequest, TokenUsage, never_cancelled
from pilotlight.generation.request_decoding import RequestDecoding
from pilotlight.generation.text_tokenizer import TextTokenizer

if TYPE_CHECKING:
    from pilotlight.generation.chat_template import ChatTemplate
    from pilotlight.generation.constraints import ConstraintCompiler

PREFIX_CACHE_BYTES = 256_000_000
BATCH_ROWS = 8  # choices that are decoded at once in a batch


class LanguageModel:
    """Continues prompts, one request at a time.

    While a `Generation` is neither at its end nor closed, another one is refused by `LimitExceededError`: an
    environment of Lambda serves one request at a time, so that who meets this has forgotten to close one.
    """

    def __init__(
        self,
        model: CausalModel,
        tokenizer: TextTokenizer,
        *,
        name: str,
        chat_template: "ChatTemplate | None" = None,
        prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
        count_free_bytes: Callable[[], int] = count_unlimited_bytes,
        build_compiler: "Callable[[], ConstraintCompiler] | None" = None,
    ) -> None:
        """Join the parts.

        Args:
            model: the decoder.
            tokenizer: its tokenizer.
            name: the model's name in the registry.
            chat_template: how a conversation becomes a prompt; None if the model only continues texts.
            prefix_cache_bytes: the memory for keys and values of earlier sequences; 0 keeps none.
            count_free_bytes: returns the bytes that the process may still take, by which requests are bounded.
            build_compiler: returns what compiles constraints, at its first use; None to build it then.

        """
        self._build_compiler = build_compiler
        self.name = name
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self._model = model
        self._prefix_cache = PrefixCache(prefix_cache_bytes, count_free_bytes)
        self._model.make_room = self._prefix_cache.make_room
        self._lock = Lock()

    @property
    def spec(self) -> DecoderSpec:
        """The decoder's sizes and special tokens."""
        return self._model.spec

    @cached_property
    def constraint_compiler(self) -> "ConstraintCompiler":
        """What compiles constraints on the model's texts; its first use takes half a second for 50,000 tokens."""
        if self._build_compiler is not None:
            return self._build_compiler()
        from pilotlight.generation.constraints import ConstraintCompiler  # 8 MB that most requests do not need

        return ConstraintCompiler(self.tokenizer.json_document, self.spec.end_tokens, self.spec.vocabulary_size)

    def generate(self, request: GenerationRequest, is_cancelled: Callable[[], bool] = never_cancelled) -> "Generation":
        """Begin to answer: what can be refused is refused here, and the prompt is run with the first event.

        `is_cancelled` is asked before each chunk of the prompt and before each token. Raises `ContextLengthError` for a
        prompt that leaves no room for an answer, `InvalidInputError` for tokens that the model does not have, and
        `LimitExceededError` while another generation goes on.
        """
        check_request(request, self.spec)
        self._acquire()
        try:
            decoding = self._prepare(request, is_cancelled)
            if len(decoding.choices) == 1:
                events = decoding.run_alone()
            else:
                batch = BatchDecoding([decoding], self._model, len(decoding.choices))
                events = (event for _, event in batch.run())
        except BaseException:
            self._lock.release()
            raise
        return Generation(events, [decoding], self._lock.release)

    def generate_batch(
        self,
        requests: Sequence[GenerationRequest],
        is_cancelled: Callable[[], bool] = never_cancelled,
        rows: int = BATCH_ROWS,
    ) -> "BatchGeneration":
        """Begin to answer many requests, `rows` choices at once; each event comes with its request's index.

        Together they take a third of the time that they take one after the other. Greedy answers may differ from those
        of `generate`, whose runs have one row. Drafts are not used. Raises as `generate` does, for any of the requests.
        """
        for request in requests:
            check_request(request, self.spec)
        self._acquire()
        try:
            decodings = [self._prepare(request, is_cancelled) for request in requests]
            events = BatchDecoding(decodings, self._model, rows).run()
        except BaseException:
            self._lock.release()
            raise
        return BatchGeneration(events, decodings, self._lock.release)

    def score(self, tokens: Sequence[int], deadline: float = inf) -> npt.NDArray[np.float64]:
        """Compute the natural logarithm of each token's probability after those before it, from the second on.

        Raises `DeadlineError` if that takes until `deadline`, on time.monotonic's clock, and `TooLargeError` if there
        is no memory for it.
        """
        check_prompt(tokens, self.spec)
        self._acquire()
        try:
            self._admit(tokens)
            scores = self._model.score(tokens, ChunkDeadline(deadline).is_due)
        finally:
            self._lock.release()
        if scores is None:
            raise build_deadline_error(tokens)
        return scores

    @property
    def cached_bytes(self) -> int:
        """The memory of the keys and values that are kept from earlier requests, in bytes."""
        return self._prefix_cache.byte_count

    def score_next(
        self, prompt: Sequence[int], tokens: Sequence[int], deadline: float = inf, cache_owner: str = ""
    ) -> npt.NDArray[np.float64]:
        """Compute the natural logarithm of the probability that each of these tokens follows the prompt.

        What the prompt has in common with one before of the same owner is not run again. Raises as `score` does.
        """
        check_prompt(prompt, self.spec)
        self._acquire()
        try:
            self._admit(prompt)
            cache = self._prefix_cache.take(prompt, self._model, cache_owner)
            try:
                logits = self._model.prefill(cache, prompt, ChunkDeadline(deadline).is_due)
            finally:
                self._prefix_cache.put(prompt, cache, cache_owner)
            if logits is None:
                raise build_deadline_error(prompt)
            rows = np.broadcast_to(logits, (len(tokens), len(logits)))
            return compute_logprobs(rows, np.asarray(tokens))
        finally:
            self._lock.release()

    def release_cache(self) -> None:
        """Give back the memory of all keys and values, unless a generation uses it: for a model that is idle."""
        if self._lock.acquire(blocking=False):
            self._prefix_cache.clear()
            self._model.release()
            self._lock.release()

    def _admit(self, tokens: Sequence[int]) -> None:
        """Raise `TooLargeError` if there is no memory for the keys and values of these tokens."""
        bound_answers(self.spec, len(tokens), 1, 1, self._prefix_cache.count_available_bytes())

    def _prepare(self, request: GenerationRequest, is_cancelled: Callable[[], bool]) -> RequestDecoding:
        return RequestDecoding(request, self._model, self.tokenizer, self._prefix_cache, is_cancelled)

    def _acquire(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise LimitExceededError(
                f"Model {self.name!r} is still answering another request; try again when that has ended.", retry_after=1
            )


Event = TypeVar("Event")


class DecodingStream(Generic[Event]):
    """Events while they come; at its end, or when it is closed or forgotten, the model is free for the next request."""

    def __init__(
        self,
        events: Generator[Event, None, None],
        decodings: Sequence[RequestDecoding],
        release: Callable[[], None],
    ) -> None:
        self._events = events
        self._decodings = decodings
        self._release: Callable[[], None] | None = release
        self._is_closed = False
        self._stepping = Lock()  # held while a thread runs the model

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        with self._stepping:
            try:
                if not self._is_closed:
                    event = next(self._events)
            except BaseException:
                self._finish()
                raise
        if self._is_closed:  # by another thread, perhaps while this one held the lock, so that it could not finish
            self.close()
            raise StopIteration
        return event

    def close(self) -> None:
        """Stop decoding; what has been run stays in the prefix cache.

        While another thread waits for the next event, decoding stops with the token or the chunk that is being run.
        """
        self._is_closed = True
        for decoding in self._decodings:
            decoding.is_left = True
        if self._stepping.acquire(blocking=False):  # else the one who waits finishes it
            try:
                self._finish()
            finally:
                self._stepping.release()

    def _finish(self) -> None:
        """Close all iterators, which puts caches back, and free the model."""
        release, self._release = self._release, None
        if release is not None:
            try:
                self._events.close()
            finally:
                release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Generation(DecodingStream[GenerationEvent]):
    """The answer to one request: deltas of text, and an end of each choice."""

    @property
    def usage(self) -> TokenUsage:
        """The tokens of prompt and answers, as far as they have come."""
        return self._decodings[0].usage


class BatchGeneration(DecodingStream[IndexedEvent]):
    """The answers to many requests: pairs of a request's index and an event."""

    @property
    def usages(self) -> list[TokenUsage]:
        """The tokens of each request, as far as they have come."""
        return [decoding.usage for decoding in self._decodings]


def build_deadline_error(tokens: Sequence[int]) -> DeadlineError:
    """Build the error of tokens that are not scored in time."""
    return DeadlineError(
        f"The time of the request is over before its {len(tokens):,} tokens are scored; send a shorter text, or raise "
        "GenerateMemory in template.yaml, by which the function is faster."
    )


def check_request(request: GenerationRequest, spec: DecoderSpec) -> None:
    """Check that the model has the request's tokens, and room for an answer."""
    check_prompt(request.prompt, spec)
    if len(request.prompt) >= spec.context_length:
        raise ContextLengthError(len(request.prompt), spec.context_length)
    check_tokens("stop_token_ids", request.stop_tokens, spec)
    check_tokens("logit_bias", tuple(request.sampling.logit_bias), spec)


def check_prompt(tokens: Sequence[int], spec: DecoderSpec) -> None:
    """Check that a prompt has tokens, which the model has, and not too many."""
    if not tokens:
        raise InvalidInputError("The prompt is empty; send at least one token.")
    if len(tokens) > spec.context_length:
        raise ContextLengthError(len(tokens), spec.context_length)
    check_tokens("the prompt", tokens, spec)


def check_tokens(place: str, tokens: Sequence[int], spec: DecoderSpec) -> None:
    """Check that the model has these tokens."""
    for token in (min(tokens, default=0), max(tokens, default=0)):
        if not 0 <= token < spec.vocabulary_size:
            raise InvalidInputError(
                f"Token {token} in {place} is none of the model's, which are 0 to {spec.vocabulary_size - 1}."
            )
