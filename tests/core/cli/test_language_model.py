"""`pilotlight publish` of language models: what is one, and which options it takes."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from pilotlight.cli import language_model, model_conversion
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import ManifestDraft, TensorSpec, Variant
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store

Run = Callable[..., tuple[int, str, str]]
GGUF = b"GGUF\x03\x00\x00\x00"


def write_folder(folder: Path, files: list[str], **config: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("files", "config", "expected"),
    [
        (["model.safetensors"], {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, True),
        (["model.safetensors", "onnx/model.onnx"], {"architectures": ["Qwen3ForCausalLM"]}, True),
        (["model.onnx"], {"architectures": ["Qwen3ForCausalLM"]}, False),
        ([], {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}, True),
        (["model.safetensors"], {"model_type": "bert", "architectures": ["BertForMaskedLM"]}, False),
        (["model.safetensors"], {"model_type": "roberta", "architectures": ["RobertaForCausalLM"]}, False),
        (["model.safetensors"], {"model_type": "bert", "architectures": None}, False),
        (["model.safetensors"], {"architectures": 3}, False),
    ],
)
def test_a_decoders_folder_is_known(
    tmp_path: Path, files: list[str], config: dict[str, object], expected: bool
) -> None:
    assert language_model.is_language_model(write_folder(tmp_path / "m", files, **config)) is expected


def test_a_gguf_file_is_known_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(GGUF)
    (tmp_path / "m.gguf").write_bytes(b"GGUX")
    assert language_model.is_language_model(tmp_path / "weights")
    assert not language_model.is_language_model(tmp_path / "m.gguf")
    assert not language_model.is_language_model(tmp_path / "missing")
    assert not language_model.is_language_model(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "image"], "A language model generates text; --task image is for other models."),
        (["--labels", "x.txt"], "--labels is not for language models, which take --quantize, --evaluation, --context."),
        (["--mask", "age=drop"], "--mask is not for language models"),
    ],
)
def test_options_of_other_models_are_refused(run: Run, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "m.gguf").write_bytes(GGUF)
    code, _, err = run("publish", str(tmp_path / "m.gguf"), "--name", "chat", *words)
    assert (code, said in err) == (2, True), err


def test_a_context_is_for_language_models(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08")
    code, _, err = run("publish", str(tmp_path / "m.onnx"), "--name", "m", "--context", "8")
    assert (code, "--context is for language models" in err) == (2, True), err


def test_without_what_reads_gguf_it_is_told_how_to_install_that(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make demo` has installed all that trains, which is not all that converts."""
    monkeypatch.setattr("pilotlight.cli.model_conversion.find_spec", lambda name: None if name == "gguf" else find_spec)
    monkeypatch.setattr(model_conversion, "run_converter", lambda module, arguments: 1)
    (tmp_path / "m.gguf").write_bytes(GGUF)
    code, _, err = run("publish", str(tmp_path / "m.gguf"), "--name", "chat")
    assert (code, "run pip install -e '.[train,convert]'" in " ".join(err.split())) == (1, True), err


def test_what_the_converter_writes_is_published(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[tuple[str, list[str]]]()

    def convert(module: str, arguments: list[str]) -> int:
        calls.append((module, arguments))
        folder = Path(arguments[-1])
        for name in ("model.int8.onnx", "model.int8.onnx.data", "tokenizer.json"):
            (folder / name).write_bytes(b"x")
        draft = ManifestDraft(
            name="chat", task="generation", inputs=(TensorSpec("text_input", "BYTES", (1,)),),
            outputs=(TensorSpec("text_output", "BYTES", (1,)),), serve="int8", tokenizer="tokenizer.json",
            variants={"int8": Variant("model.int8.onnx", weights=("model.int8.onnx.data",))},
            decoder=DecoderSpec(
                family="llama", context_length=8, vocabulary_size=9, layers=1, kv_heads=1, head_size=16, end_tokens=(1,)
            ),
        )  # fmt: skip
        (folder / "draft.json").write_bytes(encode_document(draft))
        return 0

    monkeypatch.setattr(model_conversion, "run_converter", convert)
    (tmp_path / "m.gguf").write_bytes(GGUF)
    store = str(tmp_path / "store")
    words = ["--name", "chat", "--quantize", "int8", "--context", "8", "--store", store, "--json"]
    code, out, err = run("publish", str(tmp_path / "m.gguf"), *words)
    assert (code, json.loads(out)["reference"]) == (0, "chat:1"), err
    assert calls[0][0] == "functions.train.language_models"
    assert calls[0][1][1:7] == ["--name", "chat", "--quantize", "int8", "--context", "8"]
    manifest = Registry(open_store(store)).load_manifest("chat", 1)
    assert (manifest.task, manifest.decoder is not None, manifest.by != "") == ("generation", True, True)
    assert {file.path for file in manifest.files} == {"model.int8.onnx", "model.int8.onnx.data", "tokenizer.json"}
