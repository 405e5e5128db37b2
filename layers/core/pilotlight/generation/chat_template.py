"""Chat templates: the Jinja text that comes with a model and writes a conversation as the prompt it was trained on.

The environment is that of Hugging Face's transformers (`utils/chat_template_utils.py`, 5.24), so that the prompt is the
same character by character. A conversation that the template refuses, or from which it would leave out a system
message, is rewritten in the ways of `conversation_rewriting`, and refused only then, in the template's own words.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pilotlight.errors import InvalidInputError, TooLargeError, format_cause
from pilotlight.generation.conversation_rewriting import (
    REWRITINGS,
    Message,
    copy_messages,
    find_lost_text,
    flatten_content,
    parse_arguments,
    rename_developer,
    wrap_content,
)
from pilotlight.generation.tool_prompt import has_tool_use, write_tools

MAX_PROMPT_CHARACTERS = 16_000_000  # of a rendered prompt; far beyond any context, but a loop's text stays in memory
MAX_REPEATED = 1_000_000  # elements or digits that `*` and `**` may make in a template
CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "  # marks where the message ends that is to be continued
OWN_VARIABLES = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
# What templates raise beside Jinja's own errors, when a message is not of the form that they expect.
TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class TemplateProblem(NamedTuple):
    """Why a conversation could not be rendered, as the rest of a sentence."""

    text: str
    cause: Exception | None


class ChatTemplate:
    """A model's chat template; `special_tokens` are the names and texts that it may use, such as bos_token."""

    def __init__(self, text: str, special_tokens: Mapping[str, str] | None = None) -> None:
        self.text = text
        self._special_tokens = dict(special_tokens or {})
        self._environment = _create_environment()
        try:
            self._template = self._environment.from_string(text)
            self._variables = jinja2.meta.find_undeclared_variables(self._environment.parse(text))
        except (jinja2.TemplateError, RecursionError) as exc:
            raise InvalidInputError(f"The chat template cannot be read: {format_cause(exc)}.") from exc

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the template writes the tools of a request."""
        return "tools" in self._variables

    @cached_property
    def takes_tool_calls(self) -> bool:
        """Whether the template writes the calls of earlier answers."""
        return "tool_calls" in self.text

    @cached_property
    def takes_text(self) -> bool:
        """Whether the content of a message may be a string."""
        return self._shows("needle")

    @cached_property
    def takes_parts(self) -> bool:
        """Whether the content of a message may be a list of typed parts."""
        return self._shows([{"type": "text", "text": "needle"}])

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **variables: Any,  # noqa: ANN401
    ) -> str:
        """Render a conversation, rewritten where the template would refuse it or leave out a system message.

        `chat_template_kwargs` and `variables` are further variables of the template, such as enable_thinking.
        """
        chosen = {**variables, **(chat_template_kwargs or {})}
        if taken := sorted(OWN_VARIABLES & chosen.keys()):
            raise InvalidInputError(f"chat_template_kwargs may not have {', '.join(taken)}; the request has it itself.")
        conversation = self._adapt_content(copy_messages(messages))
        given = {"documents": documents, "add_generation_prompt": add_generation_prompt, **chosen}
        problem = TemplateProblem("", None)
        for rewritten in self._list_rewritings(conversation):
            for listed in (tools or None, tools or []) if self.takes_tools else (tools or None,):
                try:
                    prompt = self._render_once(rewritten, {"tools": listed, **given}, continues=continue_final_message)
                except TEMPLATE_ERRORS as exc:
                    problem = TemplateProblem(_describe_error(exc), exc)
                    continue
                if (lost := find_lost_text(messages, prompt)) is None:
                    return prompt
                problem = TemplateProblem(f"the chat template leaves out the system message {lost[:40]!r}.", None)
        raise InvalidInputError(f"The messages do not fit the model: {problem.text}") from problem.cause

    def render_exactly(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:  # noqa: ANN401
        """Render a conversation as it is."""
        try:
            return self._render_once(copy_messages(messages), variables, continues=False)
        except TEMPLATE_ERRORS as exc:
            raise InvalidInputError(f"The messages do not fit the model: {_describe_error(exc)}") from exc

    def _render_once(self, messages: list[Message], variables: Mapping[str, Any], *, continues: bool) -> str:
        messages = [_alias_reasoning(message) for message in messages]
        final_text = _mark_final_text(messages) if continues else ""
        pieces = self._template.generate({"documents": None, **self._special_tokens, **variables, "messages": messages})
        prompt = _join_bounded(pieces)
        return _cut_at_mark(prompt, final_text) if continues else prompt

    def _list_rewritings(self, messages: list[Message]) -> Iterator[list[Message]]:
        """Yield the conversation as it is, then rewritten further and further."""
        yield messages if "developer" in self.text else rename_developer(messages)
        rewritten = rename_developer(messages)
        for rewrite in REWRITINGS:
            before, rewritten = rewritten, rewrite(rewritten)
            if rewritten != before:
                yield rewritten

    def _adapt_content(self, messages: list[Message]) -> list[Message]:
        """Write contents as texts or as parts, arguments as mappings, and calls as text if the template has none."""
        if not self.takes_tool_calls and any(has_tool_use(message) for message in messages):
            messages = write_tools(messages, ())
        messages = [parse_arguments(message) for message in messages]
        if not self.takes_parts:
            return [flatten_content(message) for message in messages]
        return messages if self.takes_text else [wrap_content(message) for message in messages]

    def _shows(self, content: str | list[dict[str, str]]) -> bool:
        """Return whether a message's content comes out as its text and nothing else of it."""
        variables = {"tools": None, "add_generation_prompt": False}
        try:
            prompt = self._render_once([{"role": "user", "content": content}], variables, continues=False)
        except TEMPLATE_ERRORS:
            return False
        return "needle" in prompt and "'text'" not in prompt and '"text"' not in prompt


class _Generation(jinja2.ext.Extension):
    """The `{% generation %}` block, which marks for training what the assistant says, and is only text here."""

    tags = {"generation"}  # noqa: RUF012  # the type that Jinja declares

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Return the block's body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A scope of its own, as the macro in transformers has: what is set inside is not seen outside.
        return [jinja2.nodes.Scope(body).set_lineno(line)]


class _Namespace(jinja2.utils.Namespace):
    """The namespace() of templates, whose attributes do not begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # as in Jinja, so that namespace(self=1) works
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _check_attribute(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: object) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


class _Dictionary:
    """The dict of templates, without the class's attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:  # noqa: ANN401
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:  # noqa: ANN401
        """Create a dictionary of the same value for each key."""
        return dict.fromkeys(*args)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which no short expression makes a text or number that fills the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        """Compute `left * right` or `left ** right` unless the result is too large."""
        if _estimate_size(operator, left, right) > MAX_REPEATED:
            raise jinja2.TemplateError(f"the result of {operator} is too large")
        return super().call_binop(context, operator, left, right)


def _create_environment() -> ImmutableSandboxedEnvironment:
    """Create the environment of transformers."""
    extensions = [_Generation, jinja2.ext.loopcontrols]
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _write_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _format_now,
        "dict": _Dictionary(),
        "namespace": _Namespace,
    }
    return environment


def _raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))


def _format_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)  # noqa: DTZ005  # as in transformers: local time without a zone


def _write_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without the escapes of HTML that Jinja's own filter makes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _check_attribute(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace may not have the attribute {name!r}")


def _estimate_size(operator: str, left: object, right: object) -> int:
    """Estimate how many elements or digits the result of an operator has."""
    if operator == "**":
        return left.bit_length() * abs(right) if isinstance(left, int) and isinstance(right, int) else 0
    for repeated, count in ((left, right), (right, left)):
        if isinstance(repeated, str | list | tuple) and isinstance(count, int):
            return len(repeated) * max(count, 0)
    return 0


def _join_bounded(pieces: Iterable[str]) -> str:
    """Join the pieces of a prompt, unless they become too many."""
    parts: list[str] = []
    characters = 0
    for piece in pieces:
        parts.append(piece)
        characters += len(piece)
        if characters > MAX_PROMPT_CHARACTERS:
            raise TooLargeError(f"The prompt has more than {MAX_PROMPT_CHARACTERS:,} characters; send a shorter one.")
    return "".join(parts)


def _alias_reasoning(message: Message) -> Message:
    """Give a message's reasoning under each of the names that templates read."""
    reasoning = next((message[field] for field in REASONING_FIELDS if message.get(field) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _mark_final_text(messages: list[Message]) -> str:
    """Mark the end of the last message's text, and return that text."""
    content = messages[-1].get("content") if messages else None
    if isinstance(content, str):
        messages[-1] = {**messages[-1], "content": content + CONTINUE_TAG}
        return content
    texts = [part for part in content or [] if isinstance(part, dict) and isinstance(part.get("text"), str)]
    if not texts:
        raise jinja2.TemplateError("continue_final_message needs a last message with text")
    text: str = texts[-1]["text"]
    texts[-1]["text"] = text + CONTINUE_TAG
    return text


def _cut_at_mark(prompt: str, final_text: str) -> str:
    """Cut the prompt where the last message's text ends."""
    mark = prompt.rfind(CONTINUE_TAG.strip())
    if mark < 0 or final_text.strip() not in prompt:
        raise jinja2.TemplateError("continue_final_message needs a last message that the chat template writes whole")
    # A template that trims the message has trimmed the blank behind the mark; then the text's own end is trimmed too.
    return prompt[:mark] if prompt.startswith(CONTINUE_TAG, mark) else prompt[:mark].rstrip()


def _describe_error(exc: Exception) -> str:
    """Describe why a template failed, in its own words if it has some, as the rest of a sentence."""
    if type(exc) is jinja2.TemplateError:
        text = str(exc).strip()
        return text if text.endswith((".", "!", "?")) else f"{text}."
    if isinstance(exc, RecursionError):
        return "they are nested too deeply."
    return f"the chat template failed with {type(exc).__name__}: {format_cause(exc)}."
