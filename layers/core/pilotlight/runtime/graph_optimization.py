"""Prepare a graph for the store: large weights in separate files, and an optimized copy that opens fast.

The copy's weights are stored twice, plain for fast links and compressed for slow ones (infra/decisions/0017).

A 110 MB int8 Transformer opens in 16 ms instead of 130 (infra/decisions/0017). The original graph stays in the version:
another onnxruntime or another architecture serves that one.
"""

import os
from pathlib import Path

from pilotlight.contracts.manifest import CompressedFile, OptimizedGraph, Variant
from pilotlight.runtime.onnx_header import read_onnx_header
from pilotlight.runtime.session import ONNXRUNTIME_VERSION, save_graph
from pilotlight.storage.object_store import PART_BYTES
from pilotlight.storage.zstd_frames import compress_file

MIN_PREPARED_BYTES = 8_000_000  # bytes; smaller graphs open within milliseconds and are not optimized
MAX_COMPRESSED_SHARE = 0.95  # of the weights' bytes; compressed int8 weights take 0.75 to 0.9, fp32 ones 0.92
VariantFiles = dict[str, Path]  # a version's files, by their path within the version


def build_variant(graph: Path, name: str, folder: Path) -> tuple[Variant, VariantFiles]:
    """Build the variant of the graph file `graph`, named `name`, and all its files; new ones are written to `folder`.

    The graph has been opened before: a small one in one file is not opened again. Raises `ModelRefusedError` if
    onnxruntime cannot open another.
    """
    if not read_onnx_header(graph).external_files:
        plain, files = Variant(name), {name: graph}
    else:
        weights = save_graph(graph, folder / name)
        plain, files = Variant(name), {name: folder / name}
        if weights.exists():  # otherwise none is large enough, and the graph contains them
            plain, files = Variant(name, weights=(weights.name,)), {**files, weights.name: weights}
    if sum(path.stat().st_size for path in files.values()) < MIN_PREPARED_BYTES:
        return plain, files
    target = folder / f"{name.removesuffix('.onnx')}.prepared.onnx"
    mapped_weights = save_graph(graph, target, optimized=True)
    external = [mapped_weights] if mapped_weights.exists() else []  # a forest has no weights to map, but attributes
    compressed, compressed_files = compress_weights(mapped_weights) if external else ({}, {})
    names = tuple(path.name for path in external)
    optimized = OptimizedGraph(
        f"onnxruntime {ONNXRUNTIME_VERSION} {os.uname().machine}", target.name, names, compressed
    )
    new = {path.name: path for path in (target, *external)} | compressed_files
    return Variant(name, weights=plain.weights, prepared=optimized), {**files, **new}


def compress_weights(weights: Path) -> tuple[dict[str, CompressedFile], VariantFiles]:
    """Compress weights into a file beside them; return its record and the file, both empty if it saves too little."""
    size, target = weights.stat().st_size, weights.with_name(f"{weights.name}.zst")
    if size <= PART_BYTES:  # fetched by one request
        return {}, {}
    frames = compress_file(weights, target, PART_BYTES)
    if sum(frames) > MAX_COMPRESSED_SHARE * size:
        return {}, {}
    return {weights.name: CompressedFile(target.name, PART_BYTES, frames)}, {target.name: target}
