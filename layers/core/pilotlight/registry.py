"""Versions and aliases of models, as documents in an object store.

    models/<name>/versions/<n>/claim.json     create-only: who makes it owns the number n
    models/<name>/versions/<n>/<files>        written by the owner alone
    models/<name>/versions/<n>/manifest.json  create-only and last: this write is the commit
    models/<name>/aliases/<alias>.json        create-only, then compare-and-swap

No manifest, no version: a half upload is invisible, and its number is never used again. There is no server and no lock.
"""

import hashlib
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from pilotlight.contracts import (
    CANDIDATE,
    CHAMPION,
    AliasDocument,
    Document,
    Draft,
    File,
    Manifest,
    Reference,
    check_alias,
    check_name,
    decode,
    encode,
)
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError, ModelRefusedError, NotFoundError
from pilotlight.storage import ObjectStore

Content = bytes | Path  # of a file of a version: in memory, or on disk


class Claim(Struct, frozen=True):
    """Who took a version's number; the nonce is that of the manifest to come."""

    nonce: str
    by: str
    at: str  # RFC 3339, UTC


class Registry:
    """The models in a store. Its readers may run anywhere, its writers may race."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def models(self) -> list[str]:
        """The names of the models that have at least one version, sorted."""
        return [name for name in self.store.folders("models") if self.versions(name)]

    def versions(self, name: str) -> list[int]:
        """The committed versions of a model, oldest first; empty when there is no such model."""
        manifest = re.compile(r"models/[^/]+/versions/([1-9][0-9]*)/manifest\.json")
        found = map(manifest.fullmatch, self.store.paths(f"models/{name}/versions"))
        return sorted(int(match[1]) for match in found if match)

    def manifest(self, name: str, version: int) -> Manifest:
        """The commit record of a version; `NotFoundError` says which versions there are instead."""
        path = version_path(name, version, "manifest.json")
        try:
            return self._read(path, Manifest)[0]
        except NotFoundError as exc:
            raise self._missing(name, f"version {version}") from exc

    def aliases(self, name: str) -> dict[str, AliasDocument]:
        """Every alias of a model, by its name."""
        found = (path.removesuffix(".json").rsplit("/", 1)[-1] for path in self.store.paths(f"models/{name}/aliases"))
        return {alias: self.alias(name, alias) for alias in sorted(found)}

    def alias(self, name: str, alias: str) -> AliasDocument:
        """Where an alias points; `NotFoundError` says which versions and aliases there are instead."""
        return self.tagged_alias(name, alias)[0]

    def tagged_alias(self, name: str, alias: str) -> tuple[AliasDocument, str]:
        """The same with the document's e_tag, which changes whenever the document does."""
        try:
            return self._alias(name, alias)
        except NotFoundError as exc:
            raise self._missing(name, f"version or alias {alias!r}") from exc

    def resolve(self, reference: Reference) -> int:
        """The version that a reference means now; a version that is named is not looked up."""
        if reference.version is not None:
            return reference.version
        return self.alias(reference.name, reference.alias).version

    def publish(self, draft: Draft, files: Mapping[str, Content]) -> Manifest:
        """Make a draft and its files the model's next version, and `candidate` point to it.

        The very first version of a model becomes its champion too, since there is none to be measured against.
        Safe to run from many processes at once; `InvalidInputError` for a draft that names a file it does not bring.
        """
        check_name(draft.name, "model name")
        manifest = complete(draft, tuple(describe(path, content) for path, content in sorted(files.items())))
        while not self._owns(manifest):
            manifest = self._claim(manifest)
            for path, content in files.items():
                self.store.put(version_path(manifest.name, manifest.version, path), content)
        self._commit(manifest)
        self._introduce(manifest)
        return manifest

    def move(self, name: str, alias: str, version: int, *, by: str, reason: str) -> AliasDocument:
        """Point an alias to a version by compare-and-swap; `ChangedError` when somebody else moved it meanwhile.

        The version must exist. The document remembers where the alias pointed before.
        """
        check_alias(alias)
        self.manifest(name, version)
        try:
            document, e_tag = self._alias(name, alias)
        except NotFoundError:
            moved = AliasDocument(version, None, by, now(), reason)
            self.store.create(alias_path(name, alias), encode(moved))
        else:
            moved = AliasDocument(version, document.version, by, after(document.at), reason)
            self.store.replace(alias_path(name, alias), encode(moved), e_tag)
        return moved

    def _claim(self, manifest: Manifest) -> Manifest:
        """Take the lowest number above all that were ever taken; a racer that is slower takes the next."""
        taken = self.store.folders(f"models/{manifest.name}/versions")
        version = 1 + max((int(folder) for folder in taken if folder.isdecimal()), default=0)
        claim = encode(Claim(manifest.nonce, manifest.by, manifest.created))
        while True:
            with suppress(AlreadyExistsError):
                self.store.create(version_path(manifest.name, version, "claim.json"), claim)
            claimed = msgspec.structs.replace(manifest, version=version)
            if self._owns(claimed):
                return claimed
            version += 1

    def _owns(self, manifest: Manifest) -> bool:
        """Whether the claim on the version's number is this publisher's.

        Read back because some S3-compatible servers let two racing create-only puts both succeed, moto's among them
        (infra/decisions/0003), and because a client library may repeat a put whose answer got lost.
        """
        path = version_path(manifest.name, manifest.version, "claim.json")
        try:
            return self._read(path, Claim)[0].nonce == manifest.nonce
        except NotFoundError:
            return False

    def _commit(self, manifest: Manifest) -> None:
        """Write the manifest; a put whose answer got lost is repeated by the store and then finds itself there."""
        path = version_path(manifest.name, manifest.version, "manifest.json")
        try:
            self.store.create(path, encode(manifest))
        except AlreadyExistsError:
            if self._read(path, Manifest)[0].nonce != manifest.nonce:
                raise

    def _introduce(self, manifest: Manifest) -> None:
        """Make a new version the candidate, unless a newer one is, and the champion, if there is none."""
        name, version = manifest.name, manifest.version
        while not self._points_at_least(name, CANDIDATE, version):
            try:
                self.move(name, CANDIDATE, version, by=manifest.by, reason="newest version")
            except ConflictError:
                continue  # another publisher was faster; look again
        if not self._points_at_least(name, CHAMPION, 1):
            first = AliasDocument(version, None, manifest.by, now(), "first version")
            try:
                self.store.create(alias_path(name, CHAMPION), encode(first))
            except AlreadyExistsError:
                return  # another first version was faster

    def _points_at_least(self, name: str, alias: str, version: int) -> bool:
        try:
            return self._alias(name, alias)[0].version >= version
        except NotFoundError:
            return False

    def _alias(self, name: str, alias: str) -> tuple[AliasDocument, str]:
        return self._read(alias_path(name, alias), AliasDocument)

    def _read(self, path: str, kind: type[Document]) -> tuple[Document, str]:
        """A document and its e_tag; one that does not read is the store's fault, not the caller's."""
        stored = self.store.get(path)
        try:
            return decode(stored.data, kind, path), stored.e_tag
        except InvalidInputError as exc:
            raise ModelRefusedError(str(exc)) from exc

    def _missing(self, name: str, what: str) -> NotFoundError:
        versions = self.versions(name)
        if not versions:
            return NotFoundError(f"There is no model {name!r}; GET /v2/models and `pilotlight models` list all.")
        known = [*map(str, versions), *self.aliases(name)]
        return NotFoundError(f"Model {name!r} has no {what}; it has {', '.join(known)}.")


def version_path(name: str, version: int, file: str) -> str:
    """The key of a file of a version."""
    return f"models/{name}/versions/{version}/{file}"


def alias_path(name: str, alias: str) -> str:
    """The key of an alias document."""
    return f"models/{name}/aliases/{alias}.json"


def complete(draft: Draft, files: tuple[File, ...]) -> Manifest:
    """A draft as the manifest of version 1; `InvalidInputError` when it would not be read back as one."""
    stamp = {"version": 1, "created": now(), "nonce": uuid.uuid4().hex, "files": msgspec.to_builtins(files)}
    try:
        return msgspec.convert(msgspec.to_builtins(draft) | stamp, Manifest)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"{draft.name} cannot be published: {exc}.") from exc


def describe(path: str, content: Content) -> File:
    """A file's record for the manifest: size in bytes and sha256 in hex."""
    if isinstance(content, bytes):
        return File(path, len(content), hashlib.sha256(content).hexdigest())
    with content.open("rb") as file:
        return File(path, content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def moment(text: str) -> datetime | None:
    """A document's `at` as a time; None for what is not one, or has no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def after(earlier: str) -> str:
    """The time now, or just after `earlier` where another machine's clock is ahead: `at` orders an alias's moves."""
    previous = moment(earlier)
    floor = previous + timedelta(microseconds=1) if previous is not None else None
    current = datetime.now(UTC)
    return (current if floor is None else max(current, floor)).isoformat()


def now() -> str:
    """The time as RFC 3339 in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat()
