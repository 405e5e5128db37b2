"""Read files of captures line by line, in bounded memory.

It knows where the files are and their format, not what is computed from them.
"""

import gzip
import io
import logging
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from pilotlight.capture.record import CAPTURES_FOLDER, HOUR_FORMAT, CaptureRecord, capture_folder
from pilotlight.errors import BrokenDocumentError
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.capture")
RECORD_DECODER = msgspec.json.Decoder(CaptureRecord)
# Of gzip and of msgspec; and of a file that is too large to be read whole.
BROKEN_FILE_ERRORS = (
    OSError,
    EOFError,
    zlib.error,
    msgspec.DecodeError,
    ValueError,
    RecursionError,
    BrokenDocumentError,
)
MAX_FILES = 2000  # of one version that are read at once; of more, every second, third, ... file


def list_captured_versions(store: ObjectStore) -> Iterator[tuple[str, int]]:
    """List every version that has captures."""
    for model in store.list_folders(CAPTURES_FOLDER):
        yield from ((model, int(name)) for name in store.list_folders(f"{CAPTURES_FOLDER}/{model}") if name.isdecimal())


def list_capture_files(store: ObjectStore, model: str, version: int, since: datetime, until: datetime) -> list[str]:
    """List the files of the hours from `since` to before `until`, oldest first."""
    root = capture_folder(model, version)
    first, last = (f"{root}/{at.astimezone(UTC).strftime(HOUR_FORMAT)}" for at in (since, until))
    days = (until.astimezone(UTC).date() - since.astimezone(UTC).date()).days
    dates = [(since.astimezone(UTC) + timedelta(days=day)).strftime("%Y-%m-%d") for day in range(days + 1)]
    found = (path for date in dates for path in store.list_paths(f"{root}/{date}"))
    return sorted(path for path in found if first <= path.rsplit("/", 1)[0] < last)


def sample_evenly(paths: Sequence[str], limit: int = MAX_FILES) -> Sequence[str]:
    """Select at most `limit` of the paths, spread evenly over the time."""
    return paths[:: max(1, -(-len(paths) // limit))]


def read_records(store: ObjectStore, paths: Sequence[str]) -> Iterator[CaptureRecord]:
    """Yield the records of some files; log and skip the rest of a file after a line that cannot be read."""
    for path in paths:
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(store.get(path).data)) as content:
                yield from map(RECORD_DECODER.decode, content)
        except BROKEN_FILE_ERRORS as exc:
            LOG.warning("%s is not read to its end: %s", path, type(exc).__name__)
