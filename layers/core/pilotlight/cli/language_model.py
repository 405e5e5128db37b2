"""Publish a language model: a Hugging Face folder of a decoder, or a GGUF file.

`python -m functions.train.language_models` writes its graph and measures it, in a process of its own.
"""

import getpass
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import typer

from pilotlight.cli import model_conversion
from pilotlight.cli.console import print_json
from pilotlight.cli.file_format import CHECKPOINT_CONFIG
from pilotlight.cli.model_conversion import Converter
from pilotlight.cli.publish_target import Publisher
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import InvalidInputError

MODULE = "functions.train.language_models"
FOLDER_CONVERTER = Converter(MODULE, ("torch", "onnx", "safetensors", "rich"))
FILE_CONVERTER = Converter(MODULE, ("onnx", "rich", "gguf"), "train,convert")
GGUF_MAGIC = b"GGUF"
DECODER_ARCHITECTURE = "ForCausalLM"  # how the class in config.json ends
CLASS_FAMILIES = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}  # of encoders, which have such classes too
DECODER_FAMILIES = {"llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text"}
OPTIONS = ("--name", "--quantize", "--evaluation", "--context")  # that a language model takes
TASKS = (None, "generation")


class DecoderMark(msgspec.Struct):
    """What in a config.json tells that it is a decoder's."""

    model_type: str = ""
    architectures: tuple[str, ...] | None = None


def is_language_model(path: Path) -> bool:
    """Return whether PATH is a GGUF file, or a folder with the weights of a decoder."""
    if path.is_dir():
        return is_decoder_folder(path)
    try:
        with path.open("rb") as file:
            return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
    except OSError:
        return False  # what cannot be read is told where it is read


def is_decoder_folder(folder: Path) -> bool:
    """Return whether config.json is a decoder's, and weights lie beside it, or no graph does."""
    try:
        mark = msgspec.json.decode((folder / CHECKPOINT_CONFIG).read_bytes(), type=DecoderMark)
    except (OSError, msgspec.MsgspecError):
        return False
    classes = mark.architectures or ()
    is_decoder = any(name.endswith(DECODER_ARCHITECTURE) for name in classes) or mark.model_type in DECODER_FAMILIES
    has_weights = any(folder.glob("*.safetensors"))
    has_graph = any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx"))
    return is_decoder and mark.model_type not in CLASS_FAMILIES and (has_weights or not has_graph)


def publish_language_model(
    path: Path, options: Mapping[str, object], publish_version: Publisher, store: str, *, json: bool
) -> None:
    """Make the model the next version of its name, and print its reference."""
    check_options(options)
    with TemporaryDirectory(prefix="pilotlight-publish-") as work_folder:
        taken = {name: options[name] for name in OPTIONS if name in options}
        converter = FOLDER_CONVERTER if path.is_dir() else FILE_CONVERTER
        draft, files = model_conversion.convert_model(path, taken, Path(work_folder), converter)
        manifest = publish_version(msgspec.structs.replace(draft, by=getpass.getuser()), files)
    tell_reference(manifest, store, json=json)


def check_options(options: Mapping[str, object]) -> None:
    """Raise `InvalidInputError` for an option that means nothing for a language model."""
    if (task := options.get("--task")) not in TASKS:
        raise InvalidInputError(f"A language model generates text; --task {task} is for other models.")
    for name, value in options.items():
        if value and name not in (*OPTIONS, "--task"):
            raise InvalidInputError(f"{name} is not for language models, which take {', '.join(OPTIONS[1:])}.")


def tell_reference(manifest: Manifest, store: str, *, json: bool) -> None:
    """Print the reference on standard output."""
    reference = f"{manifest.name}:{manifest.version}"
    if not json:
        typer.echo(reference)
        return
    golden = "recorded" if manifest.golden else "not checked"
    print_json({"reference": reference, "store": store, "golden": golden, "assumed": []})
