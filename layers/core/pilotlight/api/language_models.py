"""The models of the registry as OpenAI's routes list them, and texts as tokens in vLLM's form."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from pilotlight.api.chat_generation import render_prompt
from pilotlight.api.conversation import Conversation
from pilotlight.api.openai_chat_messages import build_messages, build_tools
from pilotlight.api.schemas.chat import (
    DetokenizeBody,
    DetokenizeResult,
    LanguageModelList,
    LanguageModelObject,
    TokenizeBody,
    TokenizeResult,
)
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import EmbeddingPostprocessing, TextPreprocessing
from pilotlight.errors import FieldError
from pilotlight.generation.prompt_encoding import encode_prompt

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

OWNER = "pilotlight"
GENERATION, EMBEDDING = "generation", "embedding"  # tasks that routes of OpenAI's answer for


def describe_task(manifest: Manifest) -> str:
    """Return what a model is for: generation, embedding of texts, or its manifest's task."""
    embeds = isinstance(manifest.postprocess, EmbeddingPostprocessing)
    return EMBEDDING if embeds and isinstance(manifest.preprocess, TextPreprocessing) else manifest.task


def is_listed(manifest: Manifest) -> bool:
    """Return whether a model can be named in a body of OpenAI's routes."""
    return describe_task(manifest) in (GENERATION, EMBEDDING)


def describe_language_model(model_id: str, manifest: Manifest) -> LanguageModelObject:
    """Describe a model under the name by which it was asked for; each client reads another name of the same length."""
    length = find_context_length(manifest)
    generates = manifest.decoder is not None
    return LanguageModelObject(
        id=model_id,
        created=int(datetime.fromisoformat(manifest.created).timestamp()),
        owned_by=OWNER,
        task=describe_task(manifest),
        version=manifest.version,
        max_model_len=length,
        context_length=length,
        max_input_tokens=length - 1 if length and generates else length,
        max_output_tokens=length - 1 if length and generates else None,
    )


def find_context_length(manifest: Manifest) -> int | None:
    """Find how many tokens a model takes; None if it takes no texts."""
    if manifest.decoder is not None:
        return manifest.decoder.context_length
    return manifest.preprocess.max_length if isinstance(manifest.preprocess, TextPreprocessing) else None


def list_language_models(manifests: Iterable[Manifest]) -> LanguageModelList:
    """List the models that OpenAI's routes answer for."""
    return LanguageModelList([describe_language_model(each.name, each) for each in manifests if is_listed(each)])


def tokenize(body: TokenizeBody, model: "LanguageModel") -> TokenizeResult:
    """Split a text or a rendered chat into tokens."""
    if (body.prompt is None) == (body.messages is None):
        raise FieldError("Send a prompt or messages to be split into tokens, and not both.", param="prompt")
    tokens = tokenize_chat(body, model) if body.messages is not None else tokenize_prompt(body, model)
    tokenizer = model.tokenizer
    texts = [tokenizer.get_bytes(token).decode(errors="replace") for token in tokens]
    return TokenizeResult(
        len(tokens), model.spec.context_length, list(tokens), texts if body.return_token_strs else None
    )


def tokenize_prompt(body: TokenizeBody, model: "LanguageModel") -> tuple[int, ...]:
    """Split a text, by default with the token that every prompt begins with."""
    return encode_prompt(model, body.prompt or "", with_begin=body.add_special_tokens is not False)


def tokenize_chat(body: TokenizeBody, model: "LanguageModel") -> tuple[int, ...]:
    """Split a chat as its template renders it; it has the tokens that the engine would get."""
    conversation = Conversation(
        messages=build_messages(body.messages or ()),
        tools=build_tools(body.tools),
        template_options=body.chat_template_kwargs or {},
        add_generation_prompt=body.add_generation_prompt is not False,
        continue_final_message=bool(body.continue_final_message),
    )
    return encode_prompt(model, render_prompt(model, conversation))


def detokenize(body: DetokenizeBody, model: "LanguageModel") -> DetokenizeResult:
    """Join tokens to a text."""
    size = model.spec.vocabulary_size
    wrong = [token for token in body.tokens if not 0 <= token < size]
    if wrong:
        raise FieldError(
            f"tokens has {wrong[0]}, but the tokens of {model.name!r} are 0 to {size - 1}.", param="tokens"
        )
    return DetokenizeResult(model.tokenizer.decode(body.tokens))
