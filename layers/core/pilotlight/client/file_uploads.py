"""Uploads of a version's files by presigned requests: several at once, each tried again where it fails.

The requests go to the bucket, or to the local gateway in its place, with nothing but what was signed: a key or token of
the server is not for them. Files that have arrived are not sent again.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from random import uniform

import httpx2

from pilotlight.api.schemas.registry import UploadedFile, VersionUpload
from pilotlight.contracts.version_files import FileContent
from pilotlight.errors import InvalidInputError, PilotlightError, UnavailableError

Progress = Callable[[str, int], None]  # the path of a file, and how many of its bytes were sent since the last call
UPLOADS_AT_ONCE = 4
ATTEMPTS = 5  # of each file
FIRST_PAUSE_S = 0.5  # before the second attempt; twice as long before each further one
CHUNK_BYTES = 1 << 20
TIMEOUT = httpx2.Timeout(60, read=300)  # s; a store may hash 5 GB before it answers
ARRIVED_STATUSES = frozenset({200, 201, 204, 412})  # 412: an earlier attempt has arrived, whose answer was lost
EXPIRED_STATUSES = frozenset({401, 403})
TEMPORARY_CODES = ("ExpiredToken", "RequestTimeout", "IncompleteBody")  # S3's with the status 400
FAULTY_STATUSES = frozenset({408, 409, 429, *range(500, 600)})  # 409: S3's, for two writes at the same time


class FileUploads:
    """The uploads of one version; `renew` asks the server what is missing, with new URLs for it."""

    def __init__(
        self, files: Mapping[str, FileContent], renew: Callable[[], VersionUpload], on_progress: Progress
    ) -> None:
        self._files = files
        self._renew = renew
        self._on_progress = on_progress
        self._is_stopped = threading.Event()  # one has failed, so that the others need not arrive

    def run(self, upload: VersionUpload) -> None:
        """Upload every file that is missing; raise the error of the first one that cannot be uploaded."""
        with httpx2.Client(timeout=TIMEOUT) as http, ThreadPoolExecutor(UPLOADS_AT_ONCE) as threads:
            uploads = [threads.submit(self._upload_file, http, file) for file in upload.missing]
            try:
                for each in as_completed(uploads):
                    each.result()
            except BaseException:  # also Ctrl-C
                self._is_stopped.set()
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _upload_file(self, http: httpx2.Client, file: UploadedFile) -> None:
        """Upload one file, and again until it has arrived or the attempts are used up."""
        for attempt in range(1, ATTEMPTS + 1):
            sent: list[int] = []
            try:
                failure = self._send(http, file, sent)
            except httpx2.TransportError as exc:
                failure = UnavailableError(f"{file.path} could not be uploaded: {exc or type(exc).__name__}.")
            if failure is None:
                return
            self._on_progress(file.path, -sum(sent))
            if attempt == ATTEMPTS or isinstance(failure, InvalidInputError):
                raise failure
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1) * uniform(0.5, 1))  # noqa: S311 - apart from each other
            file = self._find_missing(file)
            if file.uploaded:
                self._on_progress(file.path, file.bytes)
                return

    def _find_missing(self, file: UploadedFile) -> UploadedFile:
        """Ask what has become of a file; without an answer, go on with the URL that there is."""
        try:
            return next(each for each in self._renew().files if each.path == file.path)
        except UnavailableError:
            return file

    def _send(self, http: httpx2.Client, file: UploadedFile, sent: list[int]) -> PilotlightError | None:
        """Send a file once; return None when it has arrived, else why it has not."""
        signed = file.presigned
        if signed is None:
            return None
        chunks = self._iterate_chunks(file, sent)
        response = http.request(signed.method, signed.url, headers=signed.headers, content=chunks)
        if response.status_code in ARRIVED_STATUSES:
            self._on_progress(file.path, file.bytes - sum(sent))
            return None
        text = f"The store refused {file.path} ({response.status_code}): {response.text[:300].strip()}"
        is_temporary = response.status_code in EXPIRED_STATUSES | FAULTY_STATUSES or any(
            f"<Code>{code}</Code>" in response.text for code in TEMPORARY_CODES
        )
        return UnavailableError(text) if is_temporary else InvalidInputError(text)

    def _iterate_chunks(self, file: UploadedFile, sent: list[int]) -> Iterator[bytes]:
        """Iterate over a file's bytes, and note what was sent; `InvalidInputError` if they are not as many any more."""
        left = file.bytes
        for chunk in iterate_content(self._files[file.path]):
            left -= len(chunk)
            if left < 0:
                break
            if self._is_stopped.is_set():
                raise InvalidInputError(f"{file.path} was not uploaded, since another file could not be.")
            yield chunk
            sent.append(len(chunk))
            self._on_progress(file.path, len(chunk))
        if left:
            raise InvalidInputError(f"{file.path} was changed while it was uploaded; publish again.")


def iterate_content(content: FileContent) -> Iterator[bytes]:
    """Iterate over the bytes of a file in chunks."""
    if isinstance(content, bytes):
        yield from (content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES))
        return
    with content.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
