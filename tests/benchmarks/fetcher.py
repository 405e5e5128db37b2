"""One fetch of P6, as a process of its own: `python -m tests.benchmarks.fetcher ours|bare|boto3 PATH`.

It prints the CPU seconds of the fetch alone, imports and clients left out.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

SIZE = 256_000_000  # bytes
BUCKET, KEY = "models", "file"


def ours(target: Path) -> Callable[[], object]:
    """As the handler does it."""
    from pilotlight.runtime.malloc import reuse_freed_memory
    from pilotlight.storage.download import download_object
    from pilotlight.storage.object_store import open_store

    store = open_store(f"s3://{BUCKET}")

    def fetch() -> None:
        with target.open("w+b") as file, reuse_freed_memory():
            download_object(store, KEY, file, SIZE)

    return fetch


def bare(target: Path) -> Callable[[], object]:
    """The same parts without a hash."""
    from concurrent.futures import ThreadPoolExecutor

    from pilotlight.runtime.malloc import reuse_freed_memory
    from pilotlight.storage.download import CONNECTIONS
    from pilotlight.storage.object_store import PART_BYTES, open_store

    store = open_store(f"s3://{BUCKET}")

    def fetch() -> None:
        with (
            target.open("w+b") as file,
            ThreadPoolExecutor(CONNECTIONS) as threads,
            reuse_freed_memory(),
        ):
            starts = range(0, SIZE, PART_BYTES)
            list(threads.map(lambda at: store.copy_range(KEY, file.fileno(), at, min(at + PART_BYTES, SIZE)), starts))

    return fetch


def boto3(target: Path) -> Callable[[], object]:
    """AWS's own way."""
    import boto3

    client = boto3.client("s3")
    return lambda: client.download_file(BUCKET, KEY, str(target))


SIDES: Mapping[str, Callable[[Path], Callable[[], object]]] = {"ours": ours, "bare": bare, "boto3": boto3}


def main(side: str, target: str) -> None:
    """Fetch once, and print the CPU seconds that it took."""
    fetch = SIDES[side](Path(target))
    before = time.process_time()
    fetch()
    sys.stdout.write(f"{time.process_time() - before}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
