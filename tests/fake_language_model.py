"""A language model without a graph: it says what a test wants, and keeps what it was asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.generation.request import (
    ChoiceEnd,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ScoredToken,
    TextDelta,
    TokenLogprob,
    TokenUsage,
)

BEGIN_TOKEN = 256  # behind the tokens that are bytes


class ByteTokenizer:
    """A tokenizer whose tokens are the bytes of UTF-8."""

    vocabulary_size = 257

    def encode(self, text: str, *, parse_special: bool = False, add_special: bool = False) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < BEGIN_TOKEN).decode(errors="replace")

    def get_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < BEGIN_TOKEN else b"<begin>"


class PlainTemplate(ChatTemplate):
    """A chat template that writes each role and content, and calls; what it was given stays in `calls`.

    As many templates, it knows no developer, and takes the system's text at the beginning alone.
    """

    TEXT = (
        "{% for message in messages %}"
        "{% if message.role == 'developer' or (message.role == 'system' and not loop.first) %}"
        "{{ raise_exception('no ' ~ message.role ~ ' here') }}{% endif %}<{{ message.role }}>{{ message.content }}"
        "{% for call in message.tool_calls or [] %}{{ call.function.name }}{{ call.function.arguments | tojson }}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )

    def __init__(self) -> None:
        super().__init__(self.TEXT)
        self.calls: list[tuple[list[Mapping[str, Any]], Any, dict[str, Any]]] = []

    def render(self, messages: Sequence[Mapping[str, Any]], /, **options: Any) -> str:  # noqa: ANN401 - as there
        tools = options.pop("tools", None)
        self.calls.append((list(messages), tools, options))
        return super().render(messages, tools=tools, **options)


class FakeGeneration:
    """The events of a script, each text of which counts as one token."""

    def __init__(self, model: "FakeLanguageModel", request: GenerationRequest) -> None:
        self._model = model
        self._request = request
        self._completion_tokens = 0
        self.is_closed = False

    @property
    def usage(self) -> TokenUsage:
        return TokenUsage(len(self._request.prompt), self._completion_tokens, self._model.cached_tokens)

    def close(self) -> None:
        self.is_closed = True

    def __iter__(self) -> Iterator[GenerationEvent]:
        for choice in range(self._request.choices):
            reason, tokens = FinishReason.STOP, 0
            for text in self._model.script:
                if tokens == self._request.max_tokens:
                    reason = FinishReason.LENGTH
                    break
                if self._model.fail_after == tokens:
                    raise RuntimeError("the graph failed")
                tokens += 1
                self._completion_tokens += 1
                yield TextDelta(choice, text, (ord(text[0]),), self._score(text))
            if self._model.breaks_off:
                return
            yield ChoiceEnd(choice, reason, self._model.stop if reason == FinishReason.STOP else None, tokens)

    def _score(self, text: str) -> tuple[ScoredToken, ...]:
        if self._request.top_logprobs is None:
            return ()
        chosen = TokenLogprob(ord(text[0]), text, text.encode(), -0.5)
        return (ScoredToken(chosen, (chosen,) * self._request.top_logprobs),)


class FakeLanguageModel:
    """A language model that answers every request with the texts of `script`, one for each token."""

    name = "chat"

    def __init__(
        self,
        script: Sequence[str],
        *,
        context_length: int = 1000,
        fail_after: int | None = None,
        cached_tokens: int = 0,
        stop: str | None = None,
        breaks_off: bool = False,
    ) -> None:
        self.script = script
        self.stop = stop  # the stop string that ends an answer
        self.fail_after = fail_after
        self.breaks_off = breaks_off  # whether the events stop without an end of the choice
        self.cached_tokens = cached_tokens
        self.tokenizer = ByteTokenizer()
        self.chat_template: PlainTemplate | None = PlainTemplate()
        self.requests: list[GenerationRequest] = []
        self.generations: list[FakeGeneration] = []
        self.spec = DecoderSpec(
            family="llama",
            context_length=context_length,
            vocabulary_size=257,
            layers=1,
            kv_heads=1,
            head_size=8,
            end_tokens=(0,),
            begin_token=BEGIN_TOKEN,
        )

    def generate(self, request: GenerationRequest, is_cancelled: Callable[[], bool]) -> FakeGeneration:
        self.requests.append(request)
        self.generations.append(FakeGeneration(self, request))
        return self.generations[-1]

    def score(self, tokens: Sequence[int], deadline: float) -> list[float]:
        return [-1.0] * (len(tokens) - 1)

    @property
    def rendered_messages(self) -> list[Mapping[str, Any]]:
        """The messages of the last prompt, as the template was given them."""
        assert self.chat_template is not None
        return self.chat_template.calls[-1][0]

    @property
    def prompt(self) -> str:
        """The text of the last prompt."""
        return self.tokenizer.decode(self.requests[-1].prompt)
