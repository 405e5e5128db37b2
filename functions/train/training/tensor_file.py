"""Tensors as the bytes of a safetensors file, one piece at a time: what is sent to a store never lies on a disk.

The format (safetensors' README): eight bytes with the length of a header, a JSON header with type, shape and place of
each tensor, then their bytes. As in that library, wide types come first, so that each tensor is aligned.
"""

import json
from collections.abc import Iterator, Mapping

import torch

PIECE_BYTES = 8 << 20  # that are sent at once
HEADER_ALIGNMENT = 8
TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def generate_file(tensors: Mapping[str, torch.Tensor]) -> Iterator[memoryview]:
    """Yield the file of tensors that are on the CPU, without a copy of those that are contiguous."""
    ordered = sorted(tensors.items(), key=lambda pair: (-pair[1].element_size(), pair[0]))
    yield memoryview(build_header(ordered))
    for _, tensor in ordered:
        whole = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(whole), PIECE_BYTES):
            yield whole[start : start + PIECE_BYTES]


def build_header(ordered: list[tuple[str, torch.Tensor]]) -> bytes:
    """Build the header, with its length before it."""
    entries, start = {}, 0
    for name, tensor in ordered:
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def count_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Count the bytes of all tensors, without the header."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
