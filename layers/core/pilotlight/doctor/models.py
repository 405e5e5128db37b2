"""Whether the models of a store can be served: aliases point to versions that are there, with all their files."""

from collections.abc import Callable, Iterator
from functools import cached_property

from pilotlight.contracts.manifest import CHAMPION, AliasDocument, File, Manifest
from pilotlight.doctor.finding import Check, FaultError, NotCheckedError, listed
from pilotlight.errors import NotFoundError, PilotlightError
from pilotlight.registry.registry import Registry, version_path
from pilotlight.registry.retention import needs
from pilotlight.runtime.model_files import ONNXRUNTIME, unlike

Tell = Callable[[str], None]  # of what is under way


class Models:
    """The models of a registry, read once. Versions that no alias needs are nobody's concern here."""

    def __init__(self, registry: Registry, tell: Tell, *, deep: bool = False) -> None:
        self._registry = registry
        self._tell = tell
        self._deep = deep

    def checks(self) -> tuple[Check, ...]:
        """All of them."""
        return (
            Check("champions", self.champions),
            Check("aliases", self.no_alias_dangles),
            Check("files", self.files),
            Check("prepared graphs", self.prepared),
        )

    def champions(self) -> str:
        """Every model has a champion, so that it answers when nothing else is asked for."""
        without = [name for name, aliases in self._aliases.items() if CHAMPION not in aliases]
        if without:
            raise FaultError(f"{listed(without)} have no champion; `pilotlight promote {without[0]}` measures one.")
        resting = [name for name, aliases in self._aliases.items() if aliases[CHAMPION].suspended]
        more = f" Out of service on purpose: {listed(resting)}." if resting else ""
        return f"All {len(self._aliases)} models have one.{more}"

    def no_alias_dangles(self) -> str:
        """Every version that an alias needs is there."""
        missing = [
            f"{name}:{version}, and {why}"
            for name, aliases in self._aliases.items()
            for version, why in needs(aliases).items()
            if version not in self._registry.versions(name)
        ]
        if missing:
            raise FaultError(f"There is no {listed(missing)}; promote a version that is there.")
        return f"The versions that {sum(map(len, self._aliases.values()))} aliases need are all there."

    def files(self) -> str:
        """Every file of these versions is there, in the size that its manifest says and, if deep, with its sha256."""
        wrong, count, size = list[str](), 0, 0
        for manifest in self._needed():
            self._tell(f"{manifest.name}:{manifest.version}, {len(manifest.files)} files")
            wrong += [said for file in manifest.files if (said := self._unlike(manifest, file))]
            count, size = count + len(manifest.files), size + sum(file.bytes for file in manifest.files)
        if wrong:
            raise FaultError(f"{len(wrong)} of {count} files are not as published: {listed(wrong)}; publish again.")
        how = "by size and sha256" if self._deep else "by size; --deep reads them and compares their sha256"
        return f"All {count} files, {size / 1e6:,.1f} MB, are as published, {how}."

    def prepared(self) -> str:
        """What was optimised ahead is for this onnxruntime; a graph that is not opens as it is, and slower."""
        served = [(manifest, manifest.variants[manifest.serve].prepared) for manifest in self._needed()]
        prepared = [(manifest, found) for manifest, found in served if found is not None]
        old = [
            f"{manifest.name}:{manifest.version} for {found.runtime}"
            for manifest, found in prepared
            if not found.runtime.startswith(f"onnxruntime {ONNXRUNTIME} ")
        ]
        if old:
            raise FaultError(
                f"Prepared for another build than onnxruntime {ONNXRUNTIME}: {listed(old)}; such versions open "
                "slower than they could, publish them again."
            )
        return f"{len(prepared)} of {len(served)} served graphs are prepared, all for this onnxruntime."

    @cached_property
    def _aliases(self) -> dict[str, dict[str, AliasDocument]]:
        found = {name: self._registry.aliases(name) for name in self._registry.models()}
        if not found:
            raise NotCheckedError("The store has no model yet; `pilotlight train digits` makes one.")
        return found

    def _needed(self) -> Iterator[Manifest]:
        """The manifests of the versions that aliases need and that are there."""
        for name, aliases in self._aliases.items():
            for version in sorted(needs(aliases)):
                try:
                    yield self._registry.manifest(name, version)
                except NotFoundError:
                    continue  # the check of aliases says so

    def _unlike(self, manifest: Manifest, file: File) -> str:
        """How a file differs from its record; empty if it does not."""
        path = version_path(manifest.name, manifest.version, file.path)
        try:
            size = self._registry.store.size(path)
            why = unlike(self._registry.store, manifest, file) if self._deep and size == file.bytes else ""
        except PilotlightError as exc:
            return f"{path}: {exc}"
        if size != file.bytes:
            return f"{path} has {size} bytes, not {file.bytes}"
        return f"{path} {why}" if why else ""
