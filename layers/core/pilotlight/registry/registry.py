"""Versions and aliases of models, as documents in an object store.

    models/<name>/versions/<n>/claim.json     create-only: its writer owns the number n
    models/<name>/versions/<n>/<files>        written by the owner alone
    models/<name>/versions/<n>/upload.json    the manifest to come, where the files are uploaded over HTTP
    models/<name>/versions/<n>/manifest.json  create-only and last: this write is the commit
    models/<name>/aliases/<alias>.json        create-only, then compare-and-swap
    models/<name>/history/<alias>/<k>.json    the alias's k-th document, copied before it is swapped for the next
    signatures/<name>/<n>.json                by who judges a version: where its publisher cannot write
    models/<name>/history/<alias>/<k>.broken  its bytes, where they were no document and were replaced

Without a manifest there is no version: an unfinished upload is invisible, and its number is never used again. An
alias's history is complete at every moment: the former documents and then the current one. There is no server and no
lock. A manifest is read only from the place that it names (infra/decisions/0066).
"""

import logging
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from pilotlight.contracts.alias import AliasDocument, UnreadableDocument
from pilotlight.contracts.codec import DocumentT, format_utc_now
from pilotlight.contracts.manifest import Manifest, ManifestDraft, ManifestFile
from pilotlight.contracts.names import CANDIDATE, CHAMPION, ModelReference, check_alias, check_name
from pilotlight.contracts.version_files import FileContent, check_file_paths, describe_file
from pilotlight.errors import (
    AlreadyExistsError,
    BrokenDocumentError,
    ConflictError,
    DeniedError,
    InvalidInputError,
    ModelRefusedError,
    NotFoundError,
)
from pilotlight.registry import alias_updates
from pilotlight.registry.signing import ManifestSignature, PublicKey, Signer, build_signature
from pilotlight.storage.documents import Document
from pilotlight.storage.download import hash_chunks
from pilotlight.storage.object_store import ObjectStore

log = logging.getLogger(__name__)

JUDGEMENT_FOLDERS = ("approvals", "signatures", "verdicts")
_ALIAS_PATH = re.compile(r"models/([^/]+)/aliases/([^/]+)\.json")


class VersionClaim(Struct, frozen=True):
    """Who took a version's number; the nonce is that of the manifest to come."""

    nonce: str
    by: str
    at: str  # RFC 3339, UTC


@dataclass(frozen=True)
class AliasListing:
    """The aliases of a model: the documents of those that can be read, and why the others cannot."""

    documents: dict[str, AliasDocument] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


class Registry:
    """The models in a store. Readers and writers may run in any number of processes at once."""

    def __init__(self, store: ObjectStore, trusted_key: PublicKey | None = None) -> None:
        """Open the models of a store; with a `trusted_key`, refuse a manifest that this key has not signed."""
        self.store = store
        self._trusted_key = trusted_key

    def list_models(self) -> list[str]:
        """List the names of the models that have at least one version, sorted."""
        return [name for name in self.store.list_folders("models") if self.list_versions(name)]

    def list_versions(self, name: str) -> list[int]:
        """List the committed versions of a model, oldest first; empty when there is no such model."""
        manifest = re.compile(r"models/[^/]+/versions/([1-9][0-9]*)/manifest\.json")
        matches = map(manifest.fullmatch, self.store.list_paths(f"models/{name}/versions"))
        return sorted(int(match[1]) for match in matches if match)

    def load_manifest(self, name: str, version: int) -> Manifest:
        """Load the commit record of a version; a `NotFoundError` names the versions and aliases that exist."""
        document = self._open_manifest(name, version)
        try:
            stored = self.store.get(document.path)
        except NotFoundError as exc:
            raise self._build_not_found_error(name, f"version {version}") from exc
        if self._trusted_key is not None:
            self._verify_signature(name, version, stored.data, self._trusted_key)
        return document.decode(stored.data)

    def sign_manifest(self, name: str, version: int, signer: Signer, *, actor: str) -> ManifestSignature:
        """Write a signature: over name, version and the sha256 of the manifest, and so over the hash of every file."""
        document = self._open_manifest(name, version)
        manifest = self.store.get(document.path).data
        document.decode(manifest)  # what belongs elsewhere is not signed here
        signature = build_signature(name, version, manifest, signer, actor)
        self._open_document(signature_path(name, version), ManifestSignature).write(signature)
        return signature

    def load_aliases(self, name: str) -> AliasListing:
        """Load every alias of a model; a broken one does not hide the others."""
        return self._load_aliases(name, sorted(self._list_alias_names(name)))

    def load_all_aliases(self) -> dict[str, AliasListing]:
        """Load every alias of every model, by the model's name: one listing of the store, and a read for each alias.

        The promote function does so every five minutes; a listing for each model would be most of an idle stack's bill.
        """
        names: dict[str, list[str]] = {}
        for found in map(_ALIAS_PATH.fullmatch, self.store.list_paths("models")):
            if found:
                names.setdefault(found[1], []).append(found[2])
        return {name: self._load_aliases(name, sorted(aliases)) for name, aliases in sorted(names.items())}

    def _load_aliases(self, name: str, aliases: Iterable[str]) -> AliasListing:
        listing = AliasListing()
        for alias in aliases:
            document = self._open_alias(name, alias).read_or_error()
            if isinstance(document, BrokenDocumentError):
                listing.errors[alias] = str(document)
            elif document is not None:
                listing.documents[alias] = document
        return listing

    def _list_alias_names(self, name: str) -> Iterator[str]:
        matches = map(_ALIAS_PATH.fullmatch, self.store.list_paths(f"models/{name}/aliases"))
        return (match[2] for match in matches if match)

    def load_alias(self, name: str, alias: str) -> AliasDocument:
        """Load an alias's document; a `NotFoundError` names the versions and aliases that exist."""
        return self.load_alias_with_e_tag(name, alias)[0]

    def load_alias_with_e_tag(self, name: str, alias: str) -> tuple[AliasDocument, str]:
        """Load an alias's document with its e_tag, which changes whenever the document does."""
        try:
            return self._open_alias(name, alias).read_with_e_tag()
        except NotFoundError as exc:
            raise self._build_not_found_error(name, f"version or alias {alias!r}") from exc

    def resolve_reference(self, reference: ModelReference) -> int:
        """Return the version that a reference means now; a version number is not looked up."""
        if reference.version is not None:
            return reference.version
        return self.load_alias(reference.name, reference.alias).version

    def publish_version(self, draft: ManifestDraft, files: Mapping[str, FileContent]) -> Manifest:
        """Make a draft and its files the model's next version, and `candidate` point to it.

        The first version of a model becomes its champion too, since there is none to be measured against. Many
        processes may publish at once. A draft that names a file which is not in `files` is an `InvalidInputError`.
        A publisher without the right to write aliases, as the trainer on AWS, leaves them to the promoter and logs it.
        A broken alias costs the version nothing.
        """
        check_name(draft.name, "model name")
        manifest = build_manifest(draft, tuple(describe_file(path, content) for path, content in sorted(files.items())))
        while not self._has_claim(manifest):
            manifest = self.claim_version(manifest)
            if not self._create_files(manifest, files):
                manifest = msgspec.structs.replace(manifest, nonce=uuid.uuid4().hex)  # gives this number up
        self.commit_version(manifest)
        return manifest

    def commit_version(self, manifest: Manifest) -> None:
        """Make a version visible whose files are in the store, and assign its first aliases; safe to repeat."""
        self.commit_manifest(manifest)
        try:
            self.assign_initial_aliases(manifest)
        except DeniedError as exc:
            log.warning("%s:%d is published; its aliases are the promoter's. %s", manifest.name, manifest.version, exc)

    def move_alias(self, name: str, alias: str, version: int, *, actor: str, reason: str) -> AliasDocument:
        """Point an alias, new or not, to an existing version; raise `ConflictError` when another move was faster.

        The document keeps the previous version, and stays suspended if it was.
        """
        check_alias(alias)
        self.load_manifest(name, version)
        try:
            return self.update_alias(
                name, alias, lambda document: alias_updates.point_to(document, version, actor, reason)
            )
        except NotFoundError:
            return self._create_alias(name, alias, version, actor, reason)

    def replace_broken_alias(self, name: str, alias: str, version: int, *, actor: str, reason: str) -> AliasDocument:
        """Point an alias whose document is broken to an existing version; its bytes are kept in the history.

        Number, previous version and suspension go on from the history. Raises `ConflictError` when another swap was
        faster, or the document is not broken.
        """
        self.load_manifest(name, version)
        if not isinstance(self._open_alias(name, alias).read_or_error(), BrokenDocumentError):
            raise ConflictError(f"{name}@{alias} is not broken, so that it is not replaced; read it again.")
        path = alias_path(name, alias)
        _, e_tag = self.store.get_size_and_e_tag(path)
        former = self._load_former_documents(name, alias)
        number = 1 + max(former, default=0)
        self.store.put_chunks(history_path(name, alias, number, "broken"), map(bytes, self.store.stream(path)))
        last = next((one for _, one in sorted(former.items(), reverse=True) if isinstance(one, AliasDocument)), None)
        if last is None:
            pointed = alias_updates.build_first_document(version, actor, reason)
        else:
            pointed = alias_updates.point_to(last, version, actor, reason)
            if last.version == version:  # it is put back: a rollback goes where it would have gone then
                pointed = msgspec.structs.replace(pointed, previous=last.previous)
        mended = msgspec.structs.replace(pointed, number=number + 1)
        self._open_alias(name, alias).replace(mended, e_tag)
        return mended

    def rollback_alias(self, name: str, alias: str = CHAMPION, *, actor: str, reason: str) -> AliasDocument:
        """End the alias's canary or, without one, point it to its previous version, by one compare-and-swap."""
        return self.update_alias(name, alias, lambda document: alias_updates.roll_back(document, actor, reason))

    def suspend_alias(self, name: str, alias: str, *, actor: str, reason: str) -> AliasDocument:
        """Take an alias out of service; a suspended one keeps its first reason."""
        return self.update_alias(name, alias, lambda document: alias_updates.suspend_alias(document, actor, reason))

    def resume_alias(self, name: str, alias: str, *, actor: str, reason: str) -> AliasDocument:
        """Put an alias back into service; do nothing if it is in service."""
        return self.update_alias(name, alias, lambda document: alias_updates.resume_alias(document, actor, reason))

    def update_alias(self, name: str, alias: str, update: Callable[[AliasDocument], AliasDocument]) -> AliasDocument:
        """Swap an alias's document for what `update` makes of it; raise `ChangedError` when another swap was faster."""
        document, e_tag = self.load_alias_with_e_tag(name, alias)
        return self._swap_alias(name, alias, document, e_tag, update(document))

    def _swap_alias(
        self, name: str, alias: str, document: AliasDocument, e_tag: str, updated: AliasDocument
    ) -> AliasDocument:
        """Swap a document for another, if its e_tag is still `e_tag`.

        It is first copied into the history, under its number. Racing writers copy the same document, so none is lost.
        """
        if updated is document:
            return document
        with suppress(AlreadyExistsError):
            self._open_history(name, alias, document.number).create(document)
        updated = msgspec.structs.replace(updated, model=name, alias=alias)
        self._open_alias(name, alias).replace(updated, e_tag)
        return updated

    def load_alias_history(self, name: str, alias: str = CHAMPION) -> list[AliasDocument | UnreadableDocument]:
        """Load every document that the alias has had, oldest first, the current one last.

        A document that is broken or missing is a row that says so.
        """
        current = self._open_alias(name, alias).read_or_error()
        if current is None:
            raise self._build_not_found_error(name, f"version or alias {alias!r}")
        rows = self._load_former_documents(name, alias)
        if isinstance(current, BrokenDocumentError):
            number = 1 + max(rows, default=0)
            rows[number] = UnreadableDocument(number, str(current))
        else:
            rows = {number: row for number, row in rows.items() if number < current.number} | {current.number: current}
        return list(fill_gaps(rows))

    def _load_former_documents(self, name: str, alias: str) -> dict[int, AliasDocument | UnreadableDocument]:
        """Load the history's documents by their numbers."""
        pattern = re.compile(r".*/([1-9][0-9]{0,17})\.(json|broken)")
        matches = filter(None, map(pattern.fullmatch, self.store.list_paths(f"models/{name}/history/{alias}")))
        rows: dict[int, AliasDocument | UnreadableDocument] = {}
        for number, suffix in sorted((int(match[1]), match[2]) for match in matches):
            path = history_path(name, alias, number, suffix)
            if suffix == "broken":
                error = f"It could not be read, and was replaced; its bytes are in {path}."
                rows.setdefault(number, UnreadableDocument(number, error))
            else:
                found = self._open_history(name, alias, number).read_or_error()
                rows[number] = found if isinstance(found, AliasDocument) else UnreadableDocument(number, str(found))
        return rows

    def claim_version(self, manifest: Manifest) -> Manifest:
        """Take the lowest number above all that were ever taken; a slower publisher takes the next one."""
        folders = self.store.list_folders(f"models/{manifest.name}/versions")
        version = 1 + max((int(folder) for folder in folders if folder.isdecimal()), default=0)
        claim = VersionClaim(manifest.nonce, manifest.by, manifest.created)
        while True:
            with suppress(AlreadyExistsError):
                self._open_claim(manifest.name, version).create(claim)
            claimed = msgspec.structs.replace(manifest, version=version)
            if self._has_claim(claimed):
                return claimed
            version += 1

    def _has_claim(self, manifest: Manifest) -> bool:
        """Return whether the claim on the version's number is this publisher's.

        The claim is read back because on some S3-compatible servers, such as moto, two racing create-only puts may both
        succeed (infra/decisions/0003), and because a client library may repeat a put whose answer was lost.
        """
        claim = self._open_claim(manifest.name, manifest.version).read_or_none()
        return claim is not None and claim.nonce == manifest.nonce

    def _create_files(self, manifest: Manifest, files: Mapping[str, FileContent]) -> bool:
        """Write the files of a version, each create-only; return whether they are this publisher's."""
        for file in manifest.files:
            path, content = version_path(manifest.name, manifest.version, file.path), files[file.path]
            try:
                if isinstance(content, bytes):
                    self.store.create(path, content)
                else:
                    self.store.create_from_file(path, content)
            except AlreadyExistsError:  # its own, if the answer to the first attempt was lost
                if hash_chunks(self.store.stream(path)) != (file.bytes, file.sha256):
                    return False
        return True

    def commit_manifest(self, manifest: Manifest) -> None:
        """Write the manifest; the store repeats a put whose answer was lost, and then finds its own manifest.

        The files are looked for first: by a clock that jumped, a pruning may have taken them for an old upload's.
        """
        uploaded = set(self.store.list_paths(f"models/{manifest.name}/versions/{manifest.version}"))
        missing = [
            file.path
            for file in manifest.files
            if version_path(manifest.name, manifest.version, file.path) not in uploaded
        ]
        if missing:
            raise ConflictError(
                f"{manifest.name}:{manifest.version} is not published: {', '.join(missing[:3])} was removed from the "
                "store while the others were uploaded; publish again."
            )
        document = self._open_manifest(manifest.name, manifest.version)
        try:
            document.create(manifest)
        except AlreadyExistsError:
            if document.read().nonce != manifest.nonce:
                raise

    def assign_initial_aliases(self, manifest: Manifest) -> None:
        """Make a version the candidate unless a newer one is, and the champion if there is none; safe to repeat."""
        name, version, actor = manifest.name, manifest.version, manifest.by
        candidate, champion = self._open_alias(name, CANDIDATE), self._open_alias(name, CHAMPION)
        if isinstance(candidate.read_or_error(), BrokenDocumentError):  # what it must be is known: the newest version
            newest = max(self.list_versions(name))
            with suppress(ConflictError):
                self.replace_broken_alias(name, CANDIDATE, newest, actor=actor, reason="newest version")
        while (current := candidate.read_with_e_tag_or_none()) is None or current[0].version < version:
            with suppress(ConflictError):  # another publisher was faster; look again
                if current is None:
                    self._create_alias(name, CANDIDATE, version, actor, "newest version")
                else:
                    updated = alias_updates.point_to(current[0], version, actor, "newest version")
                    self._swap_alias(name, CANDIDATE, *current, updated)
        if champion.read_or_error() is None:  # a broken one is a person's to replace
            with suppress(AlreadyExistsError):  # another first version was faster
                self._create_alias(name, CHAMPION, version, actor, "first version")

    def _create_alias(self, name: str, alias: str, version: int, actor: str, reason: str) -> AliasDocument:
        created = msgspec.structs.replace(
            alias_updates.build_first_document(version, actor, reason), model=name, alias=alias
        )
        self._open_alias(name, alias).create(created)
        return created

    def _verify_signature(self, name: str, version: int, manifest: bytes, key: PublicKey) -> None:
        """Refuse a manifest that the key has not signed."""
        signature = (
            self._open_document(signature_path(name, version), ManifestSignature).read_or_none()
            # Where former releases put it; only the key can have made it, and the manifest names the version.
            or self._open_document(version_path(name, version, "signature.json"), ManifestSignature).read_or_none()
        )
        if signature is None:
            raise ModelRefusedError(
                f"{name}:{version} is refused: it is not signed, and only signed versions are served here; "
                "`pilotlight promote --sign-with KEY` signs what passes the gate."
            )
        if not key.has_signed(name, version, manifest, signature):
            raise ModelRefusedError(
                f"{name}:{version} is refused: its signature was not made over this manifest, as this version of this "
                "model, with the trusted key."
            )

    def _open_alias(self, name: str, alias: str) -> Document[AliasDocument]:
        option = "" if alias == CHAMPION else f" --alias {alias}"
        return Document(
            self.store,
            alias_path(name, alias),
            AliasDocument,
            f"`pilotlight promote {name}:VERSION{option} --force` replaces it.",
            model=name,
            alias=alias,
        )

    def _open_history(self, name: str, alias: str, number: int) -> Document[AliasDocument]:
        path = history_path(name, alias, number)
        return Document(self.store, path, AliasDocument, model=name, alias=alias, number=number)

    def _open_manifest(self, name: str, version: int) -> Document[Manifest]:
        path = version_path(name, version, "manifest.json")
        return Document(self.store, path, Manifest, name=name, version=version)

    def _open_claim(self, name: str, version: int) -> Document[VersionClaim]:
        return self._open_document(version_path(name, version, "claim.json"), VersionClaim)

    def _open_document(self, path: str, document_type: type[DocumentT]) -> Document[DocumentT]:
        return Document(self.store, path, document_type)

    def _build_not_found_error(self, name: str, what: str) -> NotFoundError:
        versions = self.list_versions(name)
        if not versions:
            return NotFoundError(f"There is no model {name!r}; GET /v2/models and `pilotlight models` list all.")
        existing = [*map(str, versions), *sorted(self._list_alias_names(name))]
        return NotFoundError(f"Model {name!r} has no {what}; it has {', '.join(existing)}.")


def version_path(name: str, version: int, file: str) -> str:
    """Return the key of a file of a version."""
    return f"models/{name}/versions/{version}/{file}"


def judgement_path(folder: str, name: str, version: int) -> str:
    """Return the key of a judgement of a version: in its folder of JUDGEMENT_FOLDERS, where no publisher may write."""
    return f"{folder}/{name}/{version}.json"


def signature_path(name: str, version: int) -> str:
    """Return the key of a version's signature."""
    return judgement_path("signatures", name, version)


def alias_path(name: str, alias: str) -> str:
    """Return the key of an alias document."""
    return f"models/{name}/aliases/{alias}.json"


def history_path(name: str, alias: str, number: int, suffix: str = "json") -> str:
    """Return the key of a former document of an alias."""
    return f"models/{name}/history/{alias}/{number}.{suffix}"


def fill_gaps(
    rows: Mapping[int, AliasDocument | UnreadableDocument],
) -> Iterator[AliasDocument | UnreadableDocument]:
    """Yield the rows of a history by their numbers, with one row for each gap between them."""
    expected = 1
    for number, row in sorted(rows.items()):
        if number > expected:
            missing = f"{expected} is" if number == expected + 1 else f"{expected} to {number - 1} are"
            yield UnreadableDocument(expected, f"What was number {missing} missing from the store.")
        yield row
        expected = number + 1


def build_manifest(draft: ManifestDraft, files: tuple[ManifestFile, ...]) -> Manifest:
    """Build the manifest of version 1 from a draft; raise `InvalidInputError` when it would not decode."""
    check_file_paths(file.path for file in files)
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
