"""A language model as the API uses it: a decoder with its tokenizer and chat template, which continues prompts."""

from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.errors import ContextLengthError, InvalidInputError, LimitExceededError
from pilotlight.generation.causal_model import CausalModel
from pilotlight.generation.prefix_cache import PrefixCache
from pilotlight.generation.request import GenerationEvent, GenerationRequest, TokenUsage
from pilotlight.generation.request_decoding import RequestDecoding
from pilotlight.generation.text_tokenizer import TextTokenizer

if TYPE_CHECKING:
    from pilotlight.generation.chat_template import ChatTemplate

PREFIX_CACHE_BYTES = 256_000_000


def never() -> bool:
    """Return False: nobody leaves."""
    return False


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
    ) -> None:
        """Join the parts.

        Args:
            model: the decoder.
            tokenizer: its tokenizer.
            name: the model's name in the registry.
            chat_template: how a conversation becomes a prompt; None if the model only continues texts.
            prefix_cache_bytes: the memory for keys and values of earlier sequences; 0 keeps none.

        """
        self.name = name
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self._model = model
        self._prefix_cache = PrefixCache(prefix_cache_bytes)
        self._lock = Lock()

    @property
    def spec(self) -> DecoderSpec:
        """The decoder's sizes and special tokens."""
        return self._model.spec

    def generate(self, request: GenerationRequest, is_cancelled: Callable[[], bool] = never) -> "Generation":
        """Begin to answer: what can be refused is refused here, and the prompt is run with the first event.

        `is_cancelled` is asked before each chunk of the prompt and before each token. Raises `ContextLengthError` for a
        prompt that leaves no room for an answer, `InvalidInputError` for tokens that the model does not have, and
        `LimitExceededError` while another generation goes on.
        """
        check_request(request, self.spec)
        self._acquire()
        try:
            decoding = RequestDecoding(request, self._model, self.tokenizer, self._prefix_cache, is_cancelled)
        except BaseException:
            self._lock.release()
            raise
        return Generation(decoding, self._lock.release)

    def score(self, tokens: Sequence[int]) -> npt.NDArray[np.float64]:
        """Compute the natural logarithm of each token's probability after those before it, from the second on."""
        check_prompt(tokens, self.spec)
        self._acquire()
        try:
            return self._model.score(tokens)
        finally:
            self._lock.release()

    @property
    def cached_bytes(self) -> int:
        """The memory of the keys and values that are kept from earlier requests, in bytes."""
        return self._prefix_cache.byte_count

    def release_cache(self) -> None:
        """Give back the memory of all keys and values, unless a generation uses it: for a model that is idle."""
        if self._lock.acquire(blocking=False):
            self._prefix_cache.clear()
            self._model.release()
            self._lock.release()

    def _acquire(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise LimitExceededError(
                f"Model {self.name!r} is still answering another request; try again when that has ended.", retry_after=1
            )


class Generation:
    """The events of an answer; at its end, or when it is closed or forgotten, the model is free for the next one."""

    def __init__(self, decoding: RequestDecoding, release: Callable[[], None]) -> None:
        self._decoding = decoding
        self._events: Iterator[GenerationEvent] = decoding.run()
        self._release: Callable[[], None] | None = release

    @property
    def usage(self) -> TokenUsage:
        """The tokens of prompt and answers, as far as they have come."""
        return self._decoding.usage

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> GenerationEvent:
        try:
            return next(self._events)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop decoding; what has been run stays in the prefix cache."""
        release, self._release = self._release, None
        if release is not None:
            try:
                self._events.close()  # type: ignore[attr-defined] # a generator's
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
