"""Our own decoder through the readers' door: the logits are the trained module's."""

import numpy as np
import pytest
import torch
from torch import nn

from functions.train.data.tokenizer import END_OF_TEXT, Tokenizer
from functions.train.language_models.trained_decoder import describe_trained_decoder
from functions.train.models.decoder import Decoder
from functions.train.training.trainer import seed_torch
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import DecoderOptions
from tests.reference_decoder import ReferenceDecoder

SIZES = {"architecture": "decoder", "layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 48, "context": 16}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_from_texts(["the pilot light burns", "day and night"], 270)


@pytest.mark.parametrize("tied", [True, False])
def test_a_trained_decoder_computes_the_same_logits(tokenizer: Tokenizer, tied: bool) -> None:
    options = DecoderOptions.model_validate(SIZES | {"tied": tied, "base": 500.0})
    vocabulary = len(tokenizer.tokens)
    with seed_torch(1):
        decoder = Decoder(options, vocabulary).eval()
        for weight in decoder.parameters():  # as drawn, they are so small that the layers hardly matter
            nn.init.normal_(weight, std=0.3)
    checkpoint = describe_trained_decoder(nn.Sequential(decoder), options, tokenizer, "run 7")
    tokens = np.random.default_rng(0).integers(vocabulary, size=16)
    with torch.no_grad():
        expected = decoder(torch.from_numpy(tokens)[None])[0].numpy()
    logits = ReferenceDecoder(checkpoint).compute_logits(tokens.tolist())
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    end = tokenizer.tokens.index(END_OF_TEXT)
    assert (checkpoint.end_tokens, checkpoint.begin_token, checkpoint.chat_template) == ((end,), end, None)


def test_a_model_without_a_decoder_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidInputError, match=r"run 8 is no decoder"):
        describe_trained_decoder(nn.Linear(2, 2), DecoderOptions.model_validate(SIZES), tokenizer, "run 8")
