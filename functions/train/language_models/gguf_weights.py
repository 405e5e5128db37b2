"""The weights of a GGUF file under the names of Hugging Face's Llama, read one at a time.

Blocks of Q4_0 and Q8_0 are kept as they are, since they are quantized right already and a second rounding would cost
more than the first; all other kinds become fp32. llama.cpp stores the rows of Llama's queries and keys so that the two
values that are rotated together are neighbours; here they are half a head apart, as in Hugging Face's checkpoints.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from functions.train.language_models.decoder_config import DecoderConfig, FloatArray, QuantizedBlocks, Weight
from functions.train.language_models.gguf_header import Bytes, GgufHeader, GgufTensor
from functions.train.language_models.weight_shapes import EMBEDDINGS, HEAD, LAST_NORM, Shape
from pilotlight.errors import InvalidInputError, UnsupportedError

BLOCK, SCALE_BYTES = 32, 2  # columns of a block of Q4_0 and Q8_0; each begins with its scale, in fp16
LAYER_NAME = re.compile(r"blk\.(?P<layer>\d+)\.(?P<part>\w+)\.(?P<kind>weight|bias)")
OTHER_NAMES = {"token_embd.weight": EMBEDDINGS, "output_norm.weight": LAST_NORM, "output.weight": HEAD}
PARTS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
SANDWICH_PARTS = {  # where there are norms after attention and feed-forward too
    "ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
ROTARY_TENSORS = re.compile(r"rope_freqs\.weight|rope_factors_(short|long)\.weight|blk\.\d+\.attn_rot_embd\.weight")


@dataclass(frozen=True)
class TensorRows:
    """The rows of a tensor that are one weight."""

    tensor: GgufTensor
    rows: slice
    interleaved_heads: int = 0  # heads whose rows llama.cpp has reordered

    @property
    def shape(self) -> Shape:
        """The shape of the weight."""
        return (len(range(*self.rows.indices(self.tensor.shape[0]))), *self.tensor.shape[1:])


@dataclass(frozen=True)
class GgufWeights:
    """The weights of a file by name."""

    file: Path
    parts: Mapping[str, TensorRows]

    @classmethod
    def find(cls, header: GgufHeader, config: DecoderConfig) -> "GgufWeights":
        """Find the weights among the tensors of a file."""
        named = (entry for tensor in header.tensors.values() for entry in iterate_named_rows(tensor, config))
        return cls(header.file, dict(named))

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the weights by name."""
        return {name: part.shape for name, part in self.parts.items()}

    def __contains__(self, name: object) -> bool:
        """Return whether there is a weight of this name."""
        return name in self.parts

    def read(self, name: str) -> Weight:
        """Read a weight; `InvalidInputError` if there is none of this name."""
        if name not in self.parts:
            raise InvalidInputError(f"{self.file} has no weight {name}.")
        part = self.parts[name]
        if len(part.tensor.shape) == 1 and gguf.GGML_QUANT_SIZES[part.tensor.kind][0] > 1:
            raise UnsupportedError(
                f"{self.file}: the weight {part.tensor.name} is one row of the kind {part.tensor.kind.name}, which is "
                "read of matrices alone; quantize the model again."
            )
        content = part.tensor.content.reshape(part.tensor.shape[0], -1)[part.rows]  # also where there is one dimension
        if part.interleaved_heads:
            content = content[order_rotated_rows(len(content), part.interleaved_heads)]
        try:
            weight = decode_rows(np.ascontiguousarray(content), part.tensor.kind)
        except NotImplementedError as exc:  # a kind that gguf knows by name alone
            raise UnsupportedError(
                f"{self.file}: the weight {part.tensor.name} is of the kind {part.tensor.kind.name}, which is not "
                "read; quantize the model to Q8_0 or Q4_0."
            ) from exc
        return weight.reshape(part.shape) if isinstance(weight, np.ndarray) else weight


def iterate_named_rows(tensor: GgufTensor, config: DecoderConfig) -> Iterator[tuple[str, TensorRows]]:
    """Iterate over the weights of a tensor: one, several where they are fused, none where it is of the rotation."""
    if ROTARY_TENSORS.fullmatch(tensor.name):
        return
    match = LAYER_NAME.fullmatch(tensor.name)
    if match is None:
        yield OTHER_NAMES.get(tensor.name, tensor.name), TensorRows(tensor, slice(None))
        return
    prefix, kind = f"model.layers.{match['layer']}.", match["kind"]
    for part, rows in split_fused_rows(match["part"], tensor.shape[0], config):
        heads = {"attn_q": config.heads, "attn_k": config.kv_heads}.get(part, 0) if config.family == "llama" else 0
        own = SANDWICH_PARTS.get(part) if config.sandwich_norm else None
        yield f"{prefix}{own or PARTS.get(part, part)}.{kind}", TensorRows(tensor, rows, heads)


def split_fused_rows(part: str, rows: int, config: DecoderConfig) -> Iterator[tuple[str, slice]]:
    """Split the rows of a tensor that holds queries, keys and values, or gate and up, into those of each."""
    if part == "attn_qkv":
        queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
        yield "attn_q", slice(0, queries)
        yield "attn_k", slice(queries, queries + keys)
        yield "attn_v", slice(queries + keys, None)
    elif part == "ffn_up" and config.family == "phi3" and rows == 2 * config.hidden_size:
        yield "ffn_gate", slice(0, config.hidden_size)
        yield "ffn_up", slice(config.hidden_size, None)
    else:
        yield part, slice(None)


def order_rotated_rows(rows: int, heads: int) -> npt.NDArray[np.intp]:
    """Order the rows of each head so that pairs (2 i, 2 i + 1) are at (i, i + size / 2)."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def decode_rows(content: Bytes, kind: GGMLQuantizationType) -> Weight:
    """Decode rows of bytes: blocks of Q4_0 and Q8_0 as they are, others to fp32."""
    if kind in {GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0}:
        return decode_blocks(content, kind)
    whole: FloatArray = np.array(gguf.dequantize(content, kind), dtype=np.float32)
    return whole


def decode_blocks(content: Bytes, kind: GGMLQuantizationType) -> QuantizedBlocks:
    """Decode rows of blocks, each a scale and 32 numbers.

    A block of Q4_0 has 16 bytes, whose low halves are its first 16 numbers and whose high halves the other 16.
    """
    rows = len(content)
    blocks = content.reshape(rows, -1, SCALE_BYTES + (BLOCK // 2 if kind == GGMLQuantizationType.Q4_0 else BLOCK))
    scales = np.ascontiguousarray(blocks[:, :, :SCALE_BYTES]).view(np.float16)[:, :, 0].astype(np.float32)
    packed = blocks[:, :, SCALE_BYTES:]
    if kind == GGMLQuantizationType.Q4_0:
        values = np.concatenate((packed & 0x0F, packed >> 4), axis=2)
        return QuantizedBlocks(4, BLOCK, values.reshape(rows, -1), scales)
    return QuantizedBlocks(8, BLOCK, (packed ^ np.uint8(0x80)).reshape(rows, -1), scales)  # of int8, plus 128
