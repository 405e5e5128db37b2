"""Tokens with their probabilities, in the forms of OpenAI's chats and of its completions."""

from collections.abc import Iterable, Sequence

from pilotlight.api.schemas.chat import ChatLogprobs, ChatTokenLogprob, CompletionLogprobs, TokenAlternative
from pilotlight.generation.request import ScoredToken, TokenLogprob
from pilotlight.generation.text_stream import TextStream

LEAST_LOGPROB = -9999.0  # for a probability of 0, as OpenAI writes it: JSON has no infinity


def build_chat_logprobs(scores: Iterable[ScoredToken]) -> ChatLogprobs:
    """Build the logprobs of a choice, or of a chunk of it."""
    return ChatLogprobs([build_chat_token(score) for score in scores])


def build_chat_token(score: ScoredToken) -> ChatTokenLogprob:
    """Build one token, whose bytes may be a part of a character."""
    chosen = score.chosen
    return ChatTokenLogprob(
        chosen.text, limit_logprob(chosen.logprob), list(chosen.bytes), list(map(build_alternative, score.top))
    )


def build_alternative(token: TokenLogprob) -> TokenAlternative:
    """Build one of the likeliest tokens."""
    return TokenAlternative(token.text, limit_logprob(token.logprob), list(token.bytes))


def limit_logprob(logprob: float) -> float:
    """Return a logarithm that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)


def name_token(token: TokenLogprob) -> str:
    """Name a token in completions, whose form has no bytes: its text, or its bytes where those are no characters."""
    try:
        return token.bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)  # as OpenAI writes it


def build_completion_logprobs(scores: Sequence[ScoredToken], start: int) -> CompletionLogprobs:
    """Build the logprobs of a text whose first token begins at the character `start`."""
    return CompletionLogprobs(
        tokens=[name_token(score.chosen) for score in scores],
        token_logprobs=[limit_logprob(score.chosen.logprob) for score in scores],
        top_logprobs=[build_top_by_name(score) for score in scores],
        text_offset=compute_text_offsets([score.chosen for score in scores], start),
    )


def compute_text_offsets(tokens: Iterable[TokenLogprob], start: int = 0) -> list[int]:
    """Compute before how many characters of the text each token begins; a character counts with its last byte."""
    offsets, place, stream = [], start, TextStream()
    for token in tokens:
        offsets.append(place)
        place += len(stream.push(token.bytes))
    return offsets


def build_top_by_name(score: ScoredToken) -> dict[str, float]:
    """Build the likeliest tokens by name, with the chosen one even if it is none of them."""
    likeliest = {name_token(token): limit_logprob(token.logprob) for token in score.top}
    return {**likeliest, name_token(score.chosen): limit_logprob(score.chosen.logprob)} if score.top else {}
