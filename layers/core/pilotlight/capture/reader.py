"""Read files of captures line by line, in bounded memory.

It knows where the files are and their format, not what is computed from them. A version's captures are those of the
stack's own callers and of every tenant together: what is computed from them is the operator's.
"""

import gzip
import io
import logging
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain

import msgspec

from pilotlight.capture.record import CAPTURES_FOLDER, HOUR_FORMAT, CaptureRecord
from pilotlight.contracts.names import is_version
from pilotlight.contracts.tenant import is_tenant_folder
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.capture")
RECORD_DECODER = msgspec.json.Decoder(CaptureRecord)
MAX_LISTS = 16  # at a time: each tenant has folders of his own
MAX_FILES = 2000  # of one version that are read at once; of more, every second, third, ... file


def list_captured_versions(store: ObjectStore) -> Iterator[tuple[str, int]]:
    """List every version that has captures, each once."""
    roots = list_capture_roots(store)
    with ThreadPoolExecutor(MAX_LISTS) as executor:
        models = [
            (root, model)
            for root, names in zip(roots, executor.map(store.list_folders, roots), strict=True)
            for model in names
            if not is_tenant_folder(model)
        ]
        versions = executor.map(lambda place: store.list_folders("/".join(place)), models)
        found = {
            (model, int(name))
            for (_, model), names in zip(models, versions, strict=True)
            for name in filter(is_version, names)
        }
    yield from sorted(found)


def list_capture_roots(store: ObjectStore) -> list[str]:
    """List the folders that hold the captures of models: the top-level one, and one for each tenant."""
    tenants = filter(is_tenant_folder, store.list_folders(CAPTURES_FOLDER))
    return [CAPTURES_FOLDER, *(f"{CAPTURES_FOLDER}/{name}" for name in tenants)]


def list_capture_files(store: ObjectStore, model: str, version: int, since: datetime, until: datetime) -> list[str]:
    """List the files of the hours from `since` to before `until`, oldest first."""
    first, last = (at.astimezone(UTC).strftime(HOUR_FORMAT) for at in (since, until))
    days = (until.astimezone(UTC).date() - since.astimezone(UTC).date()).days
    dates = [(since.astimezone(UTC) + timedelta(days=day)).strftime("%Y-%m-%d") for day in range(days + 1)]
    folders = [f"{root}/{model}/{version}/{date}" for root in list_capture_roots(store) for date in dates]
    with ThreadPoolExecutor(MAX_LISTS) as executor:
        found = list(chain.from_iterable(executor.map(lambda folder: list(store.list_paths(folder)), folders)))
    return sorted((path for path in found if first <= find_hour(path) < last), key=lambda path: (find_hour(path), path))


def find_hour(path: str) -> str:
    """Return the date and the hour in the path of a file of captures."""
    return "/".join(path.split("/")[-3:-1])


def sample_evenly(paths: Sequence[str], limit: int = MAX_FILES) -> Sequence[str]:
    """Select at most `limit` of the paths, spread evenly over the time."""
    return paths[:: max(1, -(-len(paths) // limit))]


def read_records(store: ObjectStore, paths: Sequence[str]) -> Iterator[CaptureRecord]:
    """Yield the records of some files; log and skip the rest of a file after a line that cannot be read."""
    for path in paths:
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(store.get(path).data)) as content:
                yield from map(RECORD_DECODER.decode, content)
        except (OSError, EOFError, zlib.error, msgspec.DecodeError) as exc:
            LOG.warning("%s is not read to its end: %s", path, type(exc).__name__)
