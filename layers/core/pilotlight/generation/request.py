"""A request for text, in the engine's own terms, and what comes back: deltas of text, then why each choice ended.

Protocols translate to and from these: chat completions, completions, responses, messages. Nothing here depends on one.
"""

from collections.abc import Mapping
from enum import StrEnum
from math import inf
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

BoolArray = npt.NDArray[np.bool_]


class FinishReason(StrEnum):
    """Why a choice ended."""

    STOP = "stop"  # an end token, a stop token or a stop string
    LENGTH = "length"  # the limit of tokens, the end of the context, or the deadline
    CANCELLED = "cancelled"  # nobody waits for it any more


class SamplingOptions(Struct, frozen=True, kw_only=True):
    """How the next token is drawn from the logits; the defaults are OpenAI's, and temperature 0 takes the greatest."""

    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Meta(ge=0)] = 0  # 0: all tokens
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0  # of the likeliest token's probability
    seed: int | None = None  # choice i of several draws by seed + i; None for another answer each time
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0  # of generated tokens, once each
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0  # of generated tokens, each time
    repetition_penalty: Annotated[float, Meta(gt=0)] = 1.0  # divides, of tokens of prompt and answer
    logit_bias: Mapping[int, float] = {}


class TokenConstraint(Protocol):
    """What the next token may be, such as the continuation of a JSON document that fits its schema."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing but an end token may follow."""

    def compute_mask(self) -> BoolArray:
        """Return which tokens may come next, (vocabulary,); end tokens are allowed where the text may end."""

    def accept(self, token: int) -> None:
        """Take the token that was chosen."""


class ConstraintFactory(Protocol):
    """Makes the constraint of one choice; each of several choices has its own."""

    def __call__(self) -> TokenConstraint:
        """Create a constraint at its beginning."""


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """A prompt in tokens, and how to continue it."""

    prompt: tuple[int, ...]
    max_tokens: Annotated[int, Meta(ge=1)]
    min_tokens: Annotated[int, Meta(ge=0)] = 0  # before which no end token, stop token or stop string ends an answer
    sampling: SamplingOptions = SamplingOptions()
    choices: Annotated[int, Meta(ge=1)] = 1
    stop_strings: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()  # beside the end tokens of the model
    include_stop_string: bool = False  # whether the stop string is part of the text
    ignore_end: bool = False  # whether end tokens are ordinary ones
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None  # alternatives for each token; None: no logprobs
    constraint: ConstraintFactory | None = None
    # Drafts tokens from the prompt, if there is one choice or all are the same; its text may not be plain decoding's.
    prompt_lookup: bool = False
    deadline: float = inf  # on time.monotonic's clock
    # Goes on with sequences of the same owner alone: else `cached_tokens` would tell what the prompts of others say.
    cache_owner: str = ""


class TokenLogprob(Struct, frozen=True):
    """A token with the natural logarithm of its probability, before temperature and penalties."""

    token: int
    text: str  # as far as the token has whole characters
    bytes: bytes  # the token's true bytes, which may be part of a character
    logprob: float


class ScoredToken(Struct, frozen=True):
    """A generated token, and the likeliest ones in its place."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


class TextDelta(Struct, frozen=True):
    """The next whole characters of a choice; `tokens` are those that have come since the last delta."""

    choice: int
    text: str
    tokens: tuple[int, ...] = ()
    scores: tuple[ScoredToken, ...] = ()  # if logprobs were asked for


class ChoiceEnd(Struct, frozen=True):
    """The end of a choice, with the stop string or token that ended it, if it was none of the model's end tokens."""

    choice: int
    reason: FinishReason
    stop: str | int | None = None
    completion_tokens: int = 0  # of this choice, end token among them


class TokenUsage(Struct, frozen=True):
    """The tokens of a request: `cached_tokens` of the prompt were known from an earlier request."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


GenerationEvent = TextDelta | ChoiceEnd


def never_cancelled() -> bool:
    """Return False: the caller stays, or closes the generation when he leaves."""
    return False
