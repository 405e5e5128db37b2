"""Folders of each family, against the logits that transformers computes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from tokenizers.processors import TemplateProcessing

from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from pilotlight.errors import InvalidInputError, UnsupportedError
from tests.models.decoders.make import TOKENS
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import CHAT_TEMPLATE, CONFIGS, END, STOP, VOCABULARY, build_tokenizer, write_checkpoint

LOGITS = Path(__file__).parents[3] / "models" / "decoders" / "logits.npz"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_family_is_computed_as_transformers_does(tmp_path: Path, name: str) -> None:
    checkpoint = read_decoder_checkpoint(write_checkpoint(tmp_path, name))
    logits = ReferenceDecoder(checkpoint).compute_logits(TOKENS)[-1]
    with np.load(LOGITS) as expected:
        np.testing.assert_allclose(logits, expected[name], rtol=1e-3, atol=1e-4)


def change(folder: Path, name: str, **changes: Any) -> None:  # noqa: ANN401 - of a JSON document
    """Change a JSON file; None takes a key away."""
    document = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_other_types_become_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    file = write_checkpoint(tmp_path, "qwen2") / "model.safetensors"
    stored = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(stored, file)
    checkpoint = read_decoder_checkpoint(tmp_path)
    for name, tensor in stored.items():
        weight = checkpoint.weights.read(name)
        assert isinstance(weight, np.ndarray)
        assert weight.dtype == np.float32
        np.testing.assert_array_equal(weight, tensor.to(torch.float32).numpy())


def test_weights_may_be_in_several_files(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path, "phi3") / "model.safetensors"
    stored = load_file(file)
    expected = ReferenceDecoder(read_decoder_checkpoint(tmp_path)).compute_logits(TOKENS)
    places = {name: f"model-{index % 2 + 1}-of-2.safetensors" for index, name in enumerate(stored)}
    for part in set(places.values()):
        save_file({name: stored[name] for name, place in places.items() if place == part}, tmp_path / part)
    file.unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    logits = ReferenceDecoder(read_decoder_checkpoint(tmp_path)).compute_logits(TOKENS)
    np.testing.assert_array_equal(logits, expected)
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(InvalidInputError, match=r"names 'model-2-of-2\.safetensors', which is not beside it"):
        read_decoder_checkpoint(tmp_path)


def test_a_head_that_copies_tied_embeddings_is_left_out(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path, "llama") / "model.safetensors"
    stored = load_file(file)
    save_file(stored | {"lm_head.weight": stored["model.embed_tokens.weight"].clone()}, file)
    checkpoint = read_decoder_checkpoint(tmp_path)
    assert checkpoint.config.tied
    assert "lm_head.weight" not in checkpoint.weights
    change(tmp_path, "config.json", tie_word_embeddings=None)  # then a head says that they are not
    assert not read_decoder_checkpoint(tmp_path).config.tied


def test_tokens_that_end_an_answer_are_those_of_all_files(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llama", eos_token_id=5)
    assert read_decoder_checkpoint(tmp_path).end_tokens == (2, 0, 5)
    change(tmp_path, "generation_config.json", eos_token_id=7)
    assert read_decoder_checkpoint(tmp_path).end_tokens == (7, 5, 2)
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        change(tmp_path, name, eos_token_id=None, eos_token=None)
    with pytest.raises(InvalidInputError, match=r"names no token that ends an answer: set eos_token_id"):
        read_decoder_checkpoint(tmp_path)


def test_a_begin_token_is_that_which_the_tokenizer_adds(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llama")
    assert read_decoder_checkpoint(tmp_path).begin_token is None
    tokenizer = build_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single=f"{END} $A", pair=None, special_tokens=[(END, 0)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    checkpoint = read_decoder_checkpoint(tmp_path)
    assert checkpoint.begin_token == 0
    assert checkpoint.special_tokens == {"bos_token": END, "eos_token": STOP}
    change(tmp_path, "tokenizer_config.json", add_bos_token=False)
    assert read_decoder_checkpoint(tmp_path).begin_token is None


def test_chat_templates_are_found_in_both_places(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llama")
    assert read_decoder_checkpoint(tmp_path).chat_template == CHAT_TEMPLATE
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    change(tmp_path, "tokenizer_config.json", chat_template=several)
    assert read_decoder_checkpoint(tmp_path).chat_template == "plain"
    change(tmp_path, "tokenizer_config.json", chat_template=several[:1])
    with pytest.raises(InvalidInputError, match=r"the chat templates 'tool_use', but no 'default'"):
        read_decoder_checkpoint(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("from a file", encoding="utf-8")
    assert read_decoder_checkpoint(tmp_path).chat_template == "from a file"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match=r"chat_template\.jinja is no text in UTF-8"):
        read_decoder_checkpoint(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    change(tmp_path, "tokenizer_config.json", chat_template=None)
    assert read_decoder_checkpoint(tmp_path).chat_template is None


def test_the_licence_is_that_of_the_model_card(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llama")
    assert read_decoder_checkpoint(tmp_path).licence is None
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
    assert read_decoder_checkpoint(tmp_path).licence == "apache-2.0"


def test_added_tokens_without_embeddings_are_left_out(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llama")
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens([f"<image {each}>" for each in range(40)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    own = Tokenizer.from_str(read_decoder_checkpoint(tmp_path).tokenizer_json.decode())
    assert own.get_vocab_size() == VOCABULARY
    assert max(own.encode("<image 39>").ids) < VOCABULARY
    words = {f"word {each}": each for each in range(VOCABULARY + 1)}
    Tokenizer(models.BPE(vocab=words, merges=[])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InvalidInputError, match=rf"the token {VOCABULARY}, but embeddings of {VOCABULARY}"):
        read_decoder_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "error", "sentence"),
    [
        ("llama", {"model_type": "mamba"}, UnsupportedError, r"config\.json is of a 'mamba' model; llama, mistral"),
        ("llama", {"hidden_size": "wide"}, InvalidInputError, r"is no config\.json of a llama model.*hidden_size"),
        ("llama", {"num_attention_heads": 5}, InvalidInputError, r"has 5 heads, 2 of keys.*do not divide"),
        ("llama", {"attention_bias": True}, UnsupportedError, r"has attention_bias"),
        ("llama", {"mlp_bias": True}, UnsupportedError, r"has mlp_bias"),
        ("llama", {"hidden_act": "relu"}, UnsupportedError, r"the activation 'relu'"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, UnsupportedError, r"quantized by gptq"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, UnsupportedError, r"the kind 'dynamic'"),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, InvalidInputError, r"linear without its 'factor'"),
        ("llama", {"rope_scaling": {"factor": "x"}}, InvalidInputError, r"has no valid rotation.*factor"),
        ("llama", {"partial_rotary_factor": 0.01}, InvalidInputError, r"rotates 0 of a head's 16 values"),
        (
            "qwen2",
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 8}},
            UnsupportedError,
            r"beta_fast 8 for YaRN",
        ),
        ("qwen2", {"layer_types": ["linear_attention"] * 3}, UnsupportedError, r"type 'linear_attention'"),
        ("qwen2", {"layer_types": ["full_attention"]}, InvalidInputError, r"3 layers, but the types of 1"),
        ("phi3-longrope", {"partial_rotary_factor": 1.0}, InvalidInputError, r"6 factors of rotation for 8 pairs"),
        ("phi3", {"rope_scaling": {"type": "longrope"}}, InvalidInputError, r"longrope without its 'short_factor'"),
        ("phi3", {"num_key_value_heads": 1}, InvalidInputError, r"qkv_proj\.weight is \[128, 64\]; .* asks for 96"),
        ("gemma3", {"use_bidirectional_attention": True}, UnsupportedError, r"it is an encoder"),
        (
            "llama",
            {"num_hidden_layers": 10**12},
            InvalidInputError,
            r"is no config\.json of a llama model.*hidden_layers",
        ),
        ("llama", {"num_hidden_layers": 4}, InvalidInputError, r"has no weight model\.layers\.3\..* and 6 more"),
        ("llama", {"num_hidden_layers": 2}, InvalidInputError, r"has the weight model\.layers\.2\..* does not have"),
        ("llama", {"intermediate_size": 32}, InvalidInputError, r"mlp\.gate_proj\.weight is \[96, 64\]; .*\[32, 64\]"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    write_checkpoint(tmp_path, name)
    change(tmp_path, "config.json", **changes)
    with pytest.raises(error, match=sentence):
        read_decoder_checkpoint(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llama")
    with pytest.raises(InvalidInputError, match=r"has no weight lm_head\.weight"):
        read_decoder_checkpoint(tmp_path).weights.read("lm_head.weight")
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer.model")
    with pytest.raises(InvalidInputError, match=r"has no tokenizer\.json; make it of tokenizer\.model by"):
        read_decoder_checkpoint(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(InvalidInputError, match=r"has no tokenizer\.json; bring the one of the model"):
        read_decoder_checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"tokenizer\.json has a tokenizer that cannot be read"):
        read_decoder_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InvalidInputError, match=r"model\.safetensors is no whole safetensors file"):
        read_decoder_checkpoint(tmp_path)
    file.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidInputError, match=r"pytorch_model\.bin is a pickle, which is not opened"):
        read_decoder_checkpoint(tmp_path)
