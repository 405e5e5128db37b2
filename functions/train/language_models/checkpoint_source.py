"""Choose the reader of a language model by what lies at its path, importing only what that one needs."""

from pathlib import Path

from functions.train.language_models.decoder_config import DecoderCheckpoint
from functions.train.language_models.gguf_signature import is_gguf_file
from pilotlight.errors import InvalidInputError


def read_decoder_checkpoint(path: Path) -> DecoderCheckpoint:
    """Read a language model; `InvalidInputError` if it is none."""
    if path.is_dir():
        from functions.train.language_models import hugging_face_folder

        return hugging_face_folder.read_hugging_face_folder(path)
    if is_gguf_file(path):
        from functions.train.language_models import gguf_file

        return gguf_file.read_gguf_file(path)
    raise InvalidInputError(f"{path} is no language model: it must be a Hugging Face folder or a GGUF file.")
