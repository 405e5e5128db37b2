"""Turn texts into token ids: the only module that imports tokenizers.

It knows a request's texts and the version's tokenizer, not the model.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from pilotlight.contracts.manifest import Manifest, ManifestDraft, TensorSpec
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.processing.input_validation import flatten_column
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.model_cache import Assets

ENCODING_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}  # by the graph's input
PADDING_TOKENS = (
    "[PAD]",
    "<pad>",
    "<|padding|>",
    "<|endoftext|>",
    "</s>",
)  # used if the tokenizer names no padding token


def build_text_feeds(
    steps: TextPreprocessing, manifest: Manifest, tensor: Array, assets: Assets
) -> Mapping[str, Array]:
    """Build the graph's ids, mask and types, [batch, tokens], padded to the longest text or to the graph's length."""
    tokenizer = assets.get_or_parse(
        steps.tokenizer, partial(load_tokenizer, steps=steps, length=get_fixed_length(manifest))
    )
    texts = check_texts(steps, flatten_column(tensor, steps.name))
    encodings = tokenize_texts(tokenizer, texts)
    if not steps.truncate:
        refuse_long_texts(steps, encodings)
    return {spec.name: build_graph_input(encodings, spec) for spec in manifest.inputs}


def build_graph_input(encodings: Sequence[Any], spec: TensorSpec) -> Array:
    """Build one of the graph's inputs."""
    return np.array(
        [getattr(encoding, ENCODING_FIELDS[spec.name]) for encoding in encodings], NUMPY_DTYPES[spec.datatype]
    )


def check_texts(steps: TextPreprocessing, elements: Array) -> list[str]:
    """Check that no text is blank and that they are not too long together."""
    texts: list[str] = elements.tolist()
    for place, text in enumerate(texts):
        if not text.strip():
            raise InvalidInputError(f"Text {place} is empty; send at least one word.")
    characters = sum(map(len, texts))
    if characters > steps.max_characters:
        raise InvalidInputError(
            f"The request's texts have {characters:,} characters together, more than {steps.max_characters:,}; "
            "send shorter or fewer ones."
        )
    return texts


def get_fixed_length(manifest: ManifestDraft) -> int | None:
    """Return the number of tokens that the graph requires, if fixed; `ModelRefusedError` for other inputs."""
    unknown = [spec.name for spec in manifest.inputs if spec.name not in ENCODING_FIELDS or len(spec.shape) != 2]
    if unknown:
        raise ModelRefusedError(
            f"A text model's inputs are {list(ENCODING_FIELDS)}, [batch, tokens] each, not {unknown}."
        )
    lengths = [spec.shape[1] for spec in manifest.inputs if isinstance(spec.shape[1], int)]
    return min(lengths, default=None)


def load_tokenizer(content: bytes, steps: TextPreprocessing, length: int | None) -> Tokenizer:
    """Load a tokenizer that truncates and pads by the steps; `ModelRefusedError` if the file is not one."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as exc:  # the library raises nothing narrower
        raise ModelRefusedError(f"{steps.tokenizer} is not a tokenizer.json: {exc}.") from exc
    if steps.truncate:
        tokenizer.enable_truncation(min(steps.max_length, length or steps.max_length))
    else:
        tokenizer.no_truncation()
    tokenizer.enable_padding(**get_padding(tokenizer), length=length)
    return tokenizer


def get_padding(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the tokenizer's own padding; else the first usual token that it has, on the right."""
    own = tokenizer.padding
    if own is not None:
        return {name: own[name] for name in ("direction", "pad_id", "pad_type_id", "pad_token")}
    token = next((token for token in PADDING_TOKENS if tokenizer.token_to_id(token) is not None), None)
    return {"pad_id": tokenizer.token_to_id(token), "pad_token": token} if token is not None else {}


def tokenize_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Any]:
    """Tokenize the texts: one encoding for each."""
    try:
        return list(tokenizer.encode_batch(texts))
    except Exception as exc:  # the library raises nothing narrower
        raise InvalidInputError(f"The tokenizer refused the texts: {exc}.") from exc


def refuse_long_texts(steps: TextPreprocessing, encodings: Sequence[Any]) -> None:
    """Refuse a text with more tokens than the model takes, if it must not be truncated."""
    for place, encoding in enumerate(encodings):
        tokens = sum(encoding.attention_mask)
        if tokens > steps.max_length:
            raise InvalidInputError(f"Text {place} has {tokens:,} tokens, more than {steps.max_length}; shorten it.")
