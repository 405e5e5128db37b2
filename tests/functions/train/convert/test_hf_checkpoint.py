"""Hugging Face checkpoints, small and drawn at random, against torch's own Transformer and over HTTP."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.http as triton
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from functions.train.convert import hf_checkpoint
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    EmbeddingPostprocessing,
    RegressionPostprocessing,
    TextPreprocessing,
)
from tests import fakes
from tests.functions.train.convert.conftest import Publish, Refused

WIDTH, HEADS, INNER, WORDS, LAYERS = 16, 4, 32, 30522, 2
CONFIG = {
    "model_type": "bert", "architectures": ["BertModel"], "vocab_size": WORDS, "hidden_size": WIDTH, "pad_token_id": 0,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER, "type_vocab_size": 2,
    "max_position_embeddings": 32, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip
DISTIL = {
    "model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"], "vocab_size": WORDS,
    "dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER, "max_position_embeddings": 32,
    "activation": "gelu", "id2label": {"0": "bad", "1": "good", "2": "odd"},
}  # fmt: skip
MODULES = [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Pooling"}]
TEXTS = ["A cat.", "The pilot light burns day and night."]
BERT = {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "out": "attention.output.dense", "attention_norm": "attention.output.LayerNorm", "wide": "intermediate.dense",
        "narrow": "output.dense", "norm": "output.LayerNorm"}  # fmt: skip
DISTILBERT = {"query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin",
              "out": "attention.out_lin", "attention_norm": "sa_layer_norm", "wide": "ffn.lin1", "narrow": "ffn.lin2",
              "norm": "output_layer_norm"}  # fmt: skip


def linear(name: str, given: int, answers: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.randn(answers, given) / given**0.5, f"{name}.bias": torch.randn(answers) / 10}


def norm(name: str) -> dict[str, Tensor]:
    return {f"{name}.weight": 1 + torch.randn(WIDTH) / 10, f"{name}.bias": torch.randn(WIDTH) / 10}


def weights(prefix: str, layers: str, parts: dict[str, str], segments: int, places: int = 32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    e = f"{prefix}embeddings"
    found = {f"{e}.word_embeddings.weight": torch.randn(WORDS, WIDTH)}
    found |= {f"{e}.position_embeddings.weight": torch.randn(places, WIDTH)} | norm(f"{e}.LayerNorm")
    if segments:
        found[f"{e}.token_type_embeddings.weight"] = torch.randn(segments, WIDTH)
    for number in range(LAYERS):
        for part, name in parts.items():
            full = f"{prefix}{layers}.{number}.{name}"
            sizes = {"wide": (WIDTH, INNER), "narrow": (INNER, WIDTH)}.get(part, (WIDTH, WIDTH))
            found |= norm(full) if "norm" in part else linear(full, *sizes)
    return found


def folder(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    path.mkdir(exist_ok=True)
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_bytes((fakes.MODELS / "minilm/tokenizer.json").read_bytes())
    return path


def states(tensors: dict[str, Tensor], prefix: str, layers: str, parts: dict[str, str], found: Tensor) -> Tensor:
    """Torch's own encoder layers with the same weights, over embedded tokens (1, tokens, width)."""
    for number in range(LAYERS):
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, 0.0, "gelu", 1e-12, batch_first=True).eval()
        one = {kind: {part: tensors[f"{prefix}{layers}.{number}.{name}.{kind}"] for part, name in parts.items()}
               for kind in ("weight", "bias")}  # fmt: skip
        own = {"linear1": "wide", "linear2": "narrow", "norm1": "attention_norm", "norm2": "norm"}
        state = {f"{ours}.{kind}": one[kind][theirs] for ours, theirs in own.items() for kind in one}
        state |= {f"self_attn.out_proj.{kind}": one[kind]["out"] for kind in one}
        state |= {
            f"self_attn.in_proj_{kind}": torch.cat([one[kind][p] for p in ("query", "key", "value")]) for kind in one
        }
        layer.load_state_dict(state)
        with torch.no_grad():
            found = layer(found)
    return found


def embedded(tensors: dict[str, Tensor], prefix: str, ids: list[int], first: int = 0) -> Tensor:
    e = f"{prefix}embeddings"
    found = (
        tensors[f"{e}.word_embeddings.weight"][ids]
        + tensors[f"{e}.position_embeddings.weight"][first : first + len(ids)]
    )
    if f"{e}.token_type_embeddings.weight" in tensors:
        found = found + tensors[f"{e}.token_type_embeddings.weight"][0]
    affine = tensors[f"{e}.LayerNorm.weight"], tensors[f"{e}.LayerNorm.bias"]
    return nn.functional.layer_norm(found, (WIDTH,), *affine, 1e-12)[None]


def tokens(text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(fakes.MODELS / "minilm/tokenizer.json"))
    tokenizer.no_padding()
    return list(tokenizer.encode(text).ids)


def ask(client: triton.InferenceServerClient, manifest: Manifest, output: str) -> Any:  # noqa: ANN401 - tritonclient is not typed
    given = triton.InferInput("text", [len(TEXTS)], "BYTES")
    given.set_data_from_numpy(np.array(TEXTS, object))
    asked = [triton.InferRequestedOutput(output)]
    return client.infer(manifest.name, [given], outputs=asked).as_numpy(output)


def test_a_sentence_transformer_embeds_as_torch_does(
    publish: Publish, client: triton.InferenceServerClient, tmp_path: Path
) -> None:
    tensors = weights("bert.", "encoder.layer", BERT, segments=2)
    path = folder(tmp_path / "m", CONFIG, tensors)
    (path / "modules.json").write_text(json.dumps(MODULES))
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    manifest = publish(path, name="sentences")
    assert (manifest.preprocess, manifest.serve) == (TextPreprocessing(max_length=12), "fp32")
    assert manifest.postprocess == EmbeddingPostprocessing(output="last_hidden_state", normalise=False)
    assert manifest.parity is not None
    assert {"golden.json", "report.json", "model-card.md"} <= {file.path for file in manifest.files}
    expected = [
        states(tensors, "bert.", "encoder.layer", BERT, embedded(tensors, "bert.", tokens(text))) for text in TEXTS
    ]
    answer = ask(client, manifest, "embedding")
    np.testing.assert_allclose(answer, [one[0].mean(dim=0).numpy() for one in expected], atol=1e-5)


def test_a_classifier_of_distilberts_shape_gives_its_labels(
    publish: Publish, client: triton.InferenceServerClient, tmp_path: Path
) -> None:
    tensors = weights("distilbert.", "transformer.layer", DISTILBERT, segments=0)
    tensors |= linear("pre_classifier", WIDTH, WIDTH) | linear("classifier", WIDTH, 3)
    manifest = publish(folder(tmp_path / "m", DISTIL, tensors), "--quantize", "int8", name="moods")
    assert manifest.labels == ("bad", "good", "odd")
    assert manifest.postprocess == ClassificationPostprocessing(output="logits")
    sizes = {key: manifest.get_file(variant.graph).bytes for key, variant in manifest.variants.items()}
    assert sizes["int8"] < 0.35 * sizes["fp32"]
    expected = []
    for text in TEXTS:
        found = embedded(tensors, "distilbert.", tokens(text))
        first = states(tensors, "distilbert.", "transformer.layer", DISTILBERT, found)[0, 0]
        hidden = torch.relu(tensors["pre_classifier.weight"] @ first + tensors["pre_classifier.bias"])
        logits = tensors["classifier.weight"] @ hidden + tensors["classifier.bias"]
        expected.append(torch.softmax(logits, dim=0).numpy())
    np.testing.assert_allclose(ask(client, manifest, "probabilities"), expected, atol=0.05)


def test_a_grade_is_a_number_and_no_class_of_one(
    publish: Publish, client: triton.InferenceServerClient, tmp_path: Path
) -> None:
    """Cross-encoders and regressors have one label; the softmax of one score is 1, whatever it is."""
    tensors = weights("distilbert.", "transformer.layer", DISTILBERT, segments=0)
    tensors |= linear("pre_classifier", WIDTH, WIDTH) | linear("classifier", WIDTH, 1)
    manifest = publish(folder(tmp_path / "m", DISTIL | {"id2label": {"0": "LABEL_0"}}, tensors), name="grades")
    assert manifest.postprocess == RegressionPostprocessing(output="logits")
    expected = []
    for text in TEXTS:
        found = embedded(tensors, "distilbert.", tokens(text))
        first = states(tensors, "distilbert.", "transformer.layer", DISTILBERT, found)[0, 0]
        hidden = torch.relu(tensors["pre_classifier.weight"] @ first + tensors["pre_classifier.bias"])
        expected.append((tensors["classifier.weight"] @ hidden + tensors["classifier.bias"]).item())
    np.testing.assert_allclose(ask(client, manifest, "prediction"), expected, atol=1e-4)


@pytest.mark.parametrize("padding", [0, 1])
def test_robertas_places_count_from_behind_the_padding(tmp_path: Path, padding: int) -> None:
    config = CONFIG | {"model_type": "roberta", "type_vocab_size": 1, "pad_token_id": padding}
    tensors = weights("roberta.", "encoder.layer", BERT, segments=1)
    path = folder(tmp_path / "m", config, tensors)
    shape = hf_checkpoint.parse_encoder_config(path, config)
    ids = [5, 500, 600, 2]
    batch = torch.tensor([ids, [5, 2, padding, padding]])
    with torch.no_grad():
        found = hf_checkpoint.load_encoder(path, shape)(batch, (batch != padding).to(torch.int64))
    for row, real in ((0, ids), (1, [5, 2])):
        places = embedded(tensors, "roberta.", real, first=padding + 1)
        expected = states(tensors, "roberta.", "encoder.layer", BERT, places)
        torch.testing.assert_close(found[row, : len(real)], expected[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("bert", None, 0),
        ("roberta", None, 1),
        ("roberta", 0, 0),
        ("camembert", 3, 3),
        ("mpnet", 0, 1),
        ("mpnet", None, 1),
    ],
)
def test_the_padding_is_the_configs_or_the_usual_one(kind: str, given: int | None, expected: int) -> None:
    assert hf_checkpoint.read_padding_id({"model_type": kind, "pad_token_id": given}) == expected
    if given is None:
        assert hf_checkpoint.read_padding_id({"model_type": kind}) == expected


def test_an_encoder_of_few_places_is_converted(tmp_path: Path) -> None:
    config = CONFIG | {"max_position_embeddings": 8}
    tensors = weights("bert.", "encoder.layer", BERT, segments=2)
    key = "bert.embeddings.position_embeddings.weight"
    tensors[key] = tensors[key][:8]
    found = hf_checkpoint.convert_checkpoint(folder(tmp_path / "m", config, tensors), tmp_path / "m.onnx", None)
    assert [feed["input_ids"].shape for feed in found.feeds] == [(2, 8), (1, 8), (3, 5)]


@pytest.mark.parametrize("name", ["mpnet", "mpnet-classifier", "electra-classifier"])
def test_encoders_answer_as_transformers_did(name: str) -> None:
    """Checkpoints of random weights, with what transformers 4.57.1 answered: 200 tokens reach the farthest bucket."""
    path = fakes.MODELS / "encoders" / name
    encoder = hf_checkpoint.load_encoder(
        path, hf_checkpoint.parse_encoder_config(path, hf_checkpoint.read_json_object(path / "config.json"))
    )
    recorded = np.load(path / "expected.npz")
    mask = torch.from_numpy(recorded["mask"])
    answer, expected = encoder(torch.from_numpy(recorded["ids"]), mask).numpy(), recorded["answer"]
    if answer.ndim == 3:  # states of padding mean nothing
        answer, expected = answer[mask.bool()], expected[mask.bool()]
    np.testing.assert_allclose(answer, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mpnet", "electra-classifier"])
def test_other_encoders_become_graphs(publish: Publish, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copytree(fakes.MODELS / "encoders" / name, path)
    manifest = publish(path, "--task", "tensor", name=name)
    assert manifest.parity is not None
    assert manifest.inputs[0].shape == ("batch", "tokens")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": ["bert"]}, "is of a ['bert'] model; bert, roberta"),
        ({"architectures": [None]}, "is no config.json of an encoder: Expected `str`, got `null`"),
        ({"id2label": 3, "architectures": ["BertForSequenceClassification"]}, "got `int` - at `$.id2label`; save the"),
        ({"layer_norm_eps": "1e-5"}, "Expected `float`, got `str` - at `$.layer_norm_eps`"),
        ({"type_vocab_size": None}, "Expected `int`, got `null` - at `$.type_vocab_size`"),
        ({"model_type": "mpnet", "relative_attention_num_buckets": 1}, "Expected `int` >= 4"),
        ({"pad_token_id": 10**9}, "has the padding 1000000000 among"),
        ({"model_type": "roberta", "max_position_embeddings": 3}, "and 3 positions; save the checkpoint again."),
        ({"model_type": "t5"}, "is of a 't5' model; bert, roberta"),
        ({"hidden_act": "mish"}, "has the activation 'mish'"),
        ({"num_attention_heads": 3}, "has 3 heads, of which 16 is no multiple"),
        ({"hidden_size": "wide"}, "has no whole number 'hidden_size'"),
        ({"position_embedding_type": "relative_key"}, "has relative positions"),
        ({"intermediate_size": 64}, "the weights of layers.0.wide.weight are [32, 16], config.json asks for [64, 16]"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a"}}, "has no weights for head.dense"),
        (
            {"architectures": ["BertForTokenClassification"]},
            "is of a BertForTokenClassification, whose head is not read",
        ),
    ],
)
def test_other_encoders_are_refused(refused: Refused, tmp_path: Path, config: dict[str, Any], said: str) -> None:
    path = folder(tmp_path / "m", CONFIG | config, weights("bert.", "encoder.layer", BERT, segments=2))
    assert said in refused(path)


def test_pickled_weights_are_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    assert "pytorch_model.bin is a pickle, which is not opened; save it as safetensors." in refused(tmp_path)


def test_weights_outside_the_folder_are_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    assert "names weights outside its own folder: '../../secret.safetensors'" in refused(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (
            '{"weight_map": {"a": "model-00002-of-00002.safetensors"}}',
            "names 'model-00002-of-00002.safetensors', which is",
        ),
        ('{"weight_map": ["a"]}', "has no 'weight_map' that names a file for each tensor."),
        ("{}", "has no 'weight_map' that names a file for each tensor."),
    ],
)
def test_an_index_without_its_files_is_refused(refused: Refused, tmp_path: Path, index: str, said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert said in refused(tmp_path)


def test_right_answers_in_a_table_judge_a_classifier_of_texts(publish: Publish, tmp_path: Path) -> None:
    tensors = weights("distilbert.", "transformer.layer", DISTILBERT, segments=0)
    tensors |= linear("pre_classifier", WIDTH, WIDTH) | linear("classifier", WIDTH, 3)
    model = folder(tmp_path / "m", DISTIL, tensors)
    rows = [{"text": text, "mood": ("bad", "good", "odd")[n % 3]} for n, text in enumerate(TEXTS * 3)]
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, rows)))
    manifest = publish(model, "--evaluation", tmp_path / "e.jsonl", name="judged-moods")
    assert manifest.metric == "accuracy"
    assert manifest.evaluation is not None
    assert manifest.evaluation.examples == len(rows)
    assert manifest.variants["fp32"].metrics["accuracy"] <= 1
