"""The steps around a graph, from a file of the publisher or from the files of Hugging Face beside a model.

    prepare: {kind: image, resize: [8, 8], colour: L}      what is left out is taken from the graph or the defaults
    finish: {kind: classification, top: 3}                 of pilotlight.contracts.processing

It knows files and signatures, and checks nothing that the manifest checks itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pilotlight.contracts.manifest import Task, TensorSpec
from pilotlight.contracts.processing import ImagePreprocessing
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.session import Session

ProcessingSteps = dict[str, Any]  # a document of pilotlight.contracts.processing, not yet checked
RESAMPLE_FILTERS = (
    "nearest",
    "lanczos",
    "bilinear",
    "bicubic",
    "box",
    "hamming",
)  # Pillow's numbers, as Hugging Face's
EMBEDDING_OUTPUTS = ("last_hidden_state", "token_embeddings", "sentence_embedding")  # outputs that are embeddings


def read_document(file: Path) -> ProcessingSteps:
    """Read a JSON or YAML document; raise `InvalidInputError` if it cannot be read or is no mapping."""
    try:
        content = msgspec.yaml.decode(file.read_bytes())
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {file}: {exc.strerror}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{file} is neither JSON nor YAML: {exc}.") from exc
    if not isinstance(content, dict):
        raise InvalidInputError(f"{file} must hold a mapping, not {type(content).__name__}.")
    return content


def read_processing_file(file: Path, task: Task | None) -> ProcessingSteps:
    """Read `prepare` and `finish` of a publisher's file; the kind is the task's if it is left out."""
    content = read_document(file)
    unknown = sorted(set(content) - {"prepare", "finish"})
    if unknown:
        raise InvalidInputError(f"{file} has {unknown}; it tells of 'prepare' and 'finish'.")
    wrong = [name for name, steps in content.items() if steps is not None and not isinstance(steps, dict)]
    if wrong:
        raise InvalidInputError(f"{file}: {wrong[0]!r} must be a mapping of steps, not {content[wrong[0]]!r}.")
    if content.get("prepare") is not None and task is not None:
        content["prepare"].setdefault("kind", task)
    return content


def read_hugging_face_steps(folder: Path, task: Task, session: Session, labels: Sequence[str]) -> ProcessingSteps:
    """Read the steps of a task from the files of a Hugging Face model."""
    preprocess: ProcessingSteps | None = {"kind": task}
    if task == "image":
        preprocess = read_image_steps(folder)
    elif task == "text":
        preprocess = read_text_steps(folder)
    elif task == "tensor":
        preprocess = None
    return {"prepare": preprocess, "finish": infer_postprocessing_steps(folder, task, session.outputs, labels)}


def read_image_steps(folder: Path) -> ProcessingSteps:
    """Convert `preprocessor_config.json` of an image processor to steps."""
    file = folder / "preprocessor_config.json"
    if not file.exists():
        raise InvalidInputError(f"No {file.name} in {folder} tells what to do with images; use --processing FILE.")
    config = read_document(file)
    if "crop_pct" in config:
        raise InvalidInputError(f"{file} has 'crop_pct', which only its own code can read; use --processing FILE.")
    steps: ProcessingSteps = {"kind": "image", "background": None}  # its convert("RGB") drops transparency
    if config.get("do_flip_channel_order", False):
        steps["colour"] = "BGR"
    if config.get("do_resize", True):
        steps |= parse_resize(config.get("size", 224))
        steps["filter"] = RESAMPLE_FILTERS[config.get("resample", 2)]
    if config.get("do_center_crop", False):
        steps["crop"] = parse_size(config["crop_size"] if "crop_size" in config else config.get("size", 224))
    steps["scale"] = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    if config.get("do_normalize", True):
        steps |= {"mean": config.get("image_mean", []), "deviation": config.get("image_std", [])}
    return steps


def parse_resize(size: int | Mapping[str, int]) -> ProcessingSteps:
    """Parse a size of Hugging Face: a number or `shortest_edge` for the shorter side, else both sides."""
    if isinstance(size, Mapping) and "shortest_edge" in size and "longest_edge" not in size:
        return {"shortest": size["shortest_edge"]}
    return {"resize": parse_size(size)}


def parse_size(size: int | Mapping[str, int]) -> list[int]:
    """Parse a size as [height, width]."""
    if isinstance(size, int):
        return [size, size]
    if {"height", "width"} <= set(size):
        return [size["height"], size["width"]]
    raise InvalidInputError(f"preprocessor_config.json has the size {dict(size)}; use --processing FILE.")


def read_text_steps(folder: Path) -> ProcessingSteps:
    """Read the maximum length of a text, in tokens, from the first of the files that has it."""
    if not (folder / "tokenizer.json").exists():
        raise InvalidInputError(f"No tokenizer.json in {folder}; a text model needs one beside it.")
    places = (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
        ("config.json", "max_position_embeddings"),
    )
    for name, key in places:
        length = read_document(folder / name).get(key) if (folder / name).exists() else None
        if isinstance(length, int) and length < 1_000_000:  # transformers writes 1e30 where there is no limit
            return {"kind": "text", "max_length": length}
    return {"kind": "text"}


def infer_postprocessing_steps(
    folder: Path, task: Task, outputs: Sequence[TensorSpec], labels: Sequence[str]
) -> ProcessingSteps | None:
    """Infer the finish from the outputs: vectors of a text, or scores by class; None if they are neither."""
    named = [spec.name for spec in outputs]
    vectors = [name for name in EMBEDDING_OUTPUTS if name in named]
    if task == "text" and vectors:
        return {"kind": "embedding", "output": vectors[-1]} | read_pooling(folder)
    if labels or "logits" in named:
        spec = next((spec for spec in outputs if spec.name == "logits"), outputs[0])
        activation_steps = read_activation(folder)
        if spec.shape[-1:] == (1,) and not activation_steps:  # a grade or a rank: the softmax of one score is always 1
            return {"kind": "regression", "output": spec.name}
        return {"kind": "classification", "output": spec.name} | activation_steps
    return None


def read_activation(folder: Path) -> ProcessingSteps:
    """Return the sigmoid if `config.json` allows several labels at once."""
    config = read_document(folder / "config.json") if (folder / "config.json").exists() else {}
    return {"activation": "sigmoid"} if config.get("problem_type") == "multi_label_classification" else {}


def read_pooling(folder: Path) -> ProcessingSteps:
    """Read sentence-transformers' `modules.json` and `1_Pooling/config.json`; by default the mean, of length 1."""
    file = folder / "1_Pooling" / "config.json"
    config = read_document(file) if file.exists() else {}
    modes = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    words = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
    }
    if len(modes) > 1 or not set(modes) <= set(words):
        raise InvalidInputError(f"{file} pools by {modes}; one of {list(words)} is served.")
    return {"pooling": words[modes[0]] if modes else "mean", "normalise": is_normalised(folder)}


def is_normalised(folder: Path) -> bool:
    """Return whether the last module makes vectors of length 1; raise `InvalidInputError` for unknown modules."""
    file = folder / "modules.json"
    if not file.exists():
        return True
    try:
        kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in msgspec.json.decode(file.read_bytes())]
    except (msgspec.DecodeError, KeyError, TypeError) as exc:
        raise InvalidInputError(f"{file} is not a list of modules with their types: {exc!r}.") from exc
    if unknown := sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"}):
        raise InvalidInputError(f"{file} has the modules {unknown}; Transformer, Pooling and Normalize are served.")
    return "Normalize" in kinds


def read_labels(folder: Path) -> tuple[str, ...]:
    """Read the labels in `config.json`, by their indices; empty if it has none."""
    file = folder / "config.json"
    names = read_document(file).get("id2label") if file.exists() else None
    if not isinstance(names, dict):
        return ()
    return tuple(str(names[index]) for index in sorted(names, key=int))


def complete_steps(steps: ProcessingSteps, session: Session) -> ProcessingSteps:
    """Complete the steps from the graph: its first input and output, and an image's shape."""
    preprocess, postprocess = steps.get("prepare"), steps.get("finish")
    if preprocess is not None and preprocess.get("kind") in {"image", "audio", "tabular"}:
        preprocess.setdefault("input", session.inputs[0].name)
    if preprocess is not None and preprocess.get("kind") == "image":
        shape = next((spec.shape for spec in session.inputs if spec.name == preprocess["input"]), ())
        has_size = bool({*ImagePreprocessing.sizings, "crop"} & set(preprocess))
        preprocess = infer_image_steps(shape, has_size=has_size) | preprocess
    if preprocess is not None and preprocess.get("kind") == "audio":
        shape = next((spec.shape for spec in session.inputs if spec.name == preprocess["input"]), ())
        preprocess = infer_audio_steps(shape, preprocess) | preprocess
    if postprocess is not None:
        postprocess.setdefault("output", session.outputs[0].name)
    return {"prepare": preprocess, "finish": postprocess}


def infer_image_steps(shape: Sequence[int | str], *, has_size: bool) -> ProcessingSteps:
    """Infer layout, colour and, unless `has_size`, size of images from the shape of a graph's input."""
    if len(shape) != 4:
        return {}
    last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels, sides = (shape[3], shape[1:3]) if last else (shape[1], shape[2:])
    steps: ProcessingSteps = {"layout": "NHWC" if last else "NCHW", "colour": "L" if channels == 1 else "RGB"}
    if not has_size and all(isinstance(side, int) for side in sides):
        steps["resize"] = list(sides)
    return steps


def infer_audio_steps(shape: Sequence[int | str], steps: ProcessingSteps) -> ProcessingSteps:
    """Infer layout and, unless the steps say otherwise, the length of sound from the shape of a graph's input."""
    if steps.get("spectrogram") is not None or not 1 <= len(shape) <= 3:
        return {}
    layouts = {1: "S", 2: "NS", 3: "NS1" if shape[-1] == 1 else "N1S"}
    size = shape[-2] if layouts[len(shape)] == "NS1" else shape[-1]
    has_length = "length" in steps or "window" in steps
    length = {"length": size} if isinstance(size, int) and not has_length else {}
    return {"layout": layouts[len(shape)]} | length
