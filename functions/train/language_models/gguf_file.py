"""Read a language model from a GGUF file, llama.cpp's format: weights, tokenizer and chat template in one."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType

from functions.train.language_models.decoder_config import DecoderCheckpoint
from functions.train.language_models.gguf_config import ROTARY_FACTORS, SHORT_FACTORS, parse_gguf_config
from functions.train.language_models.gguf_header import GgufHeader, read_gguf_header
from functions.train.language_models.gguf_tokenizer import (
    build_tokenizer_json,
    find_begin_token,
    find_end_tokens,
    find_special_tokens,
)
from functions.train.language_models.gguf_weights import GgufWeights
from functions.train.language_models.tokenizer_document import fit_tokenizer_json
from functions.train.language_models.weight_shapes import check_weights
from pilotlight.errors import UnsupportedError

TEMPLATE_KEY, LICENCE_KEY = "tokenizer.chat_template", "general.license"
MAX_FACTORS = 4096  # of rotation, one for each pair of a head's values


def read_gguf_file(file: Path) -> DecoderCheckpoint:
    """Read the file; `InvalidInputError` if it is damaged, `UnsupportedError` for a model that is not computed."""
    header = read_gguf_header(file)
    config = parse_gguf_config(header, read_rotary_factors(header))
    weights = GgufWeights.find(header, config)
    check_weights(str(file), config, weights.shapes)
    return DecoderCheckpoint(
        config=config,
        weights=weights,
        tokenizer_json=fit_tokenizer_json(build_tokenizer_json(header), str(file), config.vocabulary_size),
        end_tokens=find_end_tokens(header, config.vocabulary_size),
        begin_token=find_begin_token(header, config.vocabulary_size),
        chat_template=read_optional_text(header, TEMPLATE_KEY),
        special_tokens=find_special_tokens(header),
        origin=str(file),
        licence=read_optional_text(header, LICENCE_KEY),
    )


def read_optional_text(header: GgufHeader, key: str) -> str | None:
    """Read a text of the metadata; None if there is none."""
    text = header.metadata.get(key)
    return text if isinstance(text, str) else None


def read_rotary_factors(header: GgufHeader) -> tuple[float, ...]:
    """Read by what each frequency of rotation is divided; none where the file has no such weights.

    `UnsupportedError` for anything but a few numbers, since without them the model would answer wrongly.
    """
    tensor = header.tensors.get(ROTARY_FACTORS, header.tensors.get(SHORT_FACTORS))
    if tensor is None:
        return ()
    if tensor.kind != GGMLQuantizationType.F32 or len(tensor.shape) != 1 or tensor.shape[0] > MAX_FACTORS:
        raise UnsupportedError(
            f"{header.file}: the weight {tensor.name} is {list(tensor.shape)} of the kind {tensor.kind.name}; up to "
            f"{MAX_FACTORS} numbers of the kind F32 are read."
        )
    return tuple(map(float, tensor.content.reshape(-1).view(np.float32)))
