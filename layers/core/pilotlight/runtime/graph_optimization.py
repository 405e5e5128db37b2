"""What a publisher makes of a graph before it goes into the store: weights in files apart, and a copy that opens fast.

The copy's weights are there twice, plain and packed, for fast links and for slow ones (infra/decisions/0017).

A 110 MB int8 Transformer opens in 16 ms instead of 130 (infra/decisions/0017). The graph as it was given stays in the
version: it is served where another onnxruntime or another architecture reads it.
"""

import os
from pathlib import Path

from pilotlight.contracts.manifest import CompressedFile, OptimizedGraph, Variant
from pilotlight.errors import ModelRefusedError
from pilotlight.runtime.model_files import get_reopen_path, open_memory_file
from pilotlight.runtime.session import ONNXRUNTIME_VERSION, open_session, save_graph
from pilotlight.storage.object_store import PART_BYTES
from pilotlight.storage.zstd_frames import compress_file

MIN_PREPARED_BYTES = 8_000_000  # smaller graphs open within milliseconds anyway, so they are not prepared
MAX_COMPRESSED_SHARE = (
    0.95  # of the weights' bytes that their packed form may have; int8 weights take 0.75 to 0.9, fp32 ones 0.92
)
VariantFiles = dict[str, Path]  # a version's files, by their path within the version


def build_variant(graph: Path, name: str, folder: Path) -> tuple[Variant, VariantFiles]:
    """The variant whose graph is the file `graph`, under `name`, and all its files, new ones made in `folder`.

    Raises `ModelRefusedError` for what onnxruntime cannot open.
    """
    if is_self_contained(graph):
        plain, files = Variant(name), {name: graph}
    else:
        weights = save_graph(graph, folder / name)
        plain, files = Variant(name), {name: folder / name}
        if weights.exists():  # none is large enough otherwise, and they lie in the graph now
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
    """The packed form of weights, and its file beside them; none of both where it would win too little."""
    size, target = weights.stat().st_size, weights.with_name(f"{weights.name}.zst")
    if size <= PART_BYTES:  # it comes in one request
        return {}, {}
    frames = compress_file(weights, target, PART_BYTES)
    if sum(frames) > MAX_COMPRESSED_SHARE * size:
        return {}, {}
    return {weights.name: CompressedFile(target.name, PART_BYTES, frames)}, {target.name: target}


def is_self_contained(graph: Path) -> bool:
    """Whether the graph opens away from the folder that it lies in, or only there, since its weights lie beside it.

    Raises `ModelRefusedError` where it opens nowhere.
    """
    with open_memory_file() as file:
        file.write(graph.read_bytes())
        file.flush()
        try:
            open_session(get_reopen_path(file))
        except ModelRefusedError:
            open_session(str(graph))
            return False
    return True
