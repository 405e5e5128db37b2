"""Convert a Hugging Face checkpoint folder, config.json and safetensors, to our own encoder and that to a graph.

No code of the checkpoint is run, and nothing is unpickled: weights are found by their names. Tokenizer, pooling and
labels remain files, which publishing reads from the folder.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import Meta, Struct
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from functions.train.convert.converted_model import ConvertedModel, measure_parity
from functions.train.convert.torch_module import build_feed, write_onnx
from functions.train.convert.transformer_encoder import ACTIVATIONS, EncoderConfig, TransformerEncoder
from functions.train.data import Array
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.golden_recorder import Feeds

MIN_PLACES = 4  # tokens that a text may have: any encoder takes more
INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
STATES_NAME, LOGITS_NAME = "last_hidden_state", "logits"
ENCODER_KINDS = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "camembert": "roberta",
    "distilbert": "distilbert",
    "electra": "electra",
    "mpnet": "mpnet",
}
NAME_PREFIX = re.compile(r"^(bert|roberta|distilbert|electra|mpnet|model|0\.auto_model)\.")
# Our names of a checkpoint's weights: the part before the last dot, and for layers the part after their number.
LAYER_NAME = re.compile(
    r"^(?:encoder|transformer)\.layer\.(?P<number>\d+)\.(?P<part>.+)\.(?P<kind>weight|bias|gamma|beta)$"
)
OTHER_NAME = re.compile(r"^(?P<part>.+)\.(?P<kind>weight|bias|gamma|beta)$")
LAYER_PARTS = {
    "attention.self.query": "query", "attention.self.key": "key", "attention.self.value": "value",
    "attention.output.dense": "out", "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "wide", "output.dense": "narrow", "output.LayerNorm": "norm",
    "attention.q_lin": "query", "attention.k_lin": "key", "attention.v_lin": "value", "attention.out_lin": "out",
    "attention.attn.q": "query", "attention.attn.k": "key", "attention.attn.v": "value", "attention.attn.o": "out",
    "attention.LayerNorm": "attention_norm", "sa_layer_norm": "attention_norm",
    "ffn.lin1": "wide", "ffn.lin2": "narrow", "output_layer_norm": "norm",
}  # fmt: skip
SEPARATE_HEAD = {  # a head of its own, which does not share BERT's pooler
    "classifier.dense": "head.dense", "classifier.out_proj": "head.classifier",
}  # fmt: skip
HEAD_PARTS = {
    "bert": {"pooler.dense": "head.dense", "classifier": "head.classifier"},
    "roberta": SEPARATE_HEAD,
    "electra": SEPARATE_HEAD | {"embeddings_project": "widen"},
    "mpnet": SEPARATE_HEAD | {"encoder.relative_attention_bias": "distances.bias"},
    "distilbert": {"pre_classifier": "head.dense", "classifier": "head.classifier"},
}
UNSUPPORTED_HEADS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction")
LEGACY_KINDS = {"gamma": "weight", "beta": "bias"}  # of layer normalisation in checkpoints from TensorFlow


class CheckpointSettings(Struct):
    """What config.json may say beside the sizes that it must, for its types to be checked; other keys are ignored."""

    model_type: str
    architectures: list[str] | None = None
    activation: str = ""
    hidden_act: str = ""
    type_vocab_size: Annotated[int, Meta(ge=0)] = 0
    layer_norm_eps: Annotated[float, Meta(gt=0)] = 1e-12
    pad_token_id: Annotated[int, Meta(ge=0)] | None = None
    id2label: dict[str, Any] | None = None
    num_labels: Annotated[int, Meta(ge=1)] = 2
    embedding_size: Annotated[int, Meta(ge=0)] = 0
    relative_attention_num_buckets: Annotated[int, Meta(ge=4)] = 32  # near and far distances on both sides


def convert_checkpoint(folder: Path, target: Path, task: str | None) -> ConvertedModel:
    """Convert the checkpoint to a graph: with a classifier's head if its config has one, else with token states."""
    config = read_json_object(folder / "config.json")
    encoder_config = parse_encoder_config(folder, config)
    encoder = load_encoder(folder, encoder_config)
    names = INPUT_NAMES if encoder_config.num_segments > 1 else INPUT_NAMES[:2]
    output = LOGITS_NAME if encoder_config.num_classes else STATES_NAME
    example = build_example_inputs(encoder_config, len(names))
    dynamic_dimensions = {0: "batch", 1: "tokens"}
    write_onnx(encoder, example[0], names, [output], tuple(dynamic_dimensions for _ in names), target)
    feeds = tuple(build_feed(names, inputs) for inputs in example)
    parity = measure_parity(target, lambda given: run_encoder(encoder, output, given), feeds)
    kind: Literal["tensor", "text"] = "tensor" if task == "tensor" else "text"
    name = str(config.get("_name_or_path") or folder.resolve().name)
    return ConvertedModel(
        graph=target,
        description=f"The Hugging Face checkpoint `{name}` ({config['model_type']}, "
        f"{encoder_config.num_layers} layers of {encoder_config.hidden_size})",
        feeds=feeds,
        parity=parity,
        task=kind,
        preprocess=TextPreprocessing() if kind == "text" else None,
    )


def run_encoder(encoder: nn.Module, output: str, feed_values: Feeds) -> Mapping[str, Array]:
    """Run the encoder on a request."""
    with torch.no_grad():
        return {output: encoder(*map(torch.from_numpy, feed_values.values())).numpy()}


def read_json_object(file: Path) -> dict[str, Any]:
    """Read a JSON object; `InvalidInputError` if the file has none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {file}: {exc.strerror}.") from exc
    except msgspec.MsgspecError as exc:
        raise InvalidInputError(f"{file} is not a JSON object: {exc}.") from exc


def parse_encoder_config(folder: Path, config: Mapping[str, Any]) -> EncoderConfig:
    """Parse config.json; `InvalidInputError` for an encoder that is not supported."""
    file = folder / "config.json"
    refuse_unsupported_encoder(file, config)
    kind = config["model_type"]
    small = kind == "distilbert"
    activation = config.get("activation" if small else "hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise InvalidInputError(f"{file} has the activation {activation!r}; {', '.join(ACTIVATIONS)} are known.")
    words, width, layers, heads, inner, places = read_encoder_sizes(file, config)
    if width % heads:
        raise InvalidInputError(f"{file} has {heads} heads, of which {width} is no multiple.")
    padding = read_padding_id(config)
    if padding >= words or count_places(kind, padding, places) < MIN_PLACES:
        raise InvalidInputError(
            f"{file} has the padding {padding} among {words} tokens, and {places} positions; save the checkpoint again."
        )
    return EncoderConfig(
        kind=ENCODER_KINDS[kind],  # type: ignore[arg-type]  # its values are those of the literal
        vocabulary_size=words,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        feed_forward_size=inner,
        max_positions=places,
        num_segments=0 if small or kind == "mpnet" else config.get("type_vocab_size", 2),
        epsilon=1e-12 if small else config.get("layer_norm_eps", 1e-12),
        activation=activation,
        padding_id=padding,
        num_classes=count_head_classes(config),
        embedding_size=config.get("embedding_size", 0) if kind == "electra" else 0,
        num_distance_buckets=config.get("relative_attention_num_buckets", 32) if kind == "mpnet" else 0,
    )


def refuse_wrong_types(file: Path, config: Mapping[str, Any]) -> None:
    """Refuse settings that are of another type, or out of range, than any encoder has."""
    try:
        msgspec.convert(config, CheckpointSettings)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"{file} is no config.json of an encoder: {exc}; save the checkpoint again.") from exc


def refuse_unsupported_encoder(file: Path, config: Mapping[str, Any]) -> None:
    """Refuse a model of another kind, with another head, with relative positions, or a decoder."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in ENCODER_KINDS:
        raise InvalidInputError(
            f"{file} is of a {kind!r} model; {', '.join(ENCODER_KINDS)} are read. Export others to ONNX, and publish "
            "that."
        )
    refuse_wrong_types(file, config)
    heads = [str(one) for one in config.get("architectures") or [] if str(one).endswith(UNSUPPORTED_HEADS)]
    if heads:
        raise InvalidInputError(
            f"{file} is of a {heads[0]}, whose head is not read: embeddings and sequence classification are. Export it "
            "to ONNX, and publish that."
        )
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise InvalidInputError(f"{file} has relative positions or is a decoder; export it to ONNX, and publish that.")


def read_encoder_sizes(file: Path, config: Mapping[str, Any]) -> list[int]:
    """Read the sizes of vocabulary, states, layers, heads, feed-forward part and positions."""
    keys = (
        ("vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings")
        if config["model_type"] == "distilbert"
        else ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
              "max_position_embeddings")
    )  # fmt: skip
    if missing := [key for key in keys if not isinstance(config.get(key), int) or config[key] < 1]:
        raise InvalidInputError(f"{file} has no whole number {missing[0]!r}.")
    return [config[key] for key in keys]


def read_padding_id(config: Mapping[str, Any]) -> int:
    """Read the id of the padding, from which RoBERTa counts positions; MPNet counts from 1 whatever its config says."""
    kind, own = ENCODER_KINDS[config["model_type"]], config.get("pad_token_id")
    usual = 1 if kind in {"roberta", "mpnet"} else 0
    return usual if kind == "mpnet" or not isinstance(own, int) else own


def count_places(kind: str, padding: int, positions: int) -> int:
    """Count the tokens that a text may have: RoBERTa and MPNet have no text in the positions up to the padding's id."""
    return positions - (padding + 1 if ENCODER_KINDS[kind] in {"roberta", "mpnet"} else 0)


def count_head_classes(config: Mapping[str, Any]) -> int:
    """Count the classes of a classifier's head; 0 if the architecture has none."""
    architecture = next(iter(config.get("architectures") or []), "")
    if not architecture.endswith("ForSequenceClassification"):
        return 0
    return len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))


def load_encoder(folder: Path, encoder_config: EncoderConfig) -> TransformerEncoder:
    """Load the encoder with the checkpoint's weights by name; `InvalidInputError` names a wrong one."""
    with torch.device("meta"):
        encoder = TransformerEncoder(encoder_config)
    expected, checkpoint_weights = dict(encoder.state_dict()), load_weights(folder, encoder_config)
    for name, empty in expected.items():
        if name not in checkpoint_weights:
            raise InvalidInputError(
                f"{folder} has no weights for {name} of a {encoder_config.kind}; it has {len(checkpoint_weights)} "
                "known ones."
            )
        if checkpoint_weights[name].shape != empty.shape:
            shapes = f"{list(checkpoint_weights[name].shape)}, config.json asks for {list(empty.shape)}"
            raise InvalidInputError(f"{folder}: the weights of {name} are {shapes}.")
    encoder.load_state_dict({name: checkpoint_weights[name] for name in expected}, assign=True)
    return encoder.eval().requires_grad_(False)


def load_weights(folder: Path, encoder_config: EncoderConfig) -> dict[str, Tensor]:
    """Load all weights that the encoder has, in fp32, by our names."""
    tensors = {}
    for file in find_weight_files(folder):
        try:
            with safe_open(file, framework="pt") as held:
                for name in held.keys():  # noqa: SIM118 - it is no mapping
                    own_name = map_weight_name(name, encoder_config)
                    if own_name is not None:
                        tensors[own_name] = held.get_tensor(name).to(torch.float32)
        except (SafetensorError, OSError) as exc:
            raise InvalidInputError(f"{file} is not a safetensors file: {exc}.") from exc
    return tensors


def find_weight_files(folder: Path) -> list[Path]:
    """Find the safetensors files, by the index if there is one; refuse pickled weights."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise InvalidInputError(f"{index} has no 'weight_map' that names a file for each tensor.")
        names = sorted(set(weight_map.values()))
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


def map_weight_name(name: str, encoder_config: EncoderConfig) -> str | None:
    """Map a checkpoint's tensor to our name; None for what serving does not need."""
    bare = NAME_PREFIX.sub("", name)
    layer = LAYER_NAME.match(bare)
    if layer is not None:
        part = LAYER_PARTS.get(layer["part"])
        return f"layers.{layer['number']}.{part}.{LEGACY_KINDS.get(layer['kind'], layer['kind'])}" if part else None
    other = OTHER_NAME.match(bare)
    if other is None:
        return None
    part, kind = other["part"], LEGACY_KINDS.get(other["kind"], other["kind"])
    if part == "embeddings.LayerNorm":
        return f"embeddings.norm.{kind}"
    if part in HEAD_PARTS[encoder_config.kind]:
        return f"{HEAD_PARTS[encoder_config.kind][part]}.{kind}"
    return f"{part}.{kind}" if part.startswith("embeddings.") else None


def build_example_inputs(encoder_config: EncoderConfig, inputs: int) -> tuple[tuple[Tensor, ...], ...]:
    """Build random token ids, (2, 9) and (1, 16) and (3, 5), some of the first padded at the end."""
    random, examples = torch.Generator().manual_seed(0), []
    places = count_places(encoder_config.kind, encoder_config.padding_id, encoder_config.max_positions)
    for batch, tokens in ((2, min(9, places)), (1, min(16, places)), (3, min(5, places))):
        ids = torch.randint(
            min(5, encoder_config.vocabulary_size - 1),
            encoder_config.vocabulary_size,
            (batch, tokens),
            generator=random,
        )
        mask = torch.ones_like(ids)
        if batch > 1:
            mask[0, -2:] = 0
        ids = torch.where(mask == 1, ids, encoder_config.padding_id)
        examples.append((ids, mask, torch.zeros_like(ids))[:inputs])
    return tuple(examples)
