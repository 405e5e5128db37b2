"""Keeps the newest digits version of a store for the tests: `python -m tests.models.keep .pilotlight/store`."""

import sys
from pathlib import Path

import msgspec

from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import ManifestDraft
from pilotlight.contracts.names import CANDIDATE, ModelReference
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import open_store

FOLDER = Path(__file__).parent / "digits"
KEPT = ("model.int8.onnx", "golden.json", "evaluation.npz")


def keep(registry: Registry) -> None:
    """Write the served graph, its golden requests, its test set, and the draft that publishes them again."""
    manifest = registry.load_manifest("digits", registry.resolve_reference(ModelReference("digits", None, CANDIDATE)))
    draft = msgspec.convert(msgspec.to_builtins(manifest), ManifestDraft)
    draft = msgspec.structs.replace(draft, variants={"int8": draft.variants["int8"]}, report=None)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "draft.json").write_bytes(encode_document(draft))
    for file in KEPT:
        path = version_path(manifest.name, manifest.version, file)
        (FOLDER / file).write_bytes(registry.store.get(path).data)


if __name__ == "__main__":
    keep(Registry(open_store(sys.argv[1])))
