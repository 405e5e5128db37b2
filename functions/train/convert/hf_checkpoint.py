"""A Hugging Face checkpoint folder: config.json and safetensors become our own encoder, and that a graph.

No code of the checkpoint is run, and nothing is unpickled: weights are found by their names. Tokenizer, pooling and
labels stay files, which publishing reads from the folder.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from functions.train.convert.converted_model import Model, agreed
from functions.train.convert.hf_encoder import ACTIVATIONS, Encoder, Shape
from functions.train.convert.pt2_program import feed, translate
from functions.train.data.dataset import Array
from pilotlight.contracts.processing import Text
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.golden_recorder import Feeds

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
STATES, LOGITS = "last_hidden_state", "logits"
KINDS = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "camembert": "roberta",
    "distilbert": "distilbert",
    "electra": "electra",
    "mpnet": "mpnet",
}
PREFIX = re.compile(r"^(bert|roberta|distilbert|electra|mpnet|model|0\.auto_model)\.")
# Our names of a checkpoint's weights: what stands before the last dot, and for layers what follows their number.
LAYER = re.compile(r"^(?:encoder|transformer)\.layer\.(?P<number>\d+)\.(?P<part>.+)\.(?P<kind>weight|bias|gamma|beta)$")
OTHER = re.compile(r"^(?P<part>.+)\.(?P<kind>weight|bias|gamma|beta)$")
PARTS = {
    "attention.self.query": "query", "attention.self.key": "key", "attention.self.value": "value",
    "attention.output.dense": "out", "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "wide", "output.dense": "narrow", "output.LayerNorm": "norm",
    "attention.q_lin": "query", "attention.k_lin": "key", "attention.v_lin": "value", "attention.out_lin": "out",
    "attention.attn.q": "query", "attention.attn.k": "key", "attention.attn.v": "value", "attention.attn.o": "out",
    "attention.LayerNorm": "attention_norm", "sa_layer_norm": "attention_norm",
    "ffn.lin1": "wide", "ffn.lin2": "narrow", "output_layer_norm": "norm",
}  # fmt: skip
APART = {  # a head of its own, which does not share BERT's pooler
    "classifier.dense": "head.dense", "classifier.out_proj": "head.classifier",
}  # fmt: skip
HEADS = {
    "bert": {"pooler.dense": "head.dense", "classifier": "head.classifier"},
    "roberta": APART,
    "electra": APART | {"embeddings_project": "widen"},
    "mpnet": APART | {"encoder.relative_attention_bias": "distances.bias"},
    "distilbert": {"pre_classifier": "head.dense", "classifier": "head.classifier"},
}
OTHERS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction")
OLD = {"gamma": "weight", "beta": "bias"}  # of layer normalisation in checkpoints of TensorFlow's times


def read(folder: Path, target: Path, task: str | None) -> Model:
    """The checkpoint as a graph; with a classifier's head if its config names one, else with the tokens' states."""
    config = document(folder / "config.json")
    shape = shaped(folder, config)
    encoder = loaded(folder, shape)
    names = INPUTS if shape.segments > 1 else INPUTS[:2]
    output = LOGITS if shape.classes else STATES
    example = requests(shape, len(names))
    free = {0: "batch", 1: "tokens"}
    translate(encoder, example[0], names, [output], tuple(free for _ in names), target)
    feeds = tuple(feed(names, inputs) for inputs in example)
    parity = agreed(target, lambda given: reference(encoder, output, given), feeds)
    kind: Literal["tensor", "text"] = "tensor" if task == "tensor" else "text"
    name = str(config.get("_name_or_path") or folder.resolve().name)
    return Model(
        graph=target,
        what=f"The Hugging Face checkpoint `{name}` ({config['model_type']}, {shape.layers} layers of {shape.width})",
        feeds=feeds,
        parity=parity,
        task=kind,
        prepare=Text() if kind == "text" else None,
    )


def reference(encoder: nn.Module, output: str, given: Feeds) -> Mapping[str, Array]:
    """The encoder's own answer to a request."""
    with torch.no_grad():
        return {output: encoder(*map(torch.from_numpy, given.values())).numpy()}


def document(file: Path) -> dict[str, Any]:
    """A JSON object; `InvalidInputError` when there is none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {file}: {exc.strerror}.") from exc
    except msgspec.MsgspecError as exc:
        raise InvalidInputError(f"{file} is not a JSON object: {exc}.") from exc


def shaped(folder: Path, config: Mapping[str, Any]) -> Shape:
    """The encoder that config.json describes; `InvalidInputError` for one that is built otherwise."""
    kind, file = config.get("model_type"), folder / "config.json"
    if kind not in KINDS:
        raise InvalidInputError(
            f"{file} is of a {kind!r} model; {', '.join(KINDS)} are read. Export others to ONNX, and publish that."
        )
    heads = [str(one) for one in config.get("architectures") or [] if str(one).endswith(OTHERS)]
    if heads:
        raise InvalidInputError(
            f"{file} is of a {heads[0]}, whose head is not read: embeddings and sequence classification are. Export it "
            "to ONNX, and publish that."
        )
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise InvalidInputError(f"{file} has relative positions or is a decoder; export it to ONNX, and publish that.")
    small = kind == "distilbert"
    keys = (
        ("vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings")
        if small
        else ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
              "max_position_embeddings")
    )  # fmt: skip
    activation = config.get("activation" if small else "hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise InvalidInputError(f"{file} has the activation {activation!r}; {', '.join(ACTIVATIONS)} are known.")
    if missing := [key for key in keys if not isinstance(config.get(key), int) or config[key] < 1]:
        raise InvalidInputError(f"{file} has no whole number {missing[0]!r}.")
    words, width, layers, heads, inner, places = (config[key] for key in keys)
    if width % heads:
        raise InvalidInputError(f"{file} has {heads} heads, of which {width} is no multiple.")
    return Shape(
        kind=KINDS[kind],  # type: ignore[arg-type]  # its values are the words of the literal
        words=words,
        width=width,
        layers=layers,
        heads=heads,
        inner=inner,
        places=places,
        segments=0 if small or kind == "mpnet" else config.get("type_vocab_size", 2),
        epsilon=1e-12 if small else config.get("layer_norm_eps", 1e-12),
        activation=activation,
        padding=config.get("pad_token_id") or (1 if KINDS[kind] in {"roberta", "mpnet"} else 0),
        classes=classes(config),
        embedding=config.get("embedding_size", 0) if kind == "electra" else 0,
        distances=config.get("relative_attention_num_buckets", 32) if kind == "mpnet" else 0,
    )


def classes(config: Mapping[str, Any]) -> int:
    """How many classes a classifier's head gives; 0 where the architecture has none."""
    architecture = next(iter(config.get("architectures") or []), "")
    if not architecture.endswith("ForSequenceClassification"):
        return 0
    return len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))


def loaded(folder: Path, shape: Shape) -> Encoder:
    """The encoder with the checkpoint's weights, each by its name; `InvalidInputError` names a wrong one."""
    with torch.device("meta"):
        encoder = Encoder(shape)
    wanted, found = dict(encoder.state_dict()), weights(folder, shape)
    for name, empty in wanted.items():
        if name not in found:
            raise InvalidInputError(
                f"{folder} has no weights for {name} of a {shape.kind}; it has {len(found)} known ones."
            )
        if found[name].shape != empty.shape:
            shapes = f"{list(found[name].shape)}, config.json asks for {list(empty.shape)}"
            raise InvalidInputError(f"{folder}: the weights of {name} are {shapes}.")
    encoder.load_state_dict({name: found[name] for name in wanted}, assign=True)
    return encoder.eval().requires_grad_(False)


def weights(folder: Path, shape: Shape) -> dict[str, Tensor]:
    """All weights that an encoder has a place for, in fp32, by our names."""
    found = {}
    for file in files(folder):
        try:
            with safe_open(file, framework="pt") as held:
                for name in held.keys():  # noqa: SIM118 - it is no mapping
                    place = renamed(name, shape)
                    if place is not None:
                        found[place] = held.get_tensor(name).to(torch.float32)
        except (SafetensorError, OSError) as exc:
            raise InvalidInputError(f"{file} is not a safetensors file: {exc}.") from exc
    return found


def files(folder: Path) -> list[Path]:
    """The safetensors files, of which an index may tell; pickled weights are refused."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        told = document(index).get("weight_map")
        if not isinstance(told, dict) or not all(isinstance(name, str) for name in told.values()):
            raise InvalidInputError(f"{index} has no 'weight_map' that names a file for each tensor.")
        names = sorted(set(told.values()))
        if outside := [name for name in names if Path(name).name != name]:
            raise InvalidInputError(f"{index} names weights outside its own folder: {outside[0]!r}.")
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise InvalidInputError(f"{index} names {missing[0]!r}, which is not beside it; bring that file too.")
        return [folder / name for name in names]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        also = f" {pickled[0]} is a pickle, which is not opened; save it as safetensors." if pickled else ""
        raise InvalidInputError(f"{folder} holds no *.safetensors.{also}")
    return found


def renamed(name: str, shape: Shape) -> str | None:
    """Our name of a checkpoint's tensor; None for what serving does not need."""
    bare = PREFIX.sub("", name)
    layer = LAYER.match(bare)
    if layer is not None:
        part = PARTS.get(layer["part"])
        return f"layers.{layer['number']}.{part}.{OLD.get(layer['kind'], layer['kind'])}" if part else None
    other = OTHER.match(bare)
    if other is None:
        return None
    part, kind = other["part"], OLD.get(other["kind"], other["kind"])
    if part == "embeddings.LayerNorm":
        return f"embeddings.norm.{kind}"
    if part in HEADS[shape.kind]:
        return f"{HEADS[shape.kind][part]}.{kind}"
    return f"{part}.{kind}" if part.startswith("embeddings.") else None


def requests(shape: Shape, inputs: int) -> tuple[tuple[Tensor, ...], ...]:
    """Random token ids, (2, 9) and (1, 16) and (3, 5), some of the first padded at the end."""
    random, made = torch.Generator().manual_seed(0), []
    for batch, tokens in ((2, 9), (1, 16), (3, 5)):
        ids = torch.randint(min(5, shape.words - 1), shape.words, (batch, tokens), generator=random)
        mask = torch.ones_like(ids)
        if batch > 1:
            mask[0, -2:] = 0
        ids = torch.where(mask == 1, ids, shape.padding)
        made.append((ids, mask, torch.zeros_like(ids))[:inputs])
    return tuple(made)
