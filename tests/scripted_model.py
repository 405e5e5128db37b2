"""Language models that say what a test wants: a graph which emits a given list of tokens, whatever the prompt.

    scripted = ScriptedModel.build(["Hello", " world"])
    language_model = scripted.open()

The graph has the tensors of `contracts.decoder`. Its one attention finds the last token of the prompt: keys of prompt
tokens grow steeply with their position, those of generated tokens are 0, and the values are positions; so the distance
from there is the place in the script. A run belongs to the prompt if it keeps fewer rows of logits than it has tokens.
The tokenizer is byte-level BPE without merges, so that a text's tokens are its bytes; elements of the script that are
longer than a byte are tokens of their own, which no text is encoded to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pilotlight.contracts.decoder import (
    INPUT_IDS,
    KEEP,
    LOGITS,
    SEQUENCE_LENGTHS,
    TOTAL_LENGTH,
    DecoderSpec,
    name_cache_inputs,
    name_cache_outputs,
)
from pilotlight.generation.causal_model import CausalModel
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.text_tokenizer import TextTokenizer, list_byte_characters
from tests.graph_writer import FLOAT, INT32, INT64, model, node, tensor, value

HEAD_SIZE = 8
STEEPNESS = 20.0  # how much more a prompt token's key is than that before it
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NO_END = int(np.iinfo(np.int64).max)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Part = str | bytes | int


@dataclass(frozen=True)
class ScriptedModel:
    """A graph and its tokenizer; `tokens` is the script in token ids, behind which it emits `<|im_end|>` for ever."""

    graph: bytes
    tokenizer_json: str
    spec: DecoderSpec
    tokens: tuple[int, ...]
    ids: dict[str, int] = field(default_factory=dict)  # of the special tokens, by their text

    @classmethod
    def build(
        cls,
        script: Sequence[Part],
        *,
        margin: float = 30.0,
        context_length: int = 512,
        fail_after: int | None = None,
        more_tokens: Sequence[Part] = (),
        chat_template: str | None = "chat_template.jinja",
    ) -> "ScriptedModel":
        """Write the graph that emits the script.

        Args:
            script: a text or bytes is one token each, a number is a token's id.
            margin: by how much the scripted token's logit, which is `margin`, exceeds all others', which are 0.
            context_length: of prompt and answer.
            fail_after: after how many tokens the graph fails, for ever; None for never.
            more_tokens: tokens that the vocabulary has beside those of the script.
            chat_template: the name that the spec gives to the template's file.
        """
        vocabulary = build_vocabulary([*script, *more_tokens])
        ids = {text: len(vocabulary) + place for place, text in enumerate(SPECIAL_TOKENS)}
        tokens = [to_token(part, vocabulary) for part in script]
        size = len(vocabulary) + len(SPECIAL_TOKENS)
        table = write_table([*tokens, ids["<|im_end|>"]], size, margin)
        spec = DecoderSpec(
            family="llama",
            context_length=context_length,
            vocabulary_size=size,
            layers=1,
            kv_heads=1,
            head_size=HEAD_SIZE,
            end_tokens=(ids["<|im_end|>"], ids["<|endoftext|>"]),
            chat_template=chat_template,
            special_tokens={"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
        )
        return cls(write_graph(table, fail_after), write_tokenizer(vocabulary), spec, tuple(tokens), ids)

    def open(self, **options: Any) -> LanguageModel:  # noqa: ANN401 - those of LanguageModel
        """Open the language model; `options` are those of `LanguageModel`."""
        settings = ort.SessionOptions()
        settings.log_severity_level = 4
        native = ort.InferenceSession(self.graph, settings, providers=["CPUExecutionProvider"])
        tokenizer = TextTokenizer(self.tokenizer_json.encode())
        return LanguageModel(CausalModel(native, self.spec), tokenizer, name="scripted", **options)

    def write(self, folder: Path) -> None:
        """Write the files of a version: model.onnx, tokenizer.json, and a chat template of ChatML."""
        (folder / "model.onnx").write_bytes(self.graph)
        (folder / "tokenizer.json").write_text(self.tokenizer_json)
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def to_bytes(part: str | bytes) -> bytes:
    return part.encode() if isinstance(part, str) else part


def build_vocabulary(parts: Sequence[Part]) -> dict[bytes, int]:
    """All bytes, then the longer parts."""
    vocabulary = {bytes([byte]): byte for byte in range(256)}
    for part in parts:
        if not isinstance(part, int):
            vocabulary.setdefault(to_bytes(part), len(vocabulary))
    return vocabulary


def to_token(part: Part, vocabulary: dict[bytes, int]) -> int:
    return part if isinstance(part, int) else vocabulary[to_bytes(part)]


def write_tokenizer(vocabulary: dict[bytes, int]) -> str:
    """A tokenizer.json with the vocabulary and the special tokens behind it."""
    characters = list_byte_characters()
    written = {"".join(characters[byte] for byte in content): token for content, token in vocabulary.items()}
    tokenizer = Tokenizer(models.BPE(vocab=written, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return str(tokenizer.to_str())


def write_table(tokens: Sequence[int], size: int, margin: float) -> "np.ndarray[Any, Any]":
    """The logits of each place in the script, (places, vocabulary)."""
    table = np.zeros((len(tokens), size), np.float32)
    table[np.arange(len(tokens)), tokens] = margin
    return table


def write_graph(table: "np.ndarray[Any, Any]", fail_after: int | None) -> bytes:
    """The graph that finds its place in the table."""
    size = table.shape[1]
    last = len(table) - 1
    nodes = [
        node("Shape", [INPUT_IDS], ["shape"]),
        node("Gather", ["shape", "one"], ["tokens"]),
        node("Cast", [SEQUENCE_LENGTHS], ["ends"], to=INT64),
        node("Unsqueeze", ["ends", "axis_1"], ["end"]),
        node("Range", ["zero", "tokens", "one"], ["steps"]),
        node("Sub", ["steps", "tokens"], ["backwards"]),
        node("Add", ["backwards", "one"], ["offsets"]),
        node("Add", ["end", "offsets"], ["positions"]),  # (batch, tokens)
        # a key is positive for tokens of the prompt
        node("Less", [KEEP, "tokens"], ["keeps_fewer"]),
        node("Sub", ["end", "tokens"], ["before"]),
        node("Less", ["before", "zero"], ["is_first"]),  # -1 where nothing stands before the run
        node("Or", ["keeps_fewer", "is_first"], ["is_prompt"]),
        node("Add", ["positions", "one"], ["ordinals"]),
        node("Where", ["is_prompt", "ordinals", "zero"], ["prompt_ordinals"]),
        node("Cast", ["prompt_ordinals"], ["heights"], to=FLOAT),
        node("Mul", ["heights", "steepness"], ["scores"]),
        node("Unsqueeze", ["scores", "axis_2"], ["score_columns"]),
        node("Mul", ["score_columns", "first_unit"], ["k"]),
        node("Cast", ["positions"], ["places"], to=FLOAT),
        node("Unsqueeze", ["places", "axis_2"], ["place_columns"]),
        node("Mul", ["place_columns", "first_unit"], ["v"]),
        node("Mul", ["k", "nought"], ["noughts"]),
        node("Add", ["noughts", "first_unit"], ["q"]),
        node(
            "GroupQueryAttention",
            ["q", "k", "v", *name_cache_inputs(0), SEQUENCE_LENGTHS, TOTAL_LENGTH],
            ["found", *name_cache_outputs(0)],
            "com.microsoft",
            num_heads=1,
            kv_num_heads=1,
            scale=1.0,
        ),
        node("Gather", ["found", "zero"], ["prompt_ends"], axis=2),  # (batch, tokens)
        node("Round", ["prompt_ends"], ["round_ends"]),
        node("Cast", ["round_ends"], ["whole_ends"], to=INT64),
        node("Sub", ["positions", "whole_ends"], ["all_places"]),
        node("Neg", [KEEP], ["first_kept"]),
        node("Slice", ["all_places", "first_kept", "no_end", "axis_1"], ["kept_places"]),
        node("Max", ["kept_places", "zero"], ["from_zero"]),
        node("Min", ["from_zero", "last"], ["script_places"]),
        *write_failure(fail_after),
        node("Gather", ["table", "script_places" if fail_after is None else "checked"], [LOGITS], axis=0),
    ]
    numbers = {"zero": 0, "one": 1, "last": last}
    numbers |= {} if fail_after is None else {"fail_after": fail_after}
    lists = {"axis_1": 1, "axis_2": 2, "no_end": NO_END}
    unit = np.zeros(HEAD_SIZE, np.float32)
    unit[0] = 1
    initializers = [
        *(tensor(name, np.array(content, np.int64)) for name, content in numbers.items()),
        *(tensor(name, np.array([content], np.int64)) for name, content in lists.items()),
        tensor("steepness", np.array(STEEPNESS, np.float32)),
        tensor("nought", np.array(0.0, np.float32)),
        tensor("first_unit", unit),
        tensor("table", table),
    ]
    cache_shape: list[int | str] = ["batch", 1, "capacity", HEAD_SIZE]
    inputs = [
        value(INPUT_IDS, INT64, ["batch", "tokens"]),
        value(SEQUENCE_LENGTHS, INT32, ["batch"]),
        value(TOTAL_LENGTH, INT32, []),
        value(KEEP, INT64, [1]),
        *(value(name, FLOAT, cache_shape) for name in name_cache_inputs(0)),
    ]
    outputs = [
        value(LOGITS, FLOAT, ["batch", "kept", size]),
        *(value(name, FLOAT, cache_shape) for name in name_cache_outputs(0)),
    ]
    return model(nodes, inputs, outputs, initializers, domains=["com.microsoft"])


def write_failure(fail_after: int | None) -> list[bytes]:
    """Nodes that make a place at or behind `fail_after` one that the table does not have."""
    if fail_after is None:
        return []
    return [
        node("Less", ["from_zero", "fail_after"], ["is_before"]),
        node("Where", ["is_before", "script_places", "no_end"], ["checked"]),
    ]
