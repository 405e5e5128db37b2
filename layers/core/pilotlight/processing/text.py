"""Texts to token ids: the only module that imports tokenizers.

It knows one request's texts and the version's tokenizer, nothing of the model behind them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from pilotlight.contracts.manifest import Draft, Manifest, TensorSpec
from pilotlight.contracts.processing import Text
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.processing.tensor import column
from pilotlight.runtime.assets import Assets
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.session import Array

PARTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}  # by the graph's input
PADDINGS = ("[PAD]", "<pad>", "<|padding|>", "<|endoftext|>", "</s>")  # used where the tokenizer names no padding token


def feeds(steps: Text, manifest: Manifest, tensor: Array, assets: Assets) -> Mapping[str, Array]:
    """What the graph has of ids, mask and types, [batch, tokens], padded to the longest text or the graph's length."""
    tokenizer = assets.made(steps.tokenizer, partial(opened, steps=steps, length=fixed(manifest)))
    texts = checked(steps, column(tensor, steps.name))
    encodings = encoded(tokenizer, texts)
    if not steps.truncate:
        refuse_long(steps, encodings)
    return {spec.name: part(encodings, spec) for spec in manifest.inputs}


def part(encodings: Sequence[Any], spec: TensorSpec) -> Array:
    """One of the graph's inputs."""
    return np.array([getattr(encoding, PARTS[spec.name]) for encoding in encodings], NUMPY_DTYPES[spec.datatype])


def checked(steps: Text, elements: Array) -> list[str]:
    """The texts, none blank and not too much of them together."""
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


def fixed(manifest: Draft) -> int | None:
    """The number of tokens that the graph insists on; `ModelRefusedError` for inputs that no tokenizer makes."""
    unknown = [spec.name for spec in manifest.inputs if spec.name not in PARTS or len(spec.shape) != 2]
    if unknown:
        raise ModelRefusedError(f"A text model's inputs are {list(PARTS)}, [batch, tokens] each, not {unknown}.")
    lengths = [spec.shape[1] for spec in manifest.inputs if isinstance(spec.shape[1], int)]
    return min(lengths, default=None)


def opened(content: bytes, steps: Text, length: int | None) -> Tokenizer:
    """A tokenizer that cuts and pads as the steps say; `ModelRefusedError` when the file is none."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as exc:  # the library raises nothing narrower
        raise ModelRefusedError(f"{steps.tokenizer} is not a tokenizer.json: {exc}.") from exc
    if steps.truncate:
        tokenizer.enable_truncation(min(steps.max_length, length or steps.max_length))
    else:
        tokenizer.no_truncation()
    tokenizer.enable_padding(**padding(tokenizer), length=length)
    return tokenizer


def padding(tokenizer: Tokenizer) -> dict[str, Any]:
    """How the tokenizer itself pads; else with the first usual token that it has, on the right."""
    own = tokenizer.padding
    if own is not None:
        return {name: own[name] for name in ("direction", "pad_id", "pad_type_id", "pad_token")}
    token = next((token for token in PADDINGS if tokenizer.token_to_id(token) is not None), None)
    return {"pad_id": tokenizer.token_to_id(token), "pad_token": token} if token is not None else {}


def encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Any]:
    """One encoding for each text."""
    try:
        return list(tokenizer.encode_batch(texts))
    except Exception as exc:  # the library raises nothing narrower
        raise InvalidInputError(f"The tokenizer refused the texts: {exc}.") from exc


def refuse_long(steps: Text, encodings: Sequence[Any]) -> None:
    """Refuse what has more tokens than the model takes, since it is not to be cut."""
    for place, encoding in enumerate(encodings):
        tokens = sum(encoding.attention_mask)
        if tokens > steps.max_length:
            raise InvalidInputError(f"Text {place} has {tokens:,} tokens, more than {steps.max_length}; shorten it.")
