"""OpenAI's completions: texts, or tokens of this model's own tokenizer, and how they continue.

Several prompts are answered one after the other; each has its `n` choices, numbered on from those of the prompt before.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, UnsetType

from pilotlight.api.chat_answers import AnswerHead, build_usage, write_error
from pilotlight.api.chat_generation import ANSWER_MARGIN_S, compute_max_tokens, plan_output
from pilotlight.api.conversation import Conversation
from pilotlight.api.generation_fields import (
    build_sampling,
    build_stop_strings,
    check_common_fields,
    check_token_ids,
    find_output_format,
    refuse_fields,
)
from pilotlight.api.json_bodies import decode_json_body
from pilotlight.api.request_context import RequestContext
from pilotlight.api.schemas.chat import Completion, CompletionBody, CompletionChoice, CompletionLogprobs, Usage
from pilotlight.api.server_sent_events import DONE, encode_event
from pilotlight.api.stream_failures import tell_failure
from pilotlight.api.token_logprobs import (
    build_completion_logprobs,
    compute_text_offsets,
    limit_logprob,
    name_token,
)
from pilotlight.errors import FieldError, UnavailableError
from pilotlight.generation.prompt_encoding import encode_fitting_prompt
from pilotlight.generation.request import (
    ChoiceEnd,
    ConstraintFactory,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ScoredToken,
    TextDelta,
    TokenLogprob,
    TokenUsage,
)

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel
    from pilotlight.runtime.measured_generation import GenerationEvents

DEFAULT_MAX_TOKENS = 16  # OpenAI's, of completions
MAX_PROMPTS = 128
Generate = Callable[[GenerationRequest, Callable[[], bool]], "GenerationEvents"]
REFUSED = {"suffix": "this model writes at the end of a text only; leave it out."}


class EchoedPrompt(Struct, frozen=True):
    """A prompt as an answer repeats it: its text, and its tokens' probabilities if they were asked for."""

    text: str = ""
    logprobs: CompletionLogprobs | None = None


class PromptPlan(Struct, frozen=True):
    """A prompt with the request that continues it; None if nothing is to be generated."""

    tokens: tuple[int, ...]
    request: GenerationRequest | None
    echo: EchoedPrompt = EchoedPrompt()


def decode_completion_body(body: bytes) -> CompletionBody:
    """Decode and check a body, as far as it can be without the model."""
    completion = decode_json_body(body, CompletionBody)
    refuse_fields(completion, REFUSED, (None, ""))
    check_common_fields(completion, completion.max_tokens)
    if completion.best_of not in (None, completion.n or 1):
        raise FieldError(
            f"best_of is {completion.best_of}, but n is {completion.n or 1}: no answers are left out here; leave out "
            "best_of.",
            param="best_of",
            code="unsupported_parameter",
        )
    if completion.max_tokens == 0 and not completion.echo:
        raise FieldError("max_tokens is 0, which leaves an empty answer unless echo is true.", param="max_tokens")
    return completion


def list_prompts(completion: CompletionBody) -> list[str | tuple[int, ...]]:
    """List the prompts: one text, several texts, the tokens of one prompt, or those of several."""
    prompt = completion.prompt
    if isinstance(prompt, str):
        return [prompt]
    if prompt and all(isinstance(one, int) for one in prompt):
        return [tuple(one for one in prompt if isinstance(one, int))]
    if not 0 < len(prompt) <= MAX_PROMPTS or any(isinstance(one, int) for one in prompt):
        raise FieldError(
            f"prompt must be a text, 1 to {MAX_PROMPTS} texts, or tokens; it is a list of {len(prompt)}.",
            param="prompt",
        )
    return [one if isinstance(one, str) else tuple(one) for one in prompt if not isinstance(one, int)]


def plan_prompts(
    completion: CompletionBody,
    model: "LanguageModel",
    context: RequestContext,
) -> list[PromptPlan]:
    """Plan all prompts, so that what is wrong with one is told before the first is answered.

    An echo with probabilities takes a run of its prompt here, so that the time may be over: `DeadlineError`.
    """
    check_token_ids(completion, model)
    constraint = plan_output(model, Conversation(messages=(), output_format=find_output_format(completion))).constraint
    plans = []
    for place, prompt in enumerate(list_prompts(completion)):
        context.check_deadline()
        tokens = encode_tokens(model, prompt, completion, place)
        request = build_request(completion, model, tokens, constraint, context)
        plans.append(PromptPlan(tokens, request, build_echo(completion, model, prompt, tokens, context.deadline)))
    return plans


def encode_tokens(
    model: "LanguageModel", prompt: str | tuple[int, ...], completion: CompletionBody, place: int
) -> tuple[int, ...]:
    """Return the tokens of a prompt; those that came as tokens are taken as they are."""
    if isinstance(prompt, str):
        with_begin = completion.add_special_tokens is not False
        tokens = encode_fitting_prompt(model, prompt, with_begin=with_begin)
    else:
        tokens = prompt
        size = model.spec.vocabulary_size
        wrong = [token for token in tokens if not 0 <= token < size]
        if wrong:
            raise FieldError(
                f"prompt has the token {wrong[0]}, but the tokens of {model.name!r} are 0 to {size - 1}; were they "
                "made by another tokenizer? Send text.",
                param="prompt",
            )
    if not tokens:
        raise FieldError(f"Prompt {place} is empty; send a text to continue.", param="prompt")
    return tokens


def build_request(
    completion: CompletionBody,
    model: "LanguageModel",
    tokens: tuple[int, ...],
    constraint: ConstraintFactory | None,
    context: RequestContext,
) -> GenerationRequest | None:
    """Build the engine's request; None if nothing is to be generated."""
    asked = DEFAULT_MAX_TOKENS if completion.max_tokens is None else completion.max_tokens
    if asked == 0:
        return None
    max_tokens = compute_max_tokens(model, len(tokens), asked)
    return GenerationRequest(
        prompt=tokens,
        max_tokens=max_tokens,
        min_tokens=min(completion.min_tokens or 0, max_tokens),
        sampling=build_sampling(completion),
        choices=completion.n or 1,
        stop_strings=build_stop_strings(completion),
        stop_tokens=tuple(completion.stop_token_ids or ()),
        include_stop_string=bool(completion.include_stop_str_in_output),
        ignore_end=bool(completion.ignore_eos),
        top_logprobs=completion.logprobs,
        constraint=constraint,
        prompt_lookup=bool(completion.prompt_lookup),
        deadline=context.deadline - ANSWER_MARGIN_S,
        cache_owner=context.tenant,
    )


def build_echo(
    completion: CompletionBody,
    model: "LanguageModel",
    prompt: str | tuple[int, ...],
    tokens: tuple[int, ...],
    deadline: float,
) -> EchoedPrompt:
    """Build the prompt as it is repeated; its first token follows nothing, so that it has no probability."""
    if not completion.echo:
        return EchoedPrompt()
    text = prompt if isinstance(prompt, str) else model.tokenizer.decode(list(tokens))
    if completion.logprobs is None:
        return EchoedPrompt(text)
    pieces = [describe_token(model, token) for token in tokens]
    # The token that begins a prompt is none of a text that has not written it.
    begins = len(tokens) > 0 and tokens[0] == model.spec.begin_token and not text.startswith(pieces[0].text)
    offsets = [*([0] if begins else []), *compute_text_offsets(pieces[begins:])]
    names = [name_token(piece) for piece in pieces]
    following = [limit_logprob(float(each)) for each in model.score(tokens, deadline)] if len(tokens) > 1 else []
    unknown: list[dict[str, float] | None] = [{} for _ in following]  # the likeliest in their place are not computed
    return EchoedPrompt(text, CompletionLogprobs(names, [None, *following], [None, *unknown], offsets))


def describe_token(model: "LanguageModel", token: int) -> TokenLogprob:
    """Describe a token of a prompt."""
    content = model.tokenizer.get_bytes(token)
    return TokenLogprob(token, content.decode(errors="ignore"), content, 0.0)


def add_logprobs(left: CompletionLogprobs | None, right: CompletionLogprobs) -> CompletionLogprobs:
    """Join the logprobs of a prompt and of what follows it."""
    if left is None:
        return right
    return CompletionLogprobs(
        left.tokens + right.tokens,
        left.token_logprobs + right.token_logprobs,
        left.top_logprobs + right.top_logprobs,
        left.text_offset + right.text_offset,
    )


class CompletionWriter:
    """Answers the prompts of a body one after the other."""

    def __init__(
        self, head: AnswerHead, completion: CompletionBody, plans: Sequence[PromptPlan], generate: Generate
    ) -> None:
        self._head = head
        self._completion = completion
        self._choices = completion.n or 1
        self._plans = plans
        self._generate = generate
        self._generation: GenerationEvents | None = None  # under way
        self._usages: list[TokenUsage] = []
        self._closed = False
        self._events = self._list_events()
        self._ahead: list[tuple[int, GenerationEvent]] = []

    def begin(self) -> None:
        """Wait for the first event, so that what fails before it is an error of its own status."""
        try:
            self._ahead = [next(self._events)]
        except StopIteration:
            self._ahead = []
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop: nobody waits for the rest."""
        self._closed = True
        if self._generation is not None:
            self._generation.close()

    def answer(self) -> Completion:
        """Wait for all choices, and build the whole answer."""
        count = len(self._plans) * self._choices
        texts: list[list[str]] = [[] for _ in range(count)]
        scores: list[list[ScoredToken]] = [[] for _ in range(count)]
        tokens: list[list[int]] = [[] for _ in range(count)]
        ends: dict[int, ChoiceEnd] = {}
        try:
            for first, event in self._iterate():
                index = first + event.choice
                if isinstance(event, ChoiceEnd):
                    ends[index] = event
                else:
                    texts[index].append(event.text)
                    scores[index] += event.scores
                    tokens[index] += event.tokens
        finally:
            self.close()
        choices = [
            self._build_choice(index, "".join(texts[index]), scores[index], tokens[index], ends[index])
            for index in range(count)
        ]
        return self._build_completion(choices, build_usage(self.usage))

    def stream(self) -> Iterator[bytes]:
        """Yield the frames of a stream; a failure is a frame too."""
        yield from tell_failure(self._write_chunks(), write_error)
        yield DONE

    def _write_chunks(self) -> Iterator[bytes]:
        """Yield the chunks of all choices, and of the usage."""
        places: dict[int, int] = {}  # characters of each choice so far
        if self._completion.echo:
            yield from map(self._encode_echo, range(len(self._plans) * self._choices))
        for first, event in self._iterate():
            index = first + event.choice
            if isinstance(event, ChoiceEnd):
                yield self._encode(self._build_end(index, event))
            elif event.text or event.scores or self._completion.return_token_ids:
                start = places.get(index, len(self._plans[index // self._choices].echo.text))
                places[index] = start + len(event.text)
                yield self._encode(self._build_delta(index, event, start))
        if self._streams_usage:
            yield encode_event(self._build_completion([], build_usage(self.usage)))

    @property
    def usage(self) -> TokenUsage:
        """The tokens of all prompts and answers."""
        usages = self._usages
        return TokenUsage(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(usage.cached_tokens for usage in usages),
        )

    def _iterate(self) -> Iterator[tuple[int, GenerationEvent]]:
        while self._ahead:
            yield self._ahead.pop(0)
        yield from self._events

    def _list_events(self) -> Iterator[tuple[int, GenerationEvent]]:
        """Yield all events, each with the number of its prompt's first choice; check that every choice ends."""
        for place, plan in enumerate(self._plans):
            first = place * self._choices
            if plan.request is None:
                self._usages.append(TokenUsage(len(plan.tokens), 0))
                for choice in range(self._choices):
                    yield first, ChoiceEnd(choice, FinishReason.LENGTH)
                continue
            self._generation = self._generate(plan.request, lambda: self._closed)
            missing = set(range(self._choices))
            for event in self._generation:
                if isinstance(event, ChoiceEnd):
                    missing.discard(event.choice)
                yield first, event
            if missing:
                raise UnavailableError(f"The generation ended before choice {first + min(missing)} did; try again.")
            self._usages.append(self._generation.usage)

    def _build_choice(
        self, index: int, text: str, scores: list[ScoredToken], tokens: list[int], end: ChoiceEnd
    ) -> CompletionChoice:
        plan = self._plans[index // self._choices]
        logprobs = None
        if self._completion.logprobs is not None:
            logprobs = add_logprobs(plan.echo.logprobs, build_completion_logprobs(scores, len(plan.echo.text)))
        has_tokens = bool(self._completion.return_token_ids)
        return CompletionChoice(
            index=index,
            text=plan.echo.text + text,
            logprobs=logprobs,
            finish_reason="stop" if end.reason == FinishReason.STOP else "length",
            stop_reason=end.stop,
            token_ids=tokens if has_tokens else UNSET,
            prompt_token_ids=list(plan.tokens) if has_tokens else UNSET,
        )

    def _build_delta(self, index: int, event: TextDelta, start: int) -> CompletionChoice:
        return CompletionChoice(
            index=index,
            text=event.text,
            logprobs=(
                build_completion_logprobs(event.scores, start) if self._completion.logprobs is not None else None
            ),
            token_ids=list(event.tokens) if self._completion.return_token_ids else UNSET,
        )

    def _build_end(self, index: int, event: ChoiceEnd) -> CompletionChoice:
        return CompletionChoice(
            index=index,
            text="",
            finish_reason="stop" if event.reason == FinishReason.STOP else "length",
            stop_reason=event.stop,
        )

    def _encode_echo(self, index: int) -> bytes:
        plan = self._plans[index // self._choices]
        return self._encode(CompletionChoice(index=index, text=plan.echo.text, logprobs=plan.echo.logprobs))

    def _encode(self, choice: CompletionChoice) -> bytes:
        return encode_event(self._build_completion([choice], None if self._streams_usage else UNSET))

    @property
    def _streams_usage(self) -> bool:
        options = self._completion.stream_options
        return options is not None and bool(options.include_usage)

    def _build_completion(self, choices: list[CompletionChoice], usage: Usage | UnsetType | None) -> Completion:
        head = self._head
        return Completion(
            id=head.id,
            created=head.created,
            model=head.model,
            system_fingerprint=head.system_fingerprint,
            choices=choices,
            usage=usage,
        )
