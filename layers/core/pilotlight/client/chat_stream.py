"""A chat's answer while it comes from a server: its text, then what it took and cost."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from pilotlight.client.client import Client
from pilotlight.errors import UnavailableError

CHAT_PATH = "/v1/chat/completions"
DATA, DONE = "data: ", "[DONE]"
PRICE_HEADER, VERSION_HEADER = "x-pilotlight-usd-per-second", "x-pilotlight-version"
Message = Mapping[str, str]  # role and content


class _Delta(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Error(Struct):
    message: str = "no reason was given"


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


class ChatAnswer(Struct):
    """An answer as far as it has come."""

    text: str = ""
    finish_reason: str | None = None  # None until the end: one that has none was not finished
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float | None = None
    seconds: float = 0.0  # from the request to the last token
    usd: float | None = None  # on Lambda; None where the server does not tell the price
    version: str = ""

    @property
    def tokens_per_second(self) -> float | None:
        """The speed behind the first token; None for an answer of one token."""
        if self.first_token_seconds is None or self.completion_tokens < 2:
            return None
        return (self.completion_tokens - 1) / max(self.seconds - self.first_token_seconds, 1e-9)


def stream_chat(
    client: Client,
    model: str,
    messages: Sequence[Message],
    answer: ChatAnswer,
    **options: Any,  # noqa: ANN401 - fields
) -> Generator[str]:
    """Yield the pieces of an answer's text, and keep in `answer` what is known of it; closing stops the server too.

    `options` are further fields of the body. Raises `UnavailableError` where the stream ends too early.
    """
    fields = {name: value for name, value in options.items() if value is not None}
    body = {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}, **fields}
    started = time.perf_counter()
    with client.open_stream(CHAT_PATH, msgspec.json.encode(body)) as response:
        price = float(response.headers.get(PRICE_HEADER) or "nan")
        answer.version = response.headers.get(VERSION_HEADER, "")
        for chunk in decode_chunks(response.iter_lines()):
            answer.seconds = time.perf_counter() - started
            answer.usd = None if price != price else price * answer.seconds
            yield from read_chunk(chunk, answer)
    if answer.finish_reason is None:
        raise UnavailableError("The answer broke off before its end; ask again.")


def decode_chunks(lines: Iterator[str]) -> Iterator[_Chunk]:
    """Decode the frames of a stream until [DONE]; lines that are no data, such as comments, are left out."""
    for line in lines:
        if not line.startswith(DATA):
            continue
        data = line.removeprefix(DATA)
        if data == DONE:
            return
        try:
            yield msgspec.json.decode(data, type=_Chunk)
        except msgspec.MsgspecError as exc:
            raise UnavailableError(f"The server's stream is not that of chat completions: {exc}.") from exc


def read_chunk(chunk: _Chunk, answer: ChatAnswer) -> Iterator[str]:
    """Take a chunk into the answer, and yield its text."""
    if chunk.error is not None:
        raise UnavailableError(f"The answer broke off: {chunk.error.message}")
    if chunk.usage is not None:
        answer.prompt_tokens, answer.completion_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
    for choice in chunk.choices:
        answer.finish_reason = choice.finish_reason or answer.finish_reason
        if choice.delta.content:
            if answer.first_token_seconds is None:
                answer.first_token_seconds = answer.seconds
            answer.text += choice.delta.content
            yield choice.delta.content
