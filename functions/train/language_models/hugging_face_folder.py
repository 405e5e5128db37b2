"""Read a language model from a Hugging Face folder: config.json, safetensors and tokenizer.json.

No code of the folder is run, and nothing is unpickled.
"""

from pathlib import Path

from functions.train.convert.hf_checkpoint import read_json_object
from functions.train.language_models.decoder_config import DecoderCheckpoint
from functions.train.language_models.hugging_face_config import parse_folder_config
from functions.train.language_models.hugging_face_tokenizer import find_licence, read_folder_tokenizer
from functions.train.language_models.safetensors_weights import (
    SafetensorsWeights,
    list_stored_tensors,
    name_stored_weights,
)
from functions.train.language_models.weight_shapes import HEAD, check_weights


def read_hugging_face_folder(folder: Path) -> DecoderCheckpoint:
    """Read the folder; `InvalidInputError` if something is missing or wrong, `UnsupportedError` for other families."""
    file = folder / "config.json"
    document = read_json_object(file)
    tensors = list_stored_tensors(folder)
    config = parse_folder_config(file, document, has_head=HEAD in tensors)
    weights = SafetensorsWeights(folder, name_stored_weights(tensors, config))
    check_weights(str(folder), config, weights.shapes)
    tokenizer = read_folder_tokenizer(folder, document, config.vocabulary_size)
    return DecoderCheckpoint(
        config=config,
        weights=weights,
        tokenizer_json=tokenizer.tokenizer_json,
        end_tokens=tokenizer.end_tokens,
        begin_token=tokenizer.begin_token,
        chat_template=tokenizer.chat_template,
        special_tokens=tokenizer.special_tokens,
        origin=str(folder),
        licence=find_licence(folder),
    )
