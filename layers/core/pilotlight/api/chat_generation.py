"""The one way from a conversation to generated text and tool calls, which every chat protocol shares.

A protocol translates its body into a `Conversation`, and the events of a `ChatGeneration` into its own answer. Nothing
here knows a protocol.

    conversation -> chat template -> prompt in tokens -> engine -> deltas of content and of tool calls -> finish reason
"""

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pilotlight.api.conversation import (
    ChatEvent,
    ContentDelta,
    Conversation,
    FinishName,
    MessageEnd,
    OutputPlan,
    OutputReader,
    ToolCallDelta,
)
from pilotlight.api.request_context import RequestContext
from pilotlight.errors import ContextLengthError, InvalidInputError, UnavailableError
from pilotlight.generation.prompt_encoding import encode_fitting_prompt, encode_prompt
from pilotlight.generation.request import (
    ChoiceEnd,
    FinishReason,
    GenerationRequest,
    TextDelta,
    TokenUsage,
    never_cancelled,
)

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel
    from pilotlight.runtime.measured_generation import GenerationEvents

    Generate = Callable[[GenerationRequest, Callable[[], bool]], GenerationEvents]

ANSWER_MARGIN_S = 0.5  # between the last token and the deadline, for the last frames to be written


class ChatGeneration:
    """An answer that is being generated: iterate over its events; `close` stops the engine."""

    def __init__(
        self, generation: "GenerationEvents", plan: OutputPlan, prompt: tuple[int, ...], choices: int = 1
    ) -> None:
        self.prompt = prompt  # its tokens
        self._generation = generation
        self._plan = plan
        self._unended = set(range(choices))
        self._readers: dict[int, OutputReader] = {}
        self._has_calls: set[int] = set()
        self._events = self._translate()
        self._ahead: list[ChatEvent] = []  # what `begin` has waited for

    def begin(self) -> None:
        """Wait for the first event, so that what fails before it is an error of its own status."""
        try:
            self._ahead.extend(itertools.islice(self._events, 1))
        except BaseException:
            self.close()
            raise

    @property
    def prompt_tokens(self) -> int:
        """The number of the prompt's tokens."""
        return len(self.prompt)

    @property
    def usage(self) -> TokenUsage:
        """The tokens of prompt and answers; complete after the last event."""
        return self._generation.usage

    def __iter__(self) -> Iterator[ChatEvent]:
        """Yield deltas as they come, and one end for each choice; the events come once.

        Raises `UnavailableError` where the engine stops before all choices have ended: no protocol may call that whole.
        """
        while self._ahead:
            yield self._ahead.pop(0)
        yield from self._events

    def close(self) -> None:
        """Stop generating; nobody waits for the rest."""
        self._generation.close()

    def _translate(self) -> Iterator[ChatEvent]:
        """Yield the events of the engine's."""
        for event in self._generation:
            if isinstance(event, ChoiceEnd):
                self._unended.discard(event.choice)
                yield from self._end_choice(event)
            else:
                yield from self._read_delta(event)
        if self._unended:
            raise UnavailableError(f"The generation ended before choice {min(self._unended)} did; try again.")

    def _read_delta(self, delta: TextDelta) -> Iterator[ChatEvent]:
        """Yield what a delta of text adds; the tokens and scores go with its first content."""
        reader = self._find_reader(delta.choice)
        if reader is None:
            yield ContentDelta(delta.choice, delta.text, delta.tokens, delta.scores)
            return
        tokens, scores = delta.tokens, delta.scores
        for part in reader.read(delta.text):
            if isinstance(part, ToolCallDelta):
                self._has_calls.add(delta.choice)
                yield part
            else:
                yield ContentDelta(delta.choice, part.text, tokens, scores)
                tokens, scores = (), ()
        if tokens or scores:  # of text that is held back, or is part of a call
            yield ContentDelta(delta.choice, "", tokens, scores)

    def _end_choice(self, end: ChoiceEnd) -> Iterator[ChatEvent]:
        """Yield what was held back, and the end with its reason: `tool_calls` where whole calls were made."""
        reader = self._find_reader(end.choice)
        for part in reader.finish() if reader is not None else ():
            if isinstance(part, ToolCallDelta):
                self._has_calls.add(end.choice)
            yield part
        reason: FinishName = "stop" if end.reason == FinishReason.STOP else "length"
        if reason == "stop" and end.choice in self._has_calls:
            reason = "tool_calls"
        yield MessageEnd(end.choice, reason, end.stop, end.completion_tokens)

    def _find_reader(self, choice: int) -> OutputReader | None:
        """Return the choice's reader; None if all of its text is content."""
        if self._plan.create_reader is None:
            return None
        if choice not in self._readers:
            self._readers[choice] = self._plan.create_reader(choice)
        return self._readers[choice]


def prepare_chat(
    model: "LanguageModel", conversation: Conversation, context: RequestContext, generate: "Generate | None" = None
) -> ChatGeneration:
    """Render, tokenize and check a conversation, and generate up to the first event; most of what can fail fails here.

    `generate` runs the request instead of the model's own method, which measures nothing. Raises `InvalidInputError`
    with the template's own sentence, and `ContextLengthError` with both numbers.
    """
    check_has_template(model)
    plan = plan_output(model, conversation)
    prompt = encode_fitting_prompt(model, render_prompt(model, conversation, plan))
    return begin_generation(model, conversation, prompt, plan, context, generate)


def prepare_text(
    model: "LanguageModel",
    text: str,
    conversation: Conversation,
    context: RequestContext,
    generate: "Generate | None" = None,
) -> ChatGeneration:
    """Generate the continuation of a text up to the first event; the conversation has no messages, and says how."""
    prompt = encode_fitting_prompt(model, text)
    if not prompt:
        raise InvalidInputError(f"The text is empty, and {model.name!r} has no token that begins a text; send a word.")
    return begin_generation(model, conversation, prompt, OutputPlan(), context, generate)


def begin_generation(
    model: "LanguageModel",
    conversation: Conversation,
    prompt: tuple[int, ...],
    plan: OutputPlan,
    context: RequestContext,
    generate: "Generate | None" = None,
) -> ChatGeneration:
    """Begin to continue a prompt, up to the first event."""
    request = build_generation_request(model, conversation, prompt, plan, context)
    events = (generate or model.generate)(request, never_cancelled)
    generation = ChatGeneration(events, plan, prompt, conversation.choices)
    generation.begin()
    return generation


def plan_output(model: "LanguageModel", conversation: Conversation) -> OutputPlan:
    """Plan the form of the answer: free text, a format, or tool calls."""
    if conversation.output_format is None and not conversation.tools:
        return OutputPlan()
    from pilotlight.api.output_plans import build_plan  # loads the compiler of constraints, which few chats need

    return build_plan(model, conversation)


def check_has_template(model: "LanguageModel") -> None:
    """Raise `InvalidInputError` if the model takes no conversations."""
    if model.chat_template is None:
        raise InvalidInputError(
            f"The model {model.name!r} has no chat template, so it continues texts only; use /v1/completions."
        )


def render_prompt(model: "LanguageModel", conversation: Conversation, plan: OutputPlan | None = None) -> str:
    """Render the conversation with the model's chat template, as its plan wants it."""
    check_has_template(model)
    assert model.chat_template is not None  # noqa: S101 - for the type checker
    plan = plan_output(model, conversation) if plan is None else plan
    messages = conversation.messages
    return model.chat_template.render(
        messages if plan.prepare_messages is None else plan.prepare_messages(messages),
        tools=plan.template_tools,
        add_generation_prompt=conversation.add_generation_prompt and not conversation.continue_final_message,
        continue_final_message=conversation.continue_final_message,
        chat_template_kwargs=conversation.template_options,
    )


def count_prompt_tokens(model: "LanguageModel", conversation: Conversation) -> int:
    """Count the tokens of a conversation's prompt, without generating."""
    return len(encode_prompt(model, render_prompt(model, conversation)))


def compute_max_tokens(model: "LanguageModel", prompt_tokens: int, asked: int | None) -> int:
    """Compute how many tokens an answer may have: what was asked for, at most what is left of the context."""
    left = model.spec.context_length - prompt_tokens
    if left < 1:
        raise ContextLengthError(prompt_tokens, model.spec.context_length)
    return left if asked is None else min(asked, left)


def build_generation_request(
    model: "LanguageModel",
    conversation: Conversation,
    prompt: tuple[int, ...],
    plan: OutputPlan,
    context: RequestContext,
) -> GenerationRequest:
    """Build the engine's request."""
    max_tokens = compute_max_tokens(model, len(prompt), conversation.max_tokens)
    return GenerationRequest(
        prompt=prompt,
        max_tokens=max_tokens,
        min_tokens=min(conversation.min_tokens, max_tokens),
        sampling=conversation.sampling,
        choices=conversation.choices,
        stop_strings=conversation.stop_strings,
        stop_tokens=conversation.stop_tokens,
        include_stop_string=conversation.include_stop_string,
        ignore_end=conversation.ignore_end,
        top_logprobs=conversation.top_logprobs,
        constraint=plan.constraint,
        prompt_lookup=conversation.prompt_lookup,
        deadline=context.deadline - ANSWER_MARGIN_S,
        cache_owner=context.tenant,
    )
