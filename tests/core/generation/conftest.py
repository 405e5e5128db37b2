"""A tiny decoder with seeded weights, where its graph can be written."""

from typing import TYPE_CHECKING

import pytest

from pilotlight.contracts.decoder import DecoderSpec

if TYPE_CHECKING:
    from tests.tiny_decoders import TinyDecoder


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> "TinyDecoder":
    pytest.importorskip("onnx")
    from tests.tiny_decoders import write_tiny_decoder

    return write_tiny_decoder(tmp_path_factory.mktemp("tiny"), ("fp32", "int8"), context_length=600)


@pytest.fixture
def spec() -> DecoderSpec:
    return DecoderSpec(
        family="llama",
        context_length=600,
        vocabulary_size=320,
        layers=2,
        kv_heads=2,
        head_size=16,
        end_tokens=(1,),
    )
