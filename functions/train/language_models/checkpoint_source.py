"""Choose the reader of a language model by what lies at its path, importing only what that one needs."""

from pathlib import Path

from functions.train.language_models.decoder_config import DecoderCheckpoint
from pilotlight.errors import InvalidInputError

GGUF_MAGIC = b"GGUF"


def is_gguf_file(path: Path) -> bool:
    """Return whether the file is llama.cpp's, whatever its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC


def read_decoder_checkpoint(path: Path) -> DecoderCheckpoint:
    """Read a language model; `InvalidInputError` if it is none."""
    if path.is_dir():
        from functions.train.language_models import hugging_face_folder

        return hugging_face_folder.read_hugging_face_folder(path)
    if is_gguf_file(path):
        from functions.train.language_models import gguf_file

        return gguf_file.read_gguf_file(path)
    raise InvalidInputError(f"{path} is no language model: it must be a Hugging Face folder or a GGUF file.")
