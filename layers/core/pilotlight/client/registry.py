"""The registry of a server, over HTTP: `Client.registry`.

    with Client("https://host/prod", key=key) as client:
        client.registry.promote("digits", 3)

This module has the routes and their forms; `client` sends the requests.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from pilotlight.api.schemas import registry
from pilotlight.api.schemas.registry import (
    CanaryBody,
    ModelDetail,
    ModelList,
    ModelSummary,
    NewVersionBody,
    PromoteBody,
    RollbackBody,
    VersionFileBody,
    VersionUpload,
)
from pilotlight.client.file_uploads import FileUploads, Progress
from pilotlight.contracts.alias import AliasDocument, UnreadableDocument
from pilotlight.contracts.manifest import Manifest, ManifestDraft
from pilotlight.contracts.names import CHAMPION, check_name
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.contracts.version_files import FileContent, describe_file
from pilotlight.errors import NotFoundError, UnavailableError

ApiCall = Callable[..., bytes]  # verb, path, body, headers
Answer = TypeVar("Answer")
PROMOTION_TIMEOUT_S = 900.0  # the promote function's own Timeout
POLL_INTERVAL_S = 0.5
COMMIT_ATTEMPTS = 3  # of a commit, which may be repeated
COMMIT_PAUSE_S = 2.0


class RemoteRegistry:
    """Versions and aliases of a server; the errors are those of the client.

    `expected_number` is the number of the alias's document on which the caller's decision is based: if the document is
    newer, the change is refused with `PreconditionError`.
    """

    def __init__(self, call: ApiCall) -> None:
        self._call = call

    def list_models(self) -> list[ModelSummary]:
        """List every model with its versions and its champion."""
        return self._request(ModelList, "GET", "").models

    def get_model(self, name: str) -> ModelDetail:
        """Get a model with its aliases and its newest versions."""
        return self._request(ModelDetail, "GET", f"/{name}")

    def get_alias(self, name: str, alias: str = CHAMPION) -> AliasDocument:
        """Get the document of an alias."""
        return self._request(AliasDocument, "GET", build_alias_path(name, alias))

    def get_alias_history(self, name: str, alias: str = CHAMPION) -> list[AliasDocument | UnreadableDocument]:
        """Get every document that the alias has had, oldest first; one that is broken is a row with the reason."""
        return registry.parse_history(self._call("GET", f"/registry/models{build_alias_path(name, alias)}/history"))

    def promote(
        self,
        name: str,
        version: int | None = None,
        alias: str = CHAMPION,
        *,
        force: bool = False,
        reason: str = "",
        expected_number: int | None = None,
        wait_s: float = PROMOTION_TIMEOUT_S,
    ) -> PromotionRequest:
        """Promote a version, by default the candidate, to the alias through the gate, and wait for the result.

        The result's `state` is promoted, refused or failed; `UnavailableError` is raised if it takes longer than
        `wait_s`. With `wait_s` 0 it may still be `asked`.
        """
        deadline = time.monotonic() + wait_s
        request = self._post(
            PromotionRequest,
            f"{build_alias_path(name, alias)}/promote",
            PromoteBody(version, force, reason),
            expected_number,
        )
        while request.state == "asked" and wait_s:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"The promotion {request.id} of {name} has not ended after {wait_s:g} s; ask again."
                )
            time.sleep(POLL_INTERVAL_S)
            request = self.get_promotion(name, request.id)
        return request

    def get_promotion(self, name: str, promotion_id: str) -> PromotionRequest:
        """Get the state of a promotion."""
        return self._request(PromotionRequest, "GET", f"/{name}/promotions/{promotion_id}")

    def rollback(
        self, name: str, alias: str = CHAMPION, *, reason: str, expected_number: int | None = None
    ) -> AliasDocument:
        """End the alias's canary or, without one, point it to where it pointed before."""
        return self._post(
            AliasDocument, f"{build_alias_path(name, alias)}/rollback", RollbackBody(reason), expected_number
        )

    def set_canary(
        self, name: str, trial: CanaryBody, alias: str = CHAMPION, *, expected_number: int | None = None
    ) -> AliasDocument:
        """Try a version on a share of the alias's requests; 0 percent ends the canary."""
        return self._post(AliasDocument, f"{build_alias_path(name, alias)}/canary", trial, expected_number)

    def check_access(self, name: str) -> None:
        """Check that the server lets this caller see a model, new or not; raise its error otherwise."""
        with suppress(NotFoundError):
            self._call("GET", f"/registry/models/{check_name(name, 'model name')}?newest=1")

    def publish(
        self, draft: ManifestDraft, files: Mapping[str, FileContent], on_progress: Progress = lambda path, sent: None
    ) -> Manifest:
        """Make a draft and its files the model's next version, as `Registry.publish_version` does, over HTTP alone.

        The server sets the publisher's name and the number. Nothing is visible until every file has arrived with its
        hash. `on_progress` is called from several threads; a negative number takes back what did not arrive.
        """
        upload = self.announce_version(draft, files)
        version = int(upload.version)
        FileUploads(files, lambda: self.get_upload(draft.name, version), on_progress).run(upload)
        return self._commit_until_answered(draft.name, version)

    def announce_version(self, draft: ManifestDraft, files: Mapping[str, FileContent]) -> VersionUpload:
        """Announce a version with the sizes and hashes of its files; the result has a presigned request for each."""
        check_name(draft.name, "model name")
        described = [describe_file(path, content) for path, content in sorted(files.items())]
        body = NewVersionBody(
            msgspec.to_builtins(draft), [VersionFileBody(file.path, file.bytes, file.sha256) for file in described]
        )
        return self._request(VersionUpload, "POST", f"/{draft.name}/versions", msgspec.json.encode(body))

    def get_upload(self, name: str, version: int) -> VersionUpload:
        """Get what has arrived of an announced version, with new presigned requests for the rest."""
        return self._request(VersionUpload, "GET", f"/{name}/versions/{version}/upload")

    def commit_version(self, name: str, version: int) -> Manifest:
        """Make an announced version visible; repeat it where the answer was lost."""
        return self._request(Manifest, "POST", f"/{name}/versions/{version}/commit", b"{}")

    def _commit_until_answered(self, name: str, version: int) -> Manifest:
        """Commit a version, and again while the server is briefly unavailable."""
        for _ in range(COMMIT_ATTEMPTS - 1):
            with suppress(UnavailableError):
                return self.commit_version(name, version)
            time.sleep(COMMIT_PAUSE_S)
        return self.commit_version(name, version)

    def _post(self, body_type: type[Answer], target: str, body: object, expected_number: int | None) -> Answer:
        headers = {"if-match": f'"{expected_number}"'} if expected_number is not None else {}
        return self._request(body_type, "POST", target, msgspec.json.encode(body), headers)

    def _request(self, body_type: type[Answer], *call: Any) -> Answer:  # noqa: ANN401 - verb, path, body, headers
        verb, target, *rest = call
        return registry.parse_response(self._call(verb, f"/registry/models{target}", *rest), body_type)


def build_alias_path(name: str, alias: str) -> str:
    """Build the path of an alias."""
    return f"/{name}/aliases/{alias}"
