"""Folders of each family, against the logits that transformers computes of them."""

from pathlib import Path

import numpy as np
import pytest

from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from tests.models.decoders.make import TOKENS
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import CONFIGS, write_checkpoint

LOGITS = Path(__file__).parents[3] / "models" / "decoders" / "logits.npz"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_family_is_computed_as_transformers_does(tmp_path: Path, name: str) -> None:
    checkpoint = read_decoder_checkpoint(write_checkpoint(tmp_path, name))
    logits = ReferenceDecoder(checkpoint).compute_logits(TOKENS)[-1]
    with np.load(LOGITS) as expected:
        np.testing.assert_allclose(logits, expected[name], rtol=1e-3, atol=1e-4)
