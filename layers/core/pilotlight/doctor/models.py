"""Check that the models of a store can be served: aliases point to versions that exist, with all their files."""

from collections.abc import Callable, Iterator
from functools import cached_property

from pilotlight.contracts.manifest import Manifest, ManifestFile
from pilotlight.contracts.names import CHAMPION
from pilotlight.doctor.finding import CheckFailedError, HealthCheck, NotCheckedError, join_names
from pilotlight.errors import BrokenDocumentError, NotFoundError, PilotlightError
from pilotlight.registry.registry import AliasListing, Registry, version_path
from pilotlight.registry.retention import find_needed_versions
from pilotlight.runtime.model_files import PINNED_ONNXRUNTIME, find_mismatch

ProgressCallback = Callable[[str], None]  # of what is under way


class ModelChecks:
    """Checks of the models of a registry, which is read once; versions that no alias needs are not checked."""

    def __init__(self, registry: Registry, on_progress: ProgressCallback, *, deep: bool = False) -> None:
        self._registry = registry
        self._on_progress = on_progress
        self._deep = deep

    def list_checks(self) -> tuple[HealthCheck, ...]:
        """List all checks."""
        return (
            HealthCheck("champions", self.check_champions),
            HealthCheck("aliases", self.check_aliases),
            HealthCheck("files", self.check_files),
            HealthCheck("prepared graphs", self.check_optimized_graphs),
        )

    def check_champions(self) -> str:
        """Check that every model has a champion, which answers requests without a version."""
        broken = [listing.errors[CHAMPION] for listing in self._aliases_by_model.values() if CHAMPION in listing.errors]
        if broken:
            raise CheckFailedError(" ".join(broken))
        without = [name for name, listing in self._aliases_by_model.items() if CHAMPION not in listing.documents]
        if without:
            raise CheckFailedError(
                f"{join_names(without)} have no champion; `pilotlight promote {without[0]}` measures one."
            )
        resting = [name for name, listing in self._aliases_by_model.items() if listing.documents[CHAMPION].suspended]
        more = f" Out of service on purpose: {join_names(resting)}." if resting else ""
        return f"All {len(self._aliases_by_model)} models have one.{more}"

    def check_aliases(self) -> str:
        """Check that every alias can be read, and every version that it needs exists."""
        broken = [error for listing in self._aliases_by_model.values() for error in listing.errors.values()]
        if broken:
            raise CheckFailedError(" ".join(broken))
        missing = [
            f"{name}:{version}, and {why}"
            for name, listing in self._aliases_by_model.items()
            for version, why in find_needed_versions(listing).items()
            if version not in self._registry.list_versions(name)
        ]
        if missing:
            raise CheckFailedError(f"There is no {join_names(missing)}; promote a version that is there.")
        count = sum(len(listing.documents) for listing in self._aliases_by_model.values())
        return f"The versions that {count} aliases need are all there."

    def check_files(self) -> str:
        """Check that every file of these versions has the size in its manifest and, if deep, the sha256."""
        wrong, count, size = list[str](), 0, 0
        for manifest in self._read_needed_manifests():
            self._on_progress(f"{manifest.name}:{manifest.version}, {len(manifest.files)} files")
            wrong += [mismatch for file in manifest.files if (mismatch := self._describe_file_mismatch(manifest, file))]
            count, size = count + len(manifest.files), size + sum(file.bytes for file in manifest.files)
        if wrong:
            raise CheckFailedError(
                f"{len(wrong)} of {count} files are not as published: {join_names(wrong)}; publish again."
            )
        how = "by size and sha256" if self._deep else "by size; --deep reads them and compares their sha256"
        return f"All {count} files, {size / 1e6:,.1f} MB, are as published, {how}."

    def check_optimized_graphs(self) -> str:
        """Check that optimised graphs are for this onnxruntime; others open slower, without optimisation."""
        served = [(manifest, manifest.variants[manifest.serve].prepared) for manifest in self._read_needed_manifests()]
        prepared = [(manifest, found) for manifest, found in served if found is not None]
        old = [
            f"{manifest.name}:{manifest.version} for {found.runtime}"
            for manifest, found in prepared
            if not found.runtime.startswith(f"onnxruntime {PINNED_ONNXRUNTIME} ")
        ]
        if old:
            raise CheckFailedError(
                f"Prepared for another build than onnxruntime {PINNED_ONNXRUNTIME}: {join_names(old)}; such versions "
                "open "
                "slower than they could, publish them again."
            )
        return f"{len(prepared)} of {len(served)} served graphs are prepared, all for this onnxruntime."

    @cached_property
    def _aliases_by_model(self) -> dict[str, AliasListing]:
        aliases = {name: self._registry.load_aliases(name) for name in self._registry.list_models()}
        if not aliases:
            raise NotCheckedError("The store has no model yet; `pilotlight train digits` makes one.")
        return aliases

    def _read_needed_manifests(self) -> Iterator[Manifest]:
        """Yield the manifests of the existing versions that aliases need."""
        for name, listing in self._aliases_by_model.items():
            for version in sorted(find_needed_versions(listing)):
                try:
                    yield self._registry.load_manifest(name, version)
                except (NotFoundError, BrokenDocumentError):
                    continue  # the checks of aliases and of documents report it

    def _describe_file_mismatch(self, manifest: Manifest, file: ManifestFile) -> str:
        """Describe how a file differs from its record; return an empty string if it does not."""
        path = version_path(manifest.name, manifest.version, file.path)
        try:
            size = self._registry.store.get_size(path)
            mismatch = find_mismatch(self._registry.store, manifest, file) if self._deep and size == file.bytes else ""
        except PilotlightError as exc:
            return f"{path}: {exc}"
        if size != file.bytes:
            return f"{path} has {size} bytes, not {file.bytes}"
        return f"{path} {mismatch}" if mismatch else ""
