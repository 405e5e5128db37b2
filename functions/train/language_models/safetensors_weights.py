"""The weights of a Hugging Face folder: safetensors files, read one tensor at a time.

The files are mapped, so that memory holds what is being read; nothing is unpickled.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from functions.train.convert.hf_checkpoint import find_weight_files
from functions.train.language_models.decoder_config import DecoderConfig, FloatArray, Weight
from functions.train.language_models.weight_shapes import HEAD, Shape
from pilotlight.errors import InvalidInputError, UnsupportedError

READ_KINDS = ("F32", "F16", "BF16", "F64")
COMPUTED_BUFFERS = re.compile(r".*\.(rotary_emb\.inv_freq|masked_bias|attn\.bias)")  # which old checkpoints hold
FUSED_ATTENTION = re.compile(r"(?P<prefix>model\.layers\.\d+\.self_attn\.)qkv_proj\.(?P<kind>weight|bias)")
FUSED_GATE = re.compile(r"(?P<prefix>model\.layers\.\d+\.mlp\.)gate_up_proj\.(?P<kind>weight|bias)")


@dataclass(frozen=True)
class StoredRows:
    """The rows of a tensor of a file that are one weight."""

    file: Path
    tensor: str
    shape: Shape
    kind: str
    first: int = 0

    @property
    def rows(self) -> slice:
        """The rows within the tensor."""
        return slice(self.first, self.first + self.shape[0])


@dataclass(frozen=True)
class SafetensorsWeights:
    """The weights of a folder by name."""

    folder: Path
    parts: Mapping[str, StoredRows]

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the weights by name."""
        return {name: part.shape for name, part in self.parts.items()}

    def __contains__(self, name: object) -> bool:
        """Return whether there is a weight of this name."""
        return name in self.parts

    def read(self, name: str) -> Weight:
        """Read a weight in fp32; `InvalidInputError` if there is none of this name."""
        if name not in self.parts:
            raise InvalidInputError(f"{self.folder} has no weight {name}.")
        part = self.parts[name]
        if part.kind not in READ_KINDS:
            raise UnsupportedError(
                f"{part.file}: the weight {part.tensor} is of the kind {part.kind}; {', '.join(READ_KINDS)} are read."
            )
        try:
            with safe_open(part.file, framework="pt") as held:
                rows: FloatArray = held.get_slice(part.tensor)[part.rows].to(torch.float32).contiguous().numpy()
        except (SafetensorError, OSError) as exc:
            raise InvalidInputError(f"{part.file}: the weight {part.tensor} cannot be read: {exc}.") from exc
        return rows


def list_stored_tensors(folder: Path) -> dict[str, StoredRows]:
    """List the tensors of the folder's files, but for what is computed anyway."""
    tensors: dict[str, StoredRows] = {}
    for file in find_weight_files(folder):
        try:
            with safe_open(file, framework="pt") as held:
                for name in held.keys():  # noqa: SIM118 - it is no mapping
                    part = held.get_slice(name)
                    tensors[name] = StoredRows(file, name, tuple(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError) as exc:
            raise InvalidInputError(f"{file} is no whole safetensors file: {exc}. Download it again.") from exc
    return {name: part for name, part in tensors.items() if not COMPUTED_BUFFERS.fullmatch(name)}


def name_stored_weights(tensors: Mapping[str, StoredRows], config: DecoderConfig) -> dict[str, StoredRows]:
    """Name the weights as Llama's: split what is fused, and leave out a head that is the embeddings' copy."""
    named = dict(entry for part in tensors.values() for entry in split_fused_tensor(part, config))
    if config.tied:
        named.pop(HEAD, None)
    return named


def split_fused_tensor(part: StoredRows, config: DecoderConfig) -> Iterator[tuple[str, StoredRows]]:
    """Split queries, keys and values, or gate and up, where they are one tensor."""
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    if match := FUSED_ATTENTION.fullmatch(part.tensor):
        sizes = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    elif match := FUSED_GATE.fullmatch(part.tensor):
        sizes = {"gate_proj": config.hidden_size, "up_proj": config.hidden_size}
    else:
        yield part.tensor, part
        return
    if part.shape[:1] != (sum(sizes.values()),):
        raise InvalidInputError(
            f"{part.file}: the weight {part.tensor} is {list(part.shape)}; config.json asks for {sum(sizes.values())} "
            "rows."
        )
    first = 0
    for name, rows in sizes.items():
        shape = (rows, *part.shape[1:])
        yield f"{match['prefix']}{name}.{match['kind']}", StoredRows(part.file, part.tensor, shape, part.kind, first)
        first += rows
