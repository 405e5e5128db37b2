"""Whether a file is llama.cpp's: this module needs nothing that reads one."""

from pathlib import Path

GGUF_MAGIC = b"GGUF"


def is_gguf_file(path: Path) -> bool:
    """Return whether the file is llama.cpp's, whatever its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
