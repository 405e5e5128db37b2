"""Versions and aliases of models, as documents in an object store.

    models/<name>/versions/<n>/claim.json     create-only: who makes it owns the number n
    models/<name>/versions/<n>/<files>        written by the owner alone
    models/<name>/versions/<n>/manifest.json  create-only and last: this write is the commit
    models/<name>/aliases/<alias>.json        create-only, then compare-and-swap
    models/<name>/history/<alias>/<k>.json    the alias's k-th document, put aside before it is swapped for the next

No manifest, no version: a half upload is invisible, and its number is never used again. An alias's history is whole at
every moment: the documents put aside and then the current one. There is no server and no lock.
"""

import base64
import binascii
import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import DocumentT, decode_document, encode_document, format_utc_now
from pilotlight.contracts.manifest import Manifest, ManifestDraft, ManifestFile
from pilotlight.contracts.names import CANDIDATE, CHAMPION, ModelReference, check_alias, check_name
from pilotlight.errors import (
    AlreadyExistsError,
    ConflictError,
    DeniedError,
    InvalidInputError,
    ModelRefusedError,
    NotFoundError,
)
from pilotlight.registry import alias_updates
from pilotlight.registry.signing import ManifestSignature, PublicKey, Signer, build_signed_statement
from pilotlight.storage.object_store import ObjectStore

log = logging.getLogger(__name__)

FileContent = bytes | Path  # of a file of a version: in memory, or on disk


class VersionClaim(Struct, frozen=True):
    """Who took a version's number; the nonce is that of the manifest to come."""

    nonce: str
    by: str
    at: str  # RFC 3339, UTC


class Registry:
    """The models in a store. Its readers may run anywhere, its writers may race."""

    def __init__(self, store: ObjectStore, trusted_key: PublicKey | None = None) -> None:
        """With a `trusted_key` key, a manifest that this key has not signed is refused."""
        self.store = store
        self._trusted_key = trusted_key

    def list_models(self) -> list[str]:
        """The names of the models that have at least one version, sorted."""
        return [name for name in self.store.list_folders("models") if self.list_versions(name)]

    def list_versions(self, name: str) -> list[int]:
        """The committed versions of a model, oldest first; empty when there is no such model."""
        manifest = re.compile(r"models/[^/]+/versions/([1-9][0-9]*)/manifest\.json")
        matches = map(manifest.fullmatch, self.store.list_paths(f"models/{name}/versions"))
        return sorted(int(match[1]) for match in matches if match)

    def load_manifest(self, name: str, version: int) -> Manifest:
        """The commit record of a version; `NotFoundError` says which versions there are instead."""
        path = version_path(name, version, "manifest.json")
        try:
            stored = self.store.get(path)
        except NotFoundError as exc:
            raise self._build_not_found_error(name, f"version {version}") from exc
        if self._trusted_key is not None:
            self._verify_signature(name, version, stored.data, self._trusted_key)
        return self._decode_stored_document(path, stored.data, Manifest)

    def sign_manifest(self, name: str, version: int, signer: Signer, *, actor: str) -> ManifestSignature:
        """Put a signature beside a manifest: over the sha256 of its bytes, so over that of every file too."""
        manifest = self.store.get(version_path(name, version, "manifest.json")).data
        signature_base64 = base64.b64encode(signer.sign(build_signed_statement(manifest))).decode()
        digest = hashlib.sha256(manifest).hexdigest()
        signature = ManifestSignature(
            key=signer.key, sha256=digest, signature=signature_base64, by=actor, at=format_utc_now()
        )
        self.store.put(version_path(name, version, "signature.json"), encode_document(signature))
        return signature

    def load_aliases(self, name: str) -> dict[str, AliasDocument]:
        """Every alias of a model, by its name."""
        names = (
            path.removesuffix(".json").rsplit("/", 1)[-1] for path in self.store.list_paths(f"models/{name}/aliases")
        )
        return {alias: self.load_alias(name, alias) for alias in sorted(names)}

    def load_alias(self, name: str, alias: str) -> AliasDocument:
        """Where an alias points; `NotFoundError` says which versions and aliases there are instead."""
        return self.load_alias_with_e_tag(name, alias)[0]

    def load_alias_with_e_tag(self, name: str, alias: str) -> tuple[AliasDocument, str]:
        """The same with the document's e_tag, which changes whenever the document does."""
        try:
            return self._read_alias(name, alias)
        except NotFoundError as exc:
            raise self._build_not_found_error(name, f"version or alias {alias!r}") from exc

    def resolve_reference(self, reference: ModelReference) -> int:
        """The version that a reference means now; a version that is named is not looked up."""
        if reference.version is not None:
            return reference.version
        return self.load_alias(reference.name, reference.alias).version

    def publish_version(self, draft: ManifestDraft, files: Mapping[str, FileContent]) -> Manifest:
        """Make a draft and its files the model's next version, and `candidate` point to it.

        The very first version of a model becomes its champion too, since there is none to be measured against.
        Safe to run from many processes at once; `InvalidInputError` for a draft that names a file it does not bring.
        Who may not write aliases, as the trainer on AWS, leaves them to the promoter, and says so in the log.
        """
        check_name(draft.name, "model name")
        manifest = build_manifest(draft, tuple(describe_file(path, content) for path, content in sorted(files.items())))
        while not self._has_claim(manifest):
            manifest = self._claim_version(manifest)
            for path, content in files.items():
                self.store.put(version_path(manifest.name, manifest.version, path), content)
        self._commit_manifest(manifest)
        try:
            self.assign_initial_aliases(manifest)
        except DeniedError as exc:
            log.warning("%s:%d is published; its aliases are the promoter's. %s", manifest.name, manifest.version, exc)
        return manifest

    def move_alias(self, name: str, alias: str, version: int, *, actor: str, reason: str) -> AliasDocument:
        """Point an alias, new or not, to a version; `ConflictError` when somebody else moved it meanwhile.

        The version must exist. The document remembers where the alias pointed before, and stays suspended if it was.
        """
        check_alias(alias)
        self.load_manifest(name, version)
        try:
            return self.update_alias(
                name, alias, lambda document: alias_updates.point_to(document, version, actor, reason)
            )
        except NotFoundError:
            created = alias_updates.build_first_document(version, actor, reason)
            self.store.create(alias_path(name, alias), encode_document(created))
            return created

    def rollback_alias(self, name: str, alias: str = CHAMPION, *, actor: str, reason: str) -> AliasDocument:
        """End the alias's trial, or, without one, point it to where it pointed before: one compare-and-swap."""
        return self.update_alias(name, alias, lambda document: alias_updates.roll_back(document, actor, reason))

    def suspend_alias(self, name: str, alias: str, *, actor: str, reason: str) -> AliasDocument:
        """Take an alias out of service; one that is already keeps its first reason."""
        return self.update_alias(name, alias, lambda document: alias_updates.suspend_alias(document, actor, reason))

    def resume_alias(self, name: str, alias: str, *, actor: str, reason: str) -> AliasDocument:
        """Put an alias back into service; fine if it is."""
        return self.update_alias(name, alias, lambda document: alias_updates.resume_alias(document, actor, reason))

    def update_alias(self, name: str, alias: str, update: Callable[[AliasDocument], AliasDocument]) -> AliasDocument:
        """Swap an alias's document for what `update` makes of it; `ChangedError` when somebody else was faster."""
        document, e_tag = self.load_alias_with_e_tag(name, alias)
        return self._swap_alias(name, alias, document, e_tag, update(document))

    def _swap_alias(
        self, name: str, alias: str, document: AliasDocument, e_tag: str, updated: AliasDocument
    ) -> AliasDocument:
        """Swap a document for another, if it is still the one with that e_tag.

        It is put aside first, under its number. Racers put the same one there, so none is ever lost.
        """
        if updated is not document:
            self.store.put(history_path(name, alias, document.number), encode_document(document))
            self.store.replace(alias_path(name, alias), encode_document(updated), e_tag)
        return updated

    def load_alias_history(self, name: str, alias: str = CHAMPION) -> list[AliasDocument]:
        """Every document that the alias has had, oldest first, the current one last."""
        current = self.load_alias(name, alias)
        former = (history_path(name, alias, number) for number in range(1, current.number))
        return [*(self._read_document(path, AliasDocument)[0] for path in former), current]

    def _claim_version(self, manifest: Manifest) -> Manifest:
        """Take the lowest number above all that were ever taken; a racer that is slower takes the next."""
        folders = self.store.list_folders(f"models/{manifest.name}/versions")
        version = 1 + max((int(folder) for folder in folders if folder.isdecimal()), default=0)
        claim = encode_document(VersionClaim(manifest.nonce, manifest.by, manifest.created))
        while True:
            with suppress(AlreadyExistsError):
                self.store.create(version_path(manifest.name, version, "claim.json"), claim)
            claimed = msgspec.structs.replace(manifest, version=version)
            if self._has_claim(claimed):
                return claimed
            version += 1

    def _has_claim(self, manifest: Manifest) -> bool:
        """Whether the claim on the version's number is this publisher's.

        Read back because some S3-compatible servers let two racing create-only puts both succeed, moto's among them
        (infra/decisions/0003), and because a client library may repeat a put whose answer got lost.
        """
        path = version_path(manifest.name, manifest.version, "claim.json")
        try:
            return self._read_document(path, VersionClaim)[0].nonce == manifest.nonce
        except NotFoundError:
            return False

    def _commit_manifest(self, manifest: Manifest) -> None:
        """Write the manifest; a put whose answer got lost is repeated by the store and then finds itself there."""
        path = version_path(manifest.name, manifest.version, "manifest.json")
        try:
            self.store.create(path, encode_document(manifest))
        except AlreadyExistsError:
            if self._read_document(path, Manifest)[0].nonce != manifest.nonce:
                raise

    def assign_initial_aliases(self, manifest: Manifest) -> None:
        """Make a new version the candidate, unless a newer one is, and the champion, if there is none; repeatable."""
        name, version = manifest.name, manifest.version
        while (current := self._read_alias_or_none(name, CANDIDATE)) is None or current[0].version < version:
            try:
                self._point_candidate_to(manifest, current)
            except ConflictError:
                continue  # another publisher was faster; look again
        if self._read_alias_or_none(name, CHAMPION) is None:
            first = alias_updates.build_first_document(version, manifest.by, "first version")
            try:
                self.store.create(alias_path(name, CHAMPION), encode_document(first))
            except AlreadyExistsError:
                return  # another first version was faster

    def _point_candidate_to(self, manifest: Manifest, current: tuple[AliasDocument, str] | None) -> None:
        """Make a version the candidate, unless the alias is no longer as it was found."""
        name, version, actor, reason = manifest.name, manifest.version, manifest.by, "newest version"
        if current is None:
            self.store.create(
                alias_path(name, CANDIDATE), encode_document(alias_updates.build_first_document(version, actor, reason))
            )
        else:
            self._swap_alias(name, CANDIDATE, *current, alias_updates.point_to(current[0], version, actor, reason))

    def _read_alias_or_none(self, name: str, alias: str) -> tuple[AliasDocument, str] | None:
        try:
            return self._read_alias(name, alias)
        except NotFoundError:
            return None

    def _verify_signature(self, name: str, version: int, manifest: bytes, key: PublicKey) -> None:
        """Refuse a manifest that the key has not signed."""
        path = version_path(name, version, "signature.json")
        try:
            signature = self._read_document(path, ManifestSignature)[0].signature
        except NotFoundError:
            raise ModelRefusedError(
                f"{name}:{version} is refused: it is not signed, and only signed versions are served here; "
                "`pilotlight promote --sign-with KEY` signs what passes the gate."
            ) from None
        if not key.is_valid_signature(build_signed_statement(manifest), decode_signature(signature)):
            raise ModelRefusedError(
                f"{name}:{version} is refused: its signature was not made over this manifest with the trusted key."
            )

    def _read_alias(self, name: str, alias: str) -> tuple[AliasDocument, str]:
        return self._read_document(alias_path(name, alias), AliasDocument)

    def _read_document(self, path: str, document_type: type[DocumentT]) -> tuple[DocumentT, str]:
        """A document and its e_tag; one that does not read is the store's fault, not the caller's."""
        stored = self.store.get(path)
        return self._decode_stored_document(path, stored.data, document_type), stored.e_tag

    def _decode_stored_document(self, path: str, data: bytes, document_type: type[DocumentT]) -> DocumentT:
        try:
            return decode_document(data, document_type, path)
        except InvalidInputError as exc:
            raise ModelRefusedError(str(exc)) from exc

    def _build_not_found_error(self, name: str, what: str) -> NotFoundError:
        versions = self.list_versions(name)
        if not versions:
            return NotFoundError(f"There is no model {name!r}; GET /v2/models and `pilotlight models` list all.")
        existing = [*map(str, versions), *self.load_aliases(name)]
        return NotFoundError(f"Model {name!r} has no {what}; it has {', '.join(existing)}.")


def decode_signature(signature: str) -> bytes:
    """A signature's bytes; none where it is not base64, which no key vouches for."""
    try:
        return base64.b64decode(signature, validate=True)
    except binascii.Error:
        return b""


def version_path(name: str, version: int, file: str) -> str:
    """The key of a file of a version."""
    return f"models/{name}/versions/{version}/{file}"


def alias_path(name: str, alias: str) -> str:
    """The key of an alias document."""
    return f"models/{name}/aliases/{alias}.json"


def history_path(name: str, alias: str, number: int) -> str:
    """The key of a former document of an alias."""
    return f"models/{name}/history/{alias}/{number}.json"


def build_manifest(draft: ManifestDraft, files: tuple[ManifestFile, ...]) -> Manifest:
    """A draft as the manifest of version 1; `InvalidInputError` when it would not be read back as one."""
    generated_fields = {
        "version": 1,
        "created": format_utc_now(),
        "nonce": uuid.uuid4().hex,
        "files": msgspec.to_builtins(files),
    }
    try:
        return msgspec.convert(msgspec.to_builtins(draft) | generated_fields, Manifest)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"{draft.name} cannot be published: {exc}.") from exc


def describe_file(path: str, content: FileContent) -> ManifestFile:
    """A file's record for the manifest: size in bytes and sha256 in hex."""
    if isinstance(content, bytes):
        return ManifestFile(path, len(content), hashlib.sha256(content).hexdigest())
    with content.open("rb") as file:
        return ManifestFile(path, content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
