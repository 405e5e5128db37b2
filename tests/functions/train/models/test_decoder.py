"""The decoder is Llama's: checked part by part against the formulas, written out here with loops and no kernels."""

import numpy as np
import pytest
import torch

from functions.train.data.load import load_dataset
from functions.train.models import build
from functions.train.models.decoder import (
    Decoder,
    GroupedQueryAttention,
    SwiGlu,
    apply_rotary_angles,
    build_decoder_layers,
    compute_rotary_angles,
)
from functions.train.training.trainer import seed_torch
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import DecoderOptions, load_recipe

SIZES = {"architecture": "decoder", "layers": 2, "width": 16, "heads": 4, "kv_heads": 2, "hidden": 24, "context": 9}


def options(**changes: object) -> DecoderOptions:
    return DecoderOptions.model_validate(SIZES | changes)


def drawn(chosen: DecoderOptions, vocabulary: int = 11) -> Decoder:
    with seed_torch(3):
        return Decoder(chosen, vocabulary).eval()


def tokens(length: int, rows: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(11, size=(rows, length)))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_no_token_sees_those_after_it(kv_heads: int) -> None:
    network, whole = drawn(options(kv_heads=kv_heads)), tokens(9)
    with torch.no_grad():
        logits = network(whole)
        for length in range(1, 9):
            assert torch.allclose(network(whole[:, :length]), logits[:, :length], atol=1e-6)
    assert logits.shape == (2, 9, 11)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_is_the_papers_with_shared_keys(kv_heads: int) -> None:
    with seed_torch(5):
        layer, states = GroupedQueryAttention(options(kv_heads=kv_heads)), torch.randn(1, 6, 16)
    angles = compute_rotary_angles(6, 4, 1e4)
    with torch.no_grad():
        split = layer.project(states).reshape(6, 4 + 2 * kv_heads, 4)
        turned = apply_rotary_angles(split.transpose(0, 1)[None], angles)[0]  # (heads, T, d)
        seen = torch.zeros(6, 4, 4)
        for head in range(4):
            shared = head // (4 // kv_heads)
            query, key, value = turned[head], turned[4 + shared], split[:, 4 + kv_heads + shared]
            for place in range(6):
                weights = torch.softmax(key[: place + 1] @ query[place] / 4**0.5, dim=0)
                seen[place, head] = weights @ value[: place + 1]
        assert torch.allclose(layer(states, angles)[0], layer.merge(seen.reshape(6, 16)), atol=1e-6)


def test_positions_turn_pairs_as_complex_numbers() -> None:
    with seed_torch(1):
        heads = torch.randn(1, 1, 5, 6)
    turned = apply_rotary_angles(heads, compute_rotary_angles(5, 6, 100.0))[0, 0].numpy()
    pairs = heads[0, 0, :, :3].numpy() + 1j * heads[0, 0, :, 3:].numpy()
    expected = pairs * np.exp(1j * np.arange(5)[:, None] * 100.0 ** (-np.arange(3) / 3))
    assert turned[:, :3] + 1j * turned[:, 3:] == pytest.approx(expected, abs=1e-6)


def test_attention_knows_distances_not_places() -> None:
    cosines, sines = compute_rotary_angles(9, 4, 1e4)
    with seed_torch(2):
        layer, states = GroupedQueryAttention(options()), torch.randn(1, 4, 16)
    with torch.no_grad():
        here = layer(states, (cosines[:4], sines[:4]))
        there = layer(states, (cosines[5:], sines[5:]))
    assert torch.allclose(here, there, atol=1e-6)


def test_dense_layers_are_swiglu() -> None:
    with seed_torch(4):
        layer, states = SwiGlu(options()), torch.randn(3, 16)
    gate, up = (states @ part.T for part in layer.widen.weight.chunk(2))
    assert torch.allclose(layer(states), (gate * torch.sigmoid(gate) * up) @ layer.merge.weight.T, atol=1e-6)


def test_tied_decoder_has_one_matrix_for_its_tokens() -> None:
    tied, apart = (drawn(options(tied=tied)) for tied in (True, False))
    count = [sum(weight.numel() for weight in network.parameters()) for network in (tied, apart)]
    assert count[1] - count[0] == 11 * 16
    assert not any(name.endswith(("cosines", "sines")) for name in tied.state_dict())


def test_untrained_decoder_guesses_evenly() -> None:
    with torch.no_grad():
        logits = drawn(options())(tokens(9))
    assert float(torch.logsumexp(logits, dim=2).mean()) == pytest.approx(np.log(11), abs=0.05)


def test_images_and_long_windows_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="'decoder', which takes a text alone"):
        build.build_model(options(), load_dataset(load_recipe("digits").data))
    with pytest.raises(InvalidInputError, match="takes windows of tokens, not examples of 1 x 8 x 8 values"):
        build_decoder_layers(options(), (1, 8, 8), 11)
    with pytest.raises(InvalidInputError, match=r"model\.context is 9; it must be at least the 10 tokens"):
        build_decoder_layers(options(), (10,), 11)
