"""Turn texts into token ids: the only module that imports tokenizers, beside that of language models.

It knows a request's texts and the version's tokenizer, not the model. A tokenizer takes up to 2 us for a character, and
a model reads 128 to 512 tokens: so a long text is cut before it is tokenized, see `tokenize_texts`.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from pilotlight.contracts.manifest import Manifest, ManifestDraft, TensorSpec
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import InvalidInputError, ModelRefusedError, TooLargeError
from pilotlight.native.calls import NativeCalls
from pilotlight.processing.input_validation import check_row_count, flatten_column
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

# Characters for each token of `max_length` that are tokenized: most texts need 5; more if those do not fill it.
CHARACTERS_PER_TOKEN = (8, 64, 256)
LOOKAHEAD_CHARACTERS = 256  # after a token, on which a tokenizer may decide about it; a word of WordPiece has 100
MAX_TOKENIZED_CHARACTERS = 400_000  # of a request, after cutting: 0.8 s on one vCPU at worst


def build_tokenizing_error(cause: str) -> InvalidInputError:
    """Build the error of texts that cannot be tokenized."""
    return InvalidInputError(f"The tokenizer refused the texts: {cause}.")


def build_tokenizer_error(path: str, cause: str) -> ModelRefusedError:
    """Build the error of a file that is not a tokenizer."""
    return ModelRefusedError(f"{path} is not a tokenizer.json: {cause}.")


TOKENIZING = NativeCalls("tokenizers", build_tokenizing_error, (Exception,))  # the library raises nothing narrower


def build_text_feeds(
    steps: TextPreprocessing, manifest: Manifest, tensor: Array, assets: Assets
) -> Mapping[str, Array]:
    """Build the graph's ids, mask and types, [batch, tokens], padded to the longest text or to the graph's length."""
    tokenizer = assets.get_or_parse(
        steps.tokenizer, partial(load_tokenizer, steps=steps, length=get_fixed_length(manifest))
    )
    texts = check_texts(steps, flatten_column(tensor, steps.name))
    encodings = tokenize_texts(tokenizer, texts, steps)
    if not steps.truncate:
        refuse_long_texts(steps, encodings)
    with TOKENIZING:
        return {spec.name: build_graph_input(encodings, spec) for spec in manifest.inputs}


def count_tokens(steps: TextPreprocessing, manifest: Manifest, texts: list[str], assets: Assets) -> int:
    """Count the tokens that the model reads of these texts, special ones among them; padding is none."""
    tokenizer = assets.get_or_parse(
        steps.tokenizer, partial(load_tokenizer, steps=steps, length=get_fixed_length(manifest))
    )
    return sum(sum(encoding.attention_mask) for encoding in tokenize_texts(tokenizer, texts, steps))


def build_graph_input(encodings: Sequence[Any], spec: TensorSpec) -> Array:
    """Build one of the graph's inputs."""
    return np.array(
        [getattr(encoding, ENCODING_FIELDS[spec.name]) for encoding in encodings], NUMPY_DTYPES[spec.datatype]
    )


def check_texts(steps: TextPreprocessing, elements: Array) -> list[str]:
    """Check that no text is blank, and that they are neither too many nor too long together."""
    check_row_count(steps, len(elements))
    texts: list[str] = elements.tolist()
    for place, text in enumerate(texts):
        if not text.strip():
            raise InvalidInputError(f"Text {place} is empty; send at least one word.")
    characters = sum(map(len, texts))
    if characters > steps.max_characters:
        raise TooLargeError(
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
    with NativeCalls("tokenizers", partial(build_tokenizer_error, steps.tokenizer), (Exception,)):
        tokenizer = Tokenizer.from_buffer(content)
        if steps.truncate:
            tokenizer.enable_truncation(min(steps.max_length, length or steps.max_length))
        else:
            tokenizer.no_truncation()
        tokenizer.enable_padding(**get_padding(tokenizer), length=length)
    return tokenizer


@TOKENIZING
def get_padding(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the tokenizer's own padding; else the first usual token that it has, on the right."""
    own = tokenizer.padding
    if own is not None:
        return {name: own[name] for name in ("direction", "pad_id", "pad_type_id", "pad_token")}
    token = next((token for token in PADDING_TOKENS if tokenizer.token_to_id(token) is not None), None)
    return {"pad_id": tokenizer.token_to_id(token), "pad_token": token} if token is not None else {}


def tokenize_texts(tokenizer: Tokenizer, texts: list[str], steps: TextPreprocessing) -> list[Any]:
    """Tokenize the texts: one encoding for each, all of one length.

    If texts are truncated, only the beginning of a long one is tokenized, and more of it if that does not fill the
    tokens. Its ids are those of the whole text if the tokenizer decides on a token by no more than the
    `LOOKAHEAD_CHARACTERS` after it, as tokenizers of words and of BPE do for all but made-up texts. A text of which 256
    characters for each token do not fill them, of spaces or accents, is cut there.
    """
    if not steps.truncate:
        refuse_long_characters(steps, texts)
    if not steps.truncate or max(map(len, texts)) <= CHARACTERS_PER_TOKEN[0] * steps.max_length:
        check_tokenizing_cost(texts, MAX_TOKENIZED_CHARACTERS, steps)
        return encode_texts(tokenizer, texts)
    return pad_encodings(tokenizer, encode_beginnings(tokenizer, texts, steps))


def encode_beginnings(tokenizer: Tokenizer, texts: list[str], steps: TextPreprocessing) -> list[Any]:
    """Encode the beginning of each text, and a longer one of those whose tokens are not settled by it."""
    settled: dict[int, Any] = {}
    left = MAX_TOKENIZED_CHARACTERS
    for share in CHARACTERS_PER_TOKEN:
        window = share * steps.max_length + LOOKAHEAD_CHARACTERS
        places = [place for place in range(len(texts)) if place not in settled]
        beginnings = [texts[place][:window] for place in places]
        left -= check_tokenizing_cost(beginnings, left, steps)
        for place, encoding in zip(places, encode_texts(tokenizer, beginnings), strict=True):
            is_last = len(texts[place]) <= window or share == CHARACTERS_PER_TOKEN[-1]
            if is_last or is_settled(encoding, window):
                settled[place] = encoding
        if len(settled) == len(texts):
            break
    return [settled[place] for place in range(len(texts))]


def check_tokenizing_cost(texts: Collection[str], left: int, steps: TextPreprocessing) -> int:
    """Return how many characters are to be tokenized; `TooLargeError` if they are more than `left`."""
    characters = sum(map(len, texts))
    if characters > left:
        raise TooLargeError(
            f"The request's texts have {characters:,} characters to be tokenized, of which a request may have "
            f"{MAX_TOKENIZED_CHARACTERS:,} after each was cut for {steps.max_length} tokens; "
            f"about {max(1, len(texts) * left // characters)} of these {len(texts)} texts fit."
        )
    return characters


@TOKENIZING
def encode_texts(tokenizer: Tokenizer, texts: list[str]) -> list[Any]:
    """Encode the texts with tokenizers."""
    return list(tokenizer.encode_batch(texts))


@TOKENIZING
def is_settled(encoding: Any, window: int) -> bool:  # noqa: ANN401 - the library's own
    """Return whether the encoding of a text that was cut at `window` characters is that of the whole text."""
    return bool(encoding.overflowing) and max(end for _, end in encoding.offsets) <= window - LOOKAHEAD_CHARACTERS


@TOKENIZING
def pad_encodings(tokenizer: Tokenizer, encodings: list[Any]) -> list[Any]:
    """Pad the encodings of several calls to the longest, as the tokenizer pads those of one."""
    longest = max(map(len, encodings))
    padding = get_padding(tokenizer)
    for encoding in encodings:
        if len(encoding) < longest:
            encoding.pad(longest, **padding)
    return encodings


def refuse_long_characters(steps: TextPreprocessing, texts: Sequence[str]) -> None:
    """Refuse, before it is tokenized, a text that must not be truncated and cannot fit into the model's tokens."""
    limit = CHARACTERS_PER_TOKEN[-1] * steps.max_length
    for place, text in enumerate(texts):
        if len(text) > limit:
            raise TooLargeError(
                f"Text {place} has {len(text):,} characters; one for {steps.max_length} tokens may have {limit:,}, "
                "shorten it."
            )


@TOKENIZING
def refuse_long_texts(steps: TextPreprocessing, encodings: Sequence[Any]) -> None:
    """Refuse a text with more tokens than the model takes, if it must not be truncated."""
    for place, encoding in enumerate(encodings):
        tokens = sum(encoding.attention_mask)
        if tokens > steps.max_length:
            raise InvalidInputError(f"Text {place} has {tokens:,} tokens, more than {steps.max_length}; shorten it.")
