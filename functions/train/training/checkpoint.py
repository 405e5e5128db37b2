"""What a killed run resumes from: `runs/<run>/checkpoints/step-<n>/`.

tensors.safetensors   weights, optimiser, averages, best weights so far, random numbers
state.json            the position, and the figures of the epochs before it
manifest.json         the commit: written last and create-only, with the size and sha256 of the other two

A folder without a manifest, or with other hashes than in its manifest, is not a checkpoint. Nothing here is unpickled:
what is in a bucket must not run.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors
import torch
from msgspec import Struct
from safetensors.torch import load_file

from functions.train.errors import UnusableCheckpointError
from functions.train.training.state import Tensors, TrainerState, TrainingPosition
from functions.train.training.tensor_file import PIECE_BYTES, count_bytes, generate_file
from pilotlight.contracts.codec import DocumentT, decode_document, encode_document
from pilotlight.contracts.manifest import ManifestFile
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.download import download_object
from pilotlight.storage.object_store import ObjectStore

SCHEMA_VERSION = 1
MAX_CHECKPOINTS = 2  # the newest, and one to fall back to
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
MessageCallback = Callable[[str], None]


class CheckpointManifest(Struct, frozen=True, kw_only=True):
    """The manifest of a checkpoint."""

    schema_version: int
    recipe_sha256: str  # of the run's recipe.yaml
    files: tuple[ManifestFile, ...]


class CheckpointStore:
    """The checkpoints of one training, in a folder of the store."""

    def __init__(self, store: ObjectStore, folder: str, recipe_sha256: str) -> None:
        self._store, self._folder, self._recipe_sha256 = store, folder, recipe_sha256

    def list_steps(self) -> list[int]:
        """List the steps that something is stored for, complete or not, newest first."""
        names = [name.removeprefix("step-") for name in self._store.list_folders(self._folder)]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def write_state(self, state: TrainerState) -> None:
        """Save a state; when it is safe, delete the older ones but one.

        The tensors are hashed on their way to the store, and never lie on a disk.
        """
        step = state.position.step
        self._delete_checkpoint(step)
        files = (self._put_tensors(step, state.tensors), self._put_position(step, state.position))
        manifest = CheckpointManifest(schema_version=SCHEMA_VERSION, recipe_sha256=self._recipe_sha256, files=files)
        self._store.create(self._path(step, MANIFEST), encode_document(manifest))
        for old in self.list_steps()[MAX_CHECKPOINTS:]:
            self._delete_checkpoint(old)

    def _put_tensors(self, step: int, tensors: Tensors) -> ManifestFile:
        """Write the tensors: in parts of several megabytes, or where all of them are fewer in one request."""
        digest, size, path = hashlib.sha256(), 0, self._path(step, TENSORS)

        def watch() -> Iterator[bytes | memoryview]:
            nonlocal size
            for piece in generate_file(tensors):
                digest.update(piece)
                size += len(piece)
                yield piece

        if count_bytes(tensors) <= PIECE_BYTES:
            self._store.put(path, b"".join(watch()))
        else:
            self._store.put_chunks(path, watch())
        return ManifestFile(TENSORS, size, digest.hexdigest())

    def _put_position(self, step: int, position: TrainingPosition) -> ManifestFile:
        document = encode_document(position)
        self._store.put(self._path(step, STATE), document)
        return ManifestFile(STATE, len(document), hashlib.sha256(document).hexdigest())

    def load_newest(self, on_message: MessageCallback) -> TrainerState | None:
        """Load the newest complete state; broken newer ones are reported and removed."""
        for step in self.list_steps():
            try:
                return self._read_checkpoint(step)
            except UnusableCheckpointError as exc:
                on_message(f"skipped the checkpoint of step {step}: {exc}")
                self._delete_checkpoint(step)  # otherwise it would count as one of those to keep
        return None

    def delete_all(self) -> None:
        """Delete all of them: a published run is never resumed."""
        for step in self.list_steps():
            self._delete_checkpoint(step)

    def _read_checkpoint(self, step: int) -> TrainerState:
        manifest = self._read_document(step, MANIFEST, CheckpointManifest)
        if manifest.schema_version != SCHEMA_VERSION:
            raise UnusableCheckpointError(f"its schema version is {manifest.schema_version}, not {SCHEMA_VERSION}.")
        if manifest.recipe_sha256 != self._recipe_sha256:
            raise UnusableCheckpointError("it was written with another recipe.")
        with TemporaryDirectory(prefix="pilotlight-checkpoint-") as folder:
            for file in manifest.files:
                self._fetch_file(step, file, Path(folder, file.path))
            return TrainerState(self._read_document(step, STATE, TrainingPosition), load_tensors(Path(folder, TENSORS)))

    def _fetch_file(self, step: int, file: ManifestFile, target: Path) -> None:
        try:
            with target.open("w+b") as local:  # large ones are read again on the way, for their hash
                found = download_object(self._store, self._path(step, file.path), local, file.bytes)
        except NotFoundError as exc:
            raise UnusableCheckpointError(f"{file.path} is missing.") from exc
        if found != (file.bytes, file.sha256):
            raise UnusableCheckpointError(f"{file.path} is not what its manifest says.")

    def _read_document(self, step: int, name: str, kind: type[DocumentT]) -> DocumentT:
        try:
            return decode_document(self._store.get(self._path(step, name)).data, kind, name)
        except NotFoundError as exc:
            raise UnusableCheckpointError(f"it has no {name}, and so was never finished.") from exc
        except InvalidInputError as exc:
            raise UnusableCheckpointError(str(exc)) from exc

    def _delete_checkpoint(self, step: int) -> None:
        """Delete the manifest first, so that there is never one without its files."""
        paths = list(self._store.list_paths(f"{self._folder}/step-{step}"))
        for path in sorted(paths, key=lambda path: not path.endswith(f"/{MANIFEST}")):
            self._store.delete(path)

    def _path(self, step: int, name: str) -> str:
        return f"{self._folder}/step-{step}/{name}"


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Load the tensors of a safetensors file."""
    try:
        found: dict[str, Any] = load_file(path)
    except safetensors.SafetensorError as exc:
        raise UnusableCheckpointError(f"{path.name} is no safetensors file: {exc}.") from exc
    return found
