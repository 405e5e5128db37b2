"""What a publisher makes of a graph before it goes into the store: weights in files apart, and a copy that opens fast.

The copy's weights are there twice, plain and packed, for fast links and for slow ones (infra/decisions/0059).

A 110 MB int8 Transformer opens in 16 ms instead of 130 (infra/decisions/0018). The graph as it was given stays in the
version: it is served where another onnxruntime or another architecture reads it.
"""

import os
from pathlib import Path

from pilotlight.contracts.manifest import Packed, Prepared, Variant
from pilotlight.errors import ModelRefusedError
from pilotlight.runtime.model_files import memory_file, path_of
from pilotlight.runtime.session import VERSION, open_session, save
from pilotlight.storage.object_store import PART_BYTES
from pilotlight.storage.zstd_frames import pack

LEAST_BYTES = 8_000_000  # smaller graphs open within milliseconds anyway, so they are not prepared
WORTH = 0.95  # of the weights' bytes that their packed form may have; int8 weights take 0.75 to 0.9, fp32 ones 0.92
Files = dict[str, Path]  # a version's files, by their path within the version


def variant(graph: Path, name: str, folder: Path) -> tuple[Variant, Files]:
    """The variant whose graph is the file `graph`, under `name`, and all its files, new ones made in `folder`.

    Raises `ModelRefusedError` for what onnxruntime cannot open.
    """
    if opens_alone(graph):
        found, files = Variant(name), {name: graph}
    else:
        weights = save(graph, folder / name)
        found, files = Variant(name), {name: folder / name}
        if weights.exists():  # none is large enough otherwise, and they lie in the graph now
            found, files = Variant(name, weights=(weights.name,)), {**files, weights.name: weights}
    if sum(path.stat().st_size for path in files.values()) < LEAST_BYTES:
        return found, files
    target = folder / f"{name.removesuffix('.onnx')}.prepared.onnx"
    mapped = save(graph, target, optimised=True)
    apart = [mapped] if mapped.exists() else []  # a forest has no weights to map, but attributes
    packed, frames = compressed(mapped) if apart else ({}, {})
    names = tuple(path.name for path in apart)
    record = Prepared(f"onnxruntime {VERSION} {os.uname().machine}", target.name, names, packed)
    new = {path.name: path for path in (target, *apart)} | frames
    return Variant(name, weights=found.weights, prepared=record), {**files, **new}


def compressed(weights: Path) -> tuple[dict[str, Packed], Files]:
    """The packed form of weights, and its file beside them; none of both where it would win too little."""
    size, target = weights.stat().st_size, weights.with_name(f"{weights.name}.zst")
    if size <= PART_BYTES:  # it comes in one request
        return {}, {}
    frames = pack(weights, target, PART_BYTES)
    if sum(frames) > WORTH * size:
        return {}, {}
    return {weights.name: Packed(target.name, PART_BYTES, frames)}, {target.name: target}


def opens_alone(graph: Path) -> bool:
    """Whether the graph opens away from the folder that it lies in, or only there, since its weights lie beside it.

    Raises `ModelRefusedError` where it opens nowhere.
    """
    with memory_file() as file:
        file.write(graph.read_bytes())
        file.flush()
        try:
            open_session(path_of(file))
        except ModelRefusedError:
            open_session(str(graph))
            return False
    return True
