"""Our own decoder as a Hugging Face folder: read back, published, and the same to the last bit."""

from pathlib import Path

import numpy as np

from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from functions.train.language_models.hugging_face_export import build_llama_files
from functions.train.language_models.weight_shapes import list_weight_shapes
from pilotlight.cli.language_model import is_language_model
from tests.tiny_decoders import END, TINY_LLAMA, build_checkpoint


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    checkpoint = build_checkpoint()
    for name, content in build_llama_files(checkpoint).items():
        (tmp_path / name).write_bytes(content)
    assert is_language_model(tmp_path)
    again = read_decoder_checkpoint(tmp_path)
    assert again.config == TINY_LLAMA
    assert (again.begin_token, again.end_tokens, again.special_tokens["eos_token"]) == (0, (1,), END)
    for name in list_weight_shapes(TINY_LLAMA):
        np.testing.assert_array_equal(again.weights.read(name), checkpoint.weights.read(name), strict=True)
