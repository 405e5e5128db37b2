"""The registry's routes of publishing over HTTP: for callers with a key or token, and no rights in the bucket.

POST /registry/models/{model}/versions                    announces a version; returns a URL for each of its files
GET  /registry/models/{model}/versions/{version}/upload   what has arrived, and new URLs for the rest
POST /registry/models/{model}/versions/{version}/commit   makes the version visible, once every file has its hash
"""

import time
from typing import Protocol

import msgspec

from pilotlight.api.http import Request, Response
from pilotlight.api.powertools_router import ModelName, PathVersion, TypedRoutes
from pilotlight.api.schemas.registry import NewVersionBody, UploadedFile, VersionUpload
from pilotlight.aws.presigned_urls import Presigner
from pilotlight.contracts.manifest import Manifest, ManifestDraft, ManifestFile
from pilotlight.contracts.signed_upload import EXPIRY_S, PresignedUpload, UploadGrant
from pilotlight.errors import InvalidInputError, UnsupportedError
from pilotlight.registry.registry import Registry, version_path
from pilotlight.registry.version_upload import VersionUploads
from pilotlight.settings import Settings

ACCEPTED = 202
# Of a manifest, what the server says itself.
SERVER_FIELDS = ("version", "created", "nonce", "files", "schema_version")


class UploadSigner(Protocol):
    """Signs the requests by which files are uploaded."""

    def sign_upload(self, request: Request, path: str, file: ManifestFile) -> PresignedUpload:
        """Sign the upload of a file to a path of the store, for the sender of a request."""


class BucketSigner:
    """Signs for a bucket: S3 itself takes the files."""

    def __init__(self, presigner: Presigner) -> None:
        self._presigner = presigner

    def sign_upload(self, request: Request, path: str, file: ManifestFile) -> PresignedUpload:
        """Sign the upload of a file to a path of the store, for the sender of a request."""
        return self._presigner.presign_upload(path, file.bytes, file.sha256)


class GatewaySigner:
    """Signs for the local gateway, which takes the files of a store on disk, at the address that the caller used."""

    def __init__(self, key: str) -> None:
        self._key = key

    def sign_upload(self, request: Request, path: str, file: ManifestFile) -> PresignedUpload:
        """Sign the upload of a file to a path of the store, for the sender of a request."""
        expires_at = int(time.time()) + EXPIRY_S
        grant = UploadGrant(path=path, bytes=file.bytes, sha256=file.sha256, expires_at=expires_at)
        origin = f"{request.headers.get('x-forwarded-proto', 'http')}://{request.headers.get('host', 'localhost')}"
        headers = {"content-length": str(file.bytes)}
        return PresignedUpload(url=origin + grant.build_target(self._key), headers=headers, expires_at=expires_at)


class VersionUploadEndpoints:
    """The routes of publishing over a registry; without a signer, its store takes no uploads."""

    def __init__(self, registry: Registry, signer: UploadSigner | None, uploads: VersionUploads | None = None) -> None:
        self._signer = signer
        self._uploads = uploads or VersionUploads(registry)

    @classmethod
    def from_settings(cls, registry: Registry, settings: Settings) -> "VersionUploadEndpoints":
        """Build the routes for the store of these settings: a bucket, or a disk behind the local gateway."""
        presigner = Presigner.from_store_url(settings.store)
        if presigner is not None:
            return cls(registry, BucketSigner(presigner), VersionUploads(registry, presigner))
        return cls(registry, GatewaySigner(settings.upload_key) if settings.upload_key else None)

    def routes(self) -> TypedRoutes:
        """Return the endpoints by route and verb."""
        return {
            "/registry/models/{model}/versions": {"POST": self.announce},
            "/registry/models/{model}/versions/{version}/upload": {"GET": self.get_upload},
            "/registry/models/{model}/versions/{version}/commit": {"POST": self.commit},
        }

    def announce(self, request: Request, model: ModelName, body: NewVersionBody) -> Response:
        """Announce a version: its manifest and the files to come. The caller is recorded as its publisher."""
        signer = self._require_signer()
        draft = record_publisher(parse_draft(model, body.manifest), request)
        files = [ManifestFile(file.path, file.bytes, file.sha256) for file in body.files]
        announced = self._uploads.announce(draft, files)
        headers = {"location": f"versions/{announced.version}/upload"}
        return Response.json(self._to_upload(request, announced, signer), ACCEPTED, **headers)

    def get_upload(self, request: Request, model: ModelName, version: PathVersion) -> Response:
        """Return which files have arrived, and new URLs for those that have not."""
        signer = self._require_signer()
        return Response.json(self._to_upload(request, self._uploads.load(model, version), signer))

    def commit(self, model: ModelName, version: PathVersion) -> Response:
        """Check the files and make the version visible; one that is committed already is returned."""
        return Response.json(self._uploads.commit(model, version))

    def _to_upload(self, request: Request, announced: Manifest, signer: UploadSigner) -> VersionUpload:
        arrived = self._uploads.list_uploaded_sizes(announced)
        files = [
            UploadedFile(
                path=file.path,
                bytes=file.bytes,
                sha256=file.sha256,
                uploaded=file.path in arrived,
                presigned=None
                if file.path in arrived
                else signer.sign_upload(request, version_path(announced.name, announced.version, file.path), file),
            )
            for file in announced.files
        ]
        return VersionUpload(announced.name, str(announced.version), announced.by, files)

    def _require_signer(self) -> UploadSigner:
        if self._signer is None:
            raise UnsupportedError(
                "The store of this server takes no uploads: it is neither a bucket nor a folder behind `pilotlight "
                "serve`. Publish with --store."
            )
        return self._signer


def parse_draft(model: str, content: dict[str, object]) -> ManifestDraft:
    """Parse the manifest of a body; raise `InvalidInputError` for a wrong field, or for the server's own."""
    own = [name for name in SERVER_FIELDS if name in content]
    if own:
        raise InvalidInputError(f"$.manifest.{own[0]} is the server's to set; leave out {', '.join(own)}.")
    if content.setdefault("name", model) != model:
        raise InvalidInputError(f"$.manifest.name is {content['name']!r}, but the path names the model {model!r}.")
    try:
        return msgspec.convert(content, ManifestDraft)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"$.manifest is not one of a version: {exc}.") from exc


def record_publisher(draft: ManifestDraft, request: Request) -> ManifestDraft:
    """Record who publishes: the caller as the gateway knows it, else the name that the publisher gives."""
    by = request.actor if request.identity or not draft.by else draft.by
    return msgspec.structs.replace(draft, by=by)
