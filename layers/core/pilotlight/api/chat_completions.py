"""Bodies of OpenAI's chat completions as conversations; what cannot be served is refused."""

from typing import Any

from pilotlight.api.conversation import Conversation
from pilotlight.api.generation_fields import (
    build_sampling,
    build_stop_strings,
    check_common_fields,
    find_output_format,
    refuse_fields,
)
from pilotlight.api.json_bodies import decode_json_body
from pilotlight.api.openai_chat_messages import build_messages, build_tool_choice, build_tools
from pilotlight.api.openai_errors import UNSUPPORTED
from pilotlight.api.schemas.chat import ChatCompletionBody
from pilotlight.errors import FieldError

TEXT_ONLY = "this server answers with text; leave it out."
REFUSED = {
    "audio": TEXT_ONLY,
    "web_search_options": "this server searches nothing; leave it out.",
    "functions": "it is the older form of `tools`; send those.",
    "function_call": "it is the older form of `tool_choice`; send that.",
}
OWN_VARIABLES = ("messages", "tools", "add_generation_prompt", "continue_final_message")  # of every chat template


def decode_chat_body(body: bytes) -> ChatCompletionBody:
    """Decode and check a body, as far as it can be without the model."""
    chat = decode_json_body(body, ChatCompletionBody)
    refuse_fields(chat, REFUSED)
    for modality in chat.modalities or ():
        if modality != "text":
            raise FieldError(f"modalities has {modality!r}: {TEXT_ONLY}", param="modalities", code=UNSUPPORTED)
    check_common_fields(chat, get_max_tokens(chat))
    if chat.top_logprobs and not chat.logprobs:
        raise FieldError(f"top_logprobs is {chat.top_logprobs}, which needs logprobs to be true.", param="top_logprobs")
    for name in OWN_VARIABLES:
        if name in (chat.chat_template_kwargs or ()):
            raise FieldError(
                f"chat_template_kwargs has {name!r}, which is a field of the body itself.", param="chat_template_kwargs"
            )
    if chat.continue_final_message:
        check_continuation(chat)
    return chat


def check_continuation(chat: ChatCompletionBody) -> None:
    """Check that the last message can be continued: the assistant's, and no new message is begun."""
    if chat.add_generation_prompt:
        raise FieldError(
            "add_generation_prompt begins a new message, but continue_final_message goes on with the last one; set one "
            "of them.",
            param="continue_final_message",
        )
    if chat.messages[-1].role != "assistant":
        raise FieldError(
            f"continue_final_message needs a last message of the assistant, but it is of {chat.messages[-1].role!r}.",
            param="continue_final_message",
        )


def build_conversation(chat: ChatCompletionBody) -> Conversation:
    """Build the conversation of a body."""
    tools = build_tools(chat.tools)
    options: dict[str, Any] = dict(chat.chat_template_kwargs or {})
    if chat.reasoning_effort is not None:
        options.setdefault("reasoning_effort", chat.reasoning_effort)
    return Conversation(
        messages=build_messages(chat.messages),
        tools=tools,
        tool_choice=build_tool_choice(chat.tool_choice, tools),
        parallel_tool_calls=chat.parallel_tool_calls is not False,
        output_format=find_output_format(chat),
        sampling=build_sampling(chat),
        max_tokens=get_max_tokens(chat),
        min_tokens=chat.min_tokens or 0,
        choices=chat.n or 1,
        stop_strings=build_stop_strings(chat),
        stop_tokens=tuple(chat.stop_token_ids or ()),
        include_stop_string=bool(chat.include_stop_str_in_output),
        ignore_end=bool(chat.ignore_eos),
        top_logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        prompt_lookup=bool(chat.prompt_lookup),
        template_options=options,
        add_generation_prompt=chat.add_generation_prompt is not False,
        continue_final_message=bool(chat.continue_final_message),
    )


def get_max_tokens(chat: ChatCompletionBody) -> int | None:
    """Return the limit of an answer's tokens, by its newer name or its older one."""
    return chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens


def get_echo(chat: ChatCompletionBody, conversation: Conversation) -> str:
    """Return what every answer begins with: the continued message, if an echo of it was asked for."""
    if not (chat.echo and conversation.continue_final_message):
        return ""
    return str(conversation.messages[-1]["content"])
